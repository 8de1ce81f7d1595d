//! Durations (`1m30s`) and sizes (`512m`) as Compose writes them.

use std::time::Duration;

/// Longer than any wait that is meant; also keeps the arithmetic away from its limits.
const LONGEST_SECONDS: f64 = 366.0 * 24.0 * 3600.0;

/// `1h5m30s20ms`, parts may have decimals; `0` needs no unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest)?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, tail) = tail.split_at(end.unwrap_or(tail.len()));
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = tail;
    }
    if text.is_empty() || seconds > LONGEST_SECONDS {
        return None;
    }
    // Through whole nanoseconds, so that 0.1s is what it says.
    Some(Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// `1024`, `64b`, `512k`, `512m`, `1.5gb`, `2GiB`, `1t`: powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes < 2f64.powi(60)).then_some(bytes as u64)
}

fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, rest) = text.split_at(end.unwrap_or(text.len()));
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in [
            ("0", 0),
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            ("0.1s", 100),
            ("1h5m30s20ms", 3_930_020),
            ("2000us", 2),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Some(expected), "{text}");
        }
        for text in [
            "", "5", "s", "5x", "1m30", "-1s", "1 s", "..s", "9999999h", "1d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("10", 10),
            ("10b", 10),
            ("2k", 2048),
            ("512m", 536_870_912),
            ("1gb", 1 << 30),
            ("1.5G", 1_610_612_736),
            ("1 GiB", 1 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "5x", "-1m", "1m5", "99999999t", "1e3"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
