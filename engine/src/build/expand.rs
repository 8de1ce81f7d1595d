//! `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+other}` in a Dockerfile.

use crate::container::error::{Error, Result};

/// Expands `text` with the values of `lookup`; unknown names are empty. Quotes and backslashes stay, except `\$`.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut single = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\'' => {
                single = !single;
                out.push(c);
                rest = after;
            }
            '\\' if after.starts_with('$') && !single => {
                out.push('$');
                rest = &after[1..];
            }
            '\\' => {
                out.push(c);
                let escaped = after.chars().next();
                out.extend(escaped);
                rest = &after[escaped.map_or(0, char::len_utf8)..];
            }
            '$' if !single => {
                let (value, remaining) = variable(after, lookup)?;
                out.push_str(&value);
                rest = remaining;
            }
            _ => {
                out.push(c);
                rest = after;
            }
        }
    }
    Ok(out)
}

/// What follows a `$`: its value, and the text after it.
fn variable<'a>(
    text: &'a str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, &'a str)> {
    if let Some(inner) = text.strip_prefix('{') {
        let end = closing(inner)
            .ok_or_else(|| Error::invalid(format!("unterminated variable: ${text}")))?;
        return Ok((braced(&inner[..end], lookup)?, &inner[end + 1..]));
    }
    let length = name_length(text);
    if length == 0 {
        return Ok(("$".to_owned(), text));
    }
    Ok((lookup(&text[..length]).unwrap_or_default(), &text[length..]))
}

/// Where the brace that is open closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn braced(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let length = name_length(text);
    let (name, modifier) = text.split_at(length);
    let value = lookup(name);
    let filled = value.clone().filter(|value| !value.is_empty());
    if name.is_empty() {
        return Err(Error::invalid(format!("bad substitution: ${{{text}}}")));
    }
    if modifier.is_empty() {
        return Ok(value.unwrap_or_default());
    }
    for (operator, present) in [
        (":-", &filled),
        ("-", &value),
        (":+", &filled),
        ("+", &value),
        (":?", &filled),
        ("?", &value),
    ] {
        let Some(word) = modifier.strip_prefix(operator) else {
            continue;
        };
        let alternative = operator.ends_with('+');
        return match present {
            Some(value) if !alternative => Ok(value.clone()),
            None if operator.ends_with('?') => Err(Error::invalid(format!("{name}: {word}"))),
            None if alternative => Ok(String::new()),
            _ => expand(word, lookup),
        };
    }
    Err(Error::invalid(format!(
        "unsupported modifier in substitution: ${{{text}}}"
    )))
}

fn name_length(text: &str) -> usize {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let lookup = |name: &str| match name {
            "A" => Some("x".to_owned()),
            "E" => Some(String::new()),
            _ => None,
        };
        for (text, wanted) in [
            ("$A-${A}", "x-x"),
            ("${N:-d$A}", "dx"),
            ("${E:-d}|${E-d}", "d|"),
            ("${A:+y}${N:+y}", "y"),
            (r"\$A '$A' $", "$A '$A' $"),
            ("${N:-{}}", "{}"),
            ("ä$A", "äx"),
        ] {
            assert_eq!(expand(text, &lookup).unwrap(), wanted, "{text}");
        }
        for text in ["${A", "${A!b}", "${N:?is missing}", "${}"] {
            assert!(expand(text, &lookup).is_err(), "{text}");
        }
    }
}
