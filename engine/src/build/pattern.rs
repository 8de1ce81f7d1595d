//! Patterns: of file names (Go's `path.Match`), of `.dockerignore` (with `**` and `!`), and of a shell's substitutions.

use std::path::Path;

/// Go's `path.Match`: `*`, `?`, `[a-z]`, `[^a]`, and a backslash before what is meant literally.
///
/// Only the last star is tried again, which is enough, and keeps the time within the product of both lengths.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, read));
        } else if at == pattern.len() && read == text.len() {
            return true;
        } else if let Some(width) = fits_one(&pattern[at..], text.get(read)) {
            at += width;
            read += 1;
        } else {
            match star {
                Some((after, taken)) if taken < text.len() => {
                    star = Some((after, taken + 1));
                    (at, read) = (after, taken + 1);
                }
                _ => return false,
            }
        }
    }
}

/// How much of the pattern stands for this one byte, if it does.
fn fits_one(pattern: &[u8], byte: Option<&u8>) -> Option<usize> {
    let byte = *byte?;
    match pattern.split_first()? {
        (b'[', rest) => {
            let end = rest.iter().skip(1).position(|b| *b == b']')? + 1;
            in_class(&rest[..end], byte).then_some(end + 2)
        }
        (b'?', _) => Some(1),
        (b'\\', rest) => (rest.first() == Some(&byte)).then_some(2),
        (want, _) => (*want == byte).then_some(1),
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negated, class) = match class.split_first() {
        Some((b'^' | b'!', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut at = 0;
    let mut inside = false;
    while at < class.len() {
        if at + 2 < class.len() && class[at + 1] == b'-' {
            inside |= (class[at]..=class[at + 2]).contains(&byte);
            at += 3;
        } else {
            inside |= class[at] == byte;
            at += 1;
        }
    }
    inside != negated
}

/// Places between characters, from the first to the last.
fn places(value: &str) -> impl DoubleEndedIterator<Item = usize> {
    let inner: Vec<usize> = value.char_indices().map(|(at, _)| at).collect();
    inner.into_iter().chain([value.len()])
}

/// Takes the shortest (or longest) beginning off that fits.
pub fn without_prefix<'a>(value: &'a str, pattern: &str, longest: bool) -> &'a str {
    let fits = |at: &usize| glob(pattern.as_bytes(), &value.as_bytes()[..*at]);
    let found = match longest {
        true => places(value).rev().find(fits),
        false => places(value).find(fits),
    };
    &value[found.unwrap_or(0)..]
}

/// Takes the shortest (or longest) end off that fits.
pub fn without_suffix<'a>(value: &'a str, pattern: &str, longest: bool) -> &'a str {
    let fits = |at: &usize| glob(pattern.as_bytes(), &value.as_bytes()[*at..]);
    let found = match longest {
        true => places(value).find(fits),
        false => places(value).rev().find(fits),
    };
    &value[..found.unwrap_or(value.len())]
}

/// Replaces the first place that fits, the longest there, or all.
pub fn replaced(value: &str, pattern: &str, new: &str, all: bool) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while at < value.len() {
        let rest = &value[at..];
        let fits = |end: &usize| *end > 0 && glob(pattern.as_bytes(), &rest.as_bytes()[..*end]);
        match places(rest).rev().find(fits) {
            Some(length) => {
                out.push_str(new);
                at += length;
                if !all {
                    break;
                }
            }
            None => {
                let step = rest.chars().next().map_or(1, char::len_utf8);
                out.push_str(&rest[..step]);
                at += step;
            }
        }
    }
    out + value.get(at..).unwrap_or_default()
}

/// What `.dockerignore` and `--exclude` name.
#[derive(Clone, Debug, Default)]
pub struct Excluded {
    rules: Vec<(bool, Vec<String>)>,
}

impl Excluded {
    /// One pattern a line; `#` comments, `!` takes back.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut rules = Vec::new();
        for line in lines {
            let line = line.trim_start_matches('\u{feff}');
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (kept, line) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let parts: Vec<String> = super::config::joined("/", line)
                .split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect();
            if !parts.is_empty() {
                rules.push((kept, parts));
            }
        }
        Self { rules }
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether something may be taken back below a folder that is named.
    pub fn takes_back(&self) -> bool {
        self.rules.iter().any(|(kept, _)| *kept)
    }

    /// Whether the path, or a folder that it lies in, is named. The last rule that fits decides.
    pub fn names(&self, path: &Path) -> bool {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let mut named = false;
        for (kept, rule) in &self.rules {
            if (1..=parts.len()).any(|length| fits(rule, &parts[..length])) {
                named = !kept;
            }
        }
        named
    }
}

fn fits(rule: &[String], parts: &[&str]) -> bool {
    match (rule.split_first(), parts.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            (rest.is_empty() && !parts.is_empty())
                || (0..=parts.len()).any(|skip| !rest.is_empty() && fits(rest, &parts[skip..]))
        }
        (Some((first, rest)), Some((part, tail))) => {
            glob(first.as_bytes(), part.as_bytes()) && fits(rest, tail)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ignore_file_names() {
        let rules = Excluded::parse(
            "# no\n/build/\n*.md\n!README.md\n**/*.log\n./tmp?\n!sub/keep.log\na/**/z\n".lines(),
        );
        for (path, wanted) in [
            ("build", true),
            ("build/deep/file", true),
            ("x.md", true),
            ("sub/x.md", false),
            ("README.md", false),
            ("a.log", true),
            ("sub/deep/a.log", true),
            ("sub/keep.log", false),
            ("tmp1/x", true),
            ("tmp", false),
            ("a/z", true),
            ("a/b/c/z/q", true),
        ] {
            assert_eq!(rules.names(Path::new(path)), wanted, "{path}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, wanted) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdef", false),
            ("*.[ch]", "x.y.c", true),
            ("[^a-c]?", "dz", true),
            ("[^a-c]?", "bz", false),
            ("[]", "]", false),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("\\", "\\", false),
        ] {
            let fits = glob(pattern.as_bytes(), text.as_bytes());
            assert_eq!(fits, wanted, "{pattern} {text}");
        }
        // With every star tried again it would not end.
        assert!(!glob("*a".repeat(50).as_bytes(), &[b'a'; 49]));
    }

    #[test]
    fn substitutions() {
        assert_eq!(without_prefix("äöä", "*ö", false), "ä");
        assert_eq!(without_suffix("abc", "x", true), "abc");
        assert_eq!(replaced("a.b.c", ".", "", true), "abc");
        assert_eq!(replaced("aXbX", "X*", "-", false), "a-");
    }
}
