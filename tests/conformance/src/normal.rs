//! Output made comparable: what differs from one run to the next becomes a word.

use std::sync::LazyLock;

use regex::Regex;

/// In this order: a later pattern sees what the earlier ones left.
const WORDS: [(&str, &str); 15] = [
    (
        r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?( (UTC|[A-Z]{3,4}))?",
        "TIME",
    ),
    (
        r"(?i)\b(less than a second|about an? (minute|hour)|\d+ (seconds?|minutes?|hours?|days?|weeks?|months?|years?)) ago",
        "AGO",
    ),
    (
        r"\bUp (Less than a second|About an? (minute|hour)|\d+ (seconds?|minutes?|hours?))",
        "Up AGO",
    ),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    // These two are no mere addresses: they tell how far a port is open.
    (r"\b0\.0\.0\.0\b", "EVERYWHERE"),
    (r"\b127\.0\.0\.1\b", "LOOPBACK"),
    (
        r"(LOOPBACK|EVERYWHERE|\[?::\]?|localhost):\d{4,5}\b",
        "$1:PORT",
    ),
    (r"\b(\d{1,3}\.){3}\d{1,3}(/\d+)?", "IP"),
    (r"\b\d+(\.\d+)?(e[+-]\d+)? ?([kKMGT]i?)?B\b", "SIZE"),
    (r"\b\d+(\.\d+)?%", "PERCENT"),
    (r"/[^ :]*/tmp\.?[^ /:]*/", "FOLDER/"),
    (r"[ \t]+", " "),
    (r" ?\n", "\n"),
];

/// Ids, times, sizes, addresses and column widths replaced, and no space at the end.
pub fn normal(text: &str) -> String {
    static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        WORDS
            .iter()
            .filter_map(|(pattern, word)| Some((Regex::new(pattern).ok()?, *word)))
            .collect()
    });
    let mut text = text.replace('\r', "");
    for (pattern, word) in PATTERNS.iter() {
        text = pattern.replace_all(&text, *word).into_owned();
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_one() {
        for (pattern, _) in WORDS {
            Regex::new(pattern).unwrap();
        }
    }

    #[test]
    fn what_differs_between_runs_becomes_a_word() {
        for (from, to) in [
            (
                "0123456789ab   box  Up 2 seconds  0.0.0.0:32768->80/tcp",
                "ID box Up AGO EVERYWHERE:PORT->80/tcp",
            ),
            ("2026-01-02T03:04:05.123456789Z hello", "TIME hello"),
            ("2026-01-02 03:04:05 +0000 UTC", "TIME"),
            ("About a minute ago", "AGO"),
            ("box latest 1.98MB", "box latest SIZE"),
            ("172.17.0.2/16", "IP"),
            ("02:42:ac:11:00:02", "MAC"),
            ("0.52%   200KiB / 64MiB", "PERCENT SIZE / SIZE"),
            ("exit code 42", "exit code 42"),
        ] {
            assert_eq!(normal(from), to, "{from}");
        }
    }
}
