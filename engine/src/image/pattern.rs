//! Patterns of `--filter reference=`: those of Go's `path.Match`, where no wildcard passes a slash.

/// Whether the pattern fits all of the text; `None`: the pattern is broken.
pub(super) fn matches(pattern: &str, text: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    check(&pattern)?;
    Some(fits(&pattern, &text))
}

/// Brackets are closed and a backslash escapes something.
fn check(mut pattern: &[char]) -> Option<()> {
    while let Some((first, rest)) = pattern.split_first() {
        pattern = match first {
            '\\' => rest.get(1..)?,
            '[' => &rest[class(rest, 'x')?.1..],
            _ => rest,
        };
    }
    Some(())
}

fn fits(pattern: &[char], text: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return text.is_empty();
    };
    if *first == '*' {
        let end = text.iter().position(|c| *c == '/').unwrap_or(text.len());
        return (0..=end).any(|skipped| fits(rest, &text[skipped..]));
    }
    let Some((c, tail)) = text.split_first() else {
        return false;
    };
    match first {
        '?' => *c != '/' && fits(rest, tail),
        '\\' => rest.first() == Some(c) && fits(rest.get(1..).unwrap_or(&[]), tail),
        '[' => match class(rest, *c) {
            Some((true, length)) => fits(&rest[length..], tail),
            _ => false,
        },
        literal => literal == c && fits(rest, tail),
    }
}

/// Whether a class (what follows its `[`) has the character, and how long it is with its `]`.
fn class(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let negated = pattern.first() == Some(&'^');
    let mut at = usize::from(negated);
    let (mut found, mut ranges) = (false, 0);
    loop {
        if pattern.get(at) == Some(&']') && ranges > 0 {
            return Some((found != negated, at + 1));
        }
        let low = bound(pattern, &mut at)?;
        let high = if pattern.get(at) == Some(&'-') {
            at += 1;
            bound(pattern, &mut at)?
        } else {
            low
        };
        found |= (low..=high).contains(&c);
        ranges += 1;
    }
}

fn bound(pattern: &[char], at: &mut usize) -> Option<char> {
    if pattern.get(*at) == Some(&'\\') {
        *at += 1;
    } else if matches!(pattern.get(*at), Some('-' | ']')) {
        return None;
    }
    let c = *pattern.get(*at)?;
    *at += 1;
    Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_go() {
        for (pattern, text, wanted) in [
            ("busybox", "busybox", Some(true)),
            ("busy*", "busybox:latest", Some(true)),
            ("*", "a/b", Some(false)),
            ("*/b", "a/b", Some(true)),
            ("a?c", "abc", Some(true)),
            ("a?c", "a/c", Some(false)),
            ("a[b-d]e", "ace", Some(true)),
            ("a[^b-d]e", "ace", Some(false)),
            ("a[^b-d]e", "aze", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("*b*d", "abcbd", Some(true)),
            ("", "", Some(true)),
            ("a[", "a", None),
            ("a[]", "a", None),
            ("a\\", "a", None),
            ("[-]", "-", None),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
