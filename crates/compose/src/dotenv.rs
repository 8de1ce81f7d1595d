//! Files of variables: `.env` and `env_file`, in the syntax that Compose reads.
//!
//! Deliberately absent: reading the files.

use crate::interpolate::expand;

/// What a file sets, in its order. `None`: a name without `=`, to be taken from outside.
pub(crate) type Variables = Vec<(String, Option<String>)>;

/// What is wrong in which line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DotenvError {
    pub line: usize,
    pub message: String,
}

/// Reads a file of variables. Values without quotes or in double quotes may use variables: those of `lookup`, and
/// those set further up.
pub(crate) fn parse(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Variables, DotenvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = Variables::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        rest = statement(rest, lookup, &mut variables)
            .map_err(|message| DotenvError { line, message })?;
    }
    Ok(variables)
}

/// Takes one line (more, where a quoted value goes on) and gives what follows.
fn statement<'a>(
    text: &'a str,
    lookup: &dyn Fn(&str) -> Option<String>,
    variables: &mut Variables,
) -> Result<&'a str, String> {
    let (line, next) = text.split_once('\n').unwrap_or((text, ""));
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(next);
    }
    let start = line.trim_start();
    let start = start.strip_prefix("export ").map_or(start, str::trim_start);
    let Some(at) = start.find(['=', ':']) else {
        let name = start.split('#').next().unwrap_or_default().trim();
        check_name(name)?;
        variables.push((name.to_owned(), None));
        return Ok(next);
    };
    let name = start[..at].trim_end();
    check_name(name)?;
    let value_at = line.len() - (start.len() - at - 1);
    let (value, next) = read_value(&text[value_at..], name, &|name: &str| {
        let above = variables.iter().rev().find(|(known, _)| known == name);
        lookup(name).or_else(|| above.and_then(|(_, value)| value.clone()))
    })?;
    variables.push((name.to_owned(), Some(value)));
    Ok(next)
}

fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match !name.is_empty() && name.chars().all(good) {
        true => Ok(()),
        false => Err(format!("`{name}` is not the name of a variable")),
    }
}

fn read_value<'a>(
    text: &'a str,
    name: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, &'a str), String> {
    let text = text.trim_start_matches([' ', '\t']);
    let expanded = |value: &str| match expand(value, lookup) {
        Ok(expansion) => Ok(expansion.text),
        Err(error) => Err(format!("in `{name}`: {error}")),
    };
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else {
        let (line, next) = text.split_once('\n').unwrap_or((text, ""));
        let end = line.find(" #").or_else(|| line.find("\t#"));
        let value = match line.starts_with('#') {
            true => "",
            false => line[..end.unwrap_or(line.len())].trim(),
        };
        return Ok((expanded(value)?, next));
    };
    let inside = &text[1..];
    let end = closing_quote(inside, quote)
        .ok_or_else(|| format!("the quote of `{name}` is not closed"))?;
    let value = match quote {
        '\'' => inside[..end].to_owned(),
        _ => expanded(&unescape(&inside[..end]))?,
    };
    let (line, next) = inside[end + 1..]
        .split_once('\n')
        .unwrap_or((&inside[end + 1..], ""));
    match line.trim().is_empty() || line.trim().starts_with('#') {
        true => Ok((value, next)),
        false => Err(format!("there is more after the closing quote of `{name}`")),
    }
}

fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, (c == '\\').then(|| characters.next()).flatten()) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some('t')) => out.push('\t'),
            // What `expand` makes a literal dollar of.
            ('\\', Some('$')) => out.push_str("$$"),
            ('\\', Some(other @ ('"' | '\\'))) => out.push(other),
            ('\\', Some(other)) => out.extend(['\\', other]),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/home/me".into())
    }

    #[test]
    fn variables_are_read() {
        for (text, expected) in [
            ("A=1", Some("1")),
            ("export A=1\n", Some("1")),
            ("  A = 1  \r\n", Some("1")),
            ("A: 1", Some("1")),
            ("A=", Some("")),
            ("A", None),
            ("A=x # note", Some("x")),
            ("A=x#y", Some("x#y")),
            ("A=# note", Some("")),
            ("A='x # $HOME\\n'", Some("x # $HOME\\n")),
            (
                "A=\"x\\n\\\"$HOME\\\" \\$5\" # note",
                Some("x\n\"/home/me\" $5"),
            ),
            ("A=\"x\ny\"\n", Some("x\ny")),
            ("A=${NO:-d}/$HOME", Some("d//home/me")),
            ("B=b\nA=$B$B", Some("bb")),
            ("A=1\nA=2", Some("2")),
            ("# A=0\n\nA=é", Some("é")),
            ("A=a=b:c", Some("a=b:c")),
            ("\u{feff}A=1", Some("1")),
        ] {
            let variables = parse(text, &lookup).unwrap();
            let (name, value) = variables.last().unwrap();
            assert_eq!(
                (name.as_str(), value.as_deref()),
                ("A", expected),
                "{text:?}"
            );
        }
    }

    #[test]
    fn errors_tell_the_line() {
        for (text, line, message) in [
            ("A=1\n\n=2", 3, "`` is not the name of a variable"),
            ("A B=1", 1, "`A B` is not the name of a variable"),
            ("A=1\nB='x\ny", 2, "the quote of `B` is not closed"),
            (
                "A='x\ny'\nB='x'y",
                3,
                "there is more after the closing quote of `B`",
            ),
        ] {
            let message = message.to_owned();
            assert_eq!(
                parse(text, &lookup),
                Err(DotenvError { line, message }),
                "{text:?}"
            );
        }
        assert!(
            parse("A=${B:?no}", &lookup)
                .unwrap_err()
                .message
                .contains("`B` is required")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([AB=: \n\r\t'\"#$\\\\{}é]|export )*") {
            let _ = parse(&text, &lookup);
        }
    }
}
