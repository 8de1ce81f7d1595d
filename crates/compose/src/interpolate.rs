//! `$VAR`, `${VAR}` and their defaults, by Compose's rules, over text and over a tree.
//!
//! Deliberately absent: where variables come from; a look-up is handed in. Keys of mappings are not expanded, as in Compose.

use crate::error::Log;
use crate::node::{Node, Scalar, Style, Value};

/// Defaults inside defaults, at most.
const DEEPEST: usize = 32;

/// Text with its variables replaced, and the names that were not set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expansion {
    pub text: String,
    pub unset: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    #[error("`{0}` is not a variable; a `$` that is meant literally is written `$$`")]
    Malformed(String),
    #[error("the variable `{name}` is required: {message}")]
    Required { name: String, message: String },
    #[error("defaults are nested too deep")]
    TooDeep,
}

/// Replaces the variables of a text.
pub(crate) fn expand(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Expansion, ExpandError> {
    let mut expansion = Expansion::default();
    expand_into(text, lookup, &mut expansion, 0)?;
    Ok(expansion)
}

fn expand_into(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    into: &mut Expansion,
    depth: usize,
) -> Result<(), ExpandError> {
    if depth > DEEPEST {
        return Err(ExpandError::TooDeep);
    }
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        into.text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(tail) = after.strip_prefix('$') {
            into.text.push('$');
            tail
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = closing_brace(inside).ok_or_else(|| malformed(&rest[at..]))?;
            expand_braced(&inside[..end], lookup, into, depth)?;
            &inside[end + 1..]
        } else {
            match split_name(after) {
                Some((name, tail)) => {
                    push_variable(name, lookup, into);
                    tail
                }
                // A dollar before anything else is just that, as in `awk '{print $1}'`.
                None => {
                    into.text.push('$');
                    after
                }
            }
        };
    }
    into.text.push_str(rest);
    Ok(())
}

fn malformed(text: &str) -> ExpandError {
    ExpandError::Malformed(crate::node::shorten(text))
}

/// Where the brace closes that is open at the start. Braces inside count in pairs, where they are paired.
fn closing_brace(inside: &str) -> Option<usize> {
    let any = find_closing(inside, |_, c| c == b'{');
    any.or_else(|| find_closing(inside, |before, c| before == b'$' && c == b'{'))
}

fn find_closing(inside: &str, opens: fn(u8, u8) -> bool) -> Option<usize> {
    let (mut open, mut before) = (1, b' ');
    for (at, c) in inside.bytes().enumerate() {
        if opens(before, c) {
            open += 1;
        } else if c == b'}' {
            open -= 1;
        }
        if open == 0 {
            return Some(at);
        }
        // The second of two dollars begins nothing.
        before = if before == b'$' && c == b'$' { b' ' } else { c };
    }
    None
}

/// A name and what follows it.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let first = text.chars().next()?;
    if !(first.is_ascii_alphabetic() || first == '_') {
        return None;
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    Some(text.split_at(end.unwrap_or(text.len())))
}

fn push_variable(name: &str, lookup: &dyn Fn(&str) -> Option<String>, into: &mut Expansion) {
    match lookup(name) {
        Some(value) => into.text.push_str(&value),
        None => into.unset.push(name.to_owned()),
    }
}

fn expand_braced(
    inside: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    into: &mut Expansion,
    depth: usize,
) -> Result<(), ExpandError> {
    let whole = || malformed(&format!("${{{inside}}}"));
    let (name, rest) = split_name(inside).ok_or_else(whole)?;
    if rest.is_empty() {
        push_variable(name, lookup, into);
        return Ok(());
    }
    // With a colon an empty value counts as unset.
    let (empty_is_unset, rest) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let value = lookup(name).filter(|value| !(empty_is_unset && value.is_empty()));
    let mut characters = rest.chars();
    let operator = characters.next();
    let operand = characters.as_str();
    match (operator, value) {
        (Some('-'), None) | (Some('+'), Some(_)) => expand_into(operand, lookup, into, depth + 1),
        (Some('+'), None) => Ok(()),
        (Some('-' | '?'), Some(value)) => {
            into.text.push_str(&value);
            Ok(())
        }
        (Some('?'), None) => {
            let mut message = Expansion::default();
            expand_into(operand, lookup, &mut message, depth + 1)?;
            let name = name.to_owned();
            let message = match message.text.is_empty() {
                true => "it is not set".into(),
                false => message.text,
            };
            Err(ExpandError::Required { name, message })
        }
        _ => Err(whole()),
    }
}

/// Replaces the variables of all scalars of a tree. Names that are not set become warnings.
pub(crate) fn expand_tree(node: &mut Node, lookup: &dyn Fn(&str) -> Option<String>, log: &mut Log) {
    let mark = node.mark;
    match &mut node.value {
        Value::List(items) => items
            .iter_mut()
            .for_each(|item| expand_tree(item, lookup, log)),
        Value::Map(entries) => entries
            .iter_mut()
            .for_each(|entry| expand_tree(&mut entry.value, lookup, log)),
        Value::Scalar(scalar) if scalar.text.contains('$') => match expand(&scalar.text, lookup) {
            Err(error) => log.error(mark, error.to_string()),
            Ok(expansion) => {
                for name in expansion.unset {
                    log.warn(
                        mark,
                        format!("the variable `{name}` is not set; an empty text stands for it"),
                    );
                }
                let style = Style::Quoted;
                let text = expansion.text;
                *scalar = Scalar { text, style };
            }
        },
        Value::Scalar(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
            "_b2" => Some("b".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_as_compose_does() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$A", "a"),
            ("${A}", "a"),
            ("x${A}y$_b2.z", "xayb.z"),
            ("$$A", "$A"),
            ("$${A}", "${A}"),
            ("${A:-d}", "a"),
            ("${A-d}", "a"),
            ("${NO:-d}", "d"),
            ("${NO-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${NO:-}", ""),
            ("${A:+r}", "r"),
            ("${A+r}", "r"),
            ("${EMPTY:+r}", ""),
            ("${EMPTY+r}", "r"),
            ("${NO:+r}", ""),
            ("${NO+r}", ""),
            ("${A:?e}", "a"),
            ("${A?e}", "a"),
            ("${EMPTY?e}", ""),
            ("${NO:-${NEITHER:-x$A}}", "xa"),
            ("${NO:-${A}}${A}", "aa"),
            ("${A:+${_b2}}", "b"),
            ("${NO:-a:b-c?d}", "a:b-c?d"),
            ("${NO:-$$x}", "$x"),
            ("${NO:-http://x/{id}", "http://x/{id"),
            ("${NO:-{x}}", "{x}"),
            ("${A:-{x}}", "a"),
            ("${NO:-}}", "}"),
            ("$", "$"),
            ("a$ $1 $-", "a$ $1 $-"),
            ("$$$A", "$a"),
            ("${NO:-x$}", "x$"),
        ] {
            assert_eq!(expand(text, &lookup).unwrap().text, expected, "{text}");
        }
    }

    #[test]
    fn unset_names_are_told_but_not_where_a_default_stands() {
        let unset = |text: &str| expand(text, &lookup).unwrap().unset;
        assert_eq!(unset("$NO ${NEITHER}"), ["NO", "NEITHER"]);
        assert!(unset("${NO:-x} ${A:-$NO}").is_empty());
    }

    #[test]
    fn what_is_no_variable_is_an_error() {
        for (text, expected) in [
            ("${NO:?set it}", "the variable `NO` is required: set it"),
            ("${NO?}", "the variable `NO` is required: it is not set"),
            ("${EMPTY:?e}", "the variable `EMPTY` is required: e"),
            ("${NO:?${A} b}", "the variable `NO` is required: a b"),
        ] {
            assert_eq!(
                expand(text, &lookup).unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
        for text in [
            "${",
            "${}",
            "${A",
            "${1}",
            "${A!b}",
            "${A:=b}",
            "${A:}",
            "${A b}",
            "${A:-${B}",
        ] {
            let error = expand(text, &lookup).unwrap_err();
            assert!(matches!(error, ExpandError::Malformed(_)), "{text}");
        }
        let deep = "${N:-".repeat(1000) + &"}".repeat(1000);
        assert_eq!(expand(&deep, &lookup), Err(ExpandError::TooDeep));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r"([$A-C{}:?+\-é ]|\$\{|\$\$)*") {
            let _ = expand(&text, &lookup);
        }

        #[test]
        fn text_without_a_dollar_is_kept(text in "[^$]*") {
            prop_assert_eq!(expand(&text, &lookup).unwrap().text, text);
        }
    }
}
