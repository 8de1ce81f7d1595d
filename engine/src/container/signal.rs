//! Signal names as clients write them.

use nix::sys::signal::Signal;

/// `SIGTERM`, `term`, `15`, `RTMIN+3` → the number.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() {
            0
        } else {
            offset.strip_prefix('+')?.parse().ok()?
        };
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset: i32 = if offset.is_empty() {
            0
        } else {
            offset.strip_prefix('-')?.parse().ok()?
        };
        return (0..=30).contains(&offset).then_some(64 - offset);
    }
    format!("SIG{name}")
        .parse::<Signal>()
        .ok()
        .map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers() {
        for (text, wanted) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("nope", None),
            ("0", None),
            ("SIGWINCH", Some(28)),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }
}
