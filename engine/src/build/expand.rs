//! Words of a Dockerfile: split at blanks, quotes taken off, variables put in — in one pass, so that a value is never read as text again.

use super::pattern;
use crate::container::error::{Error, Result};

/// Reads words with the values that are known.
pub struct Lexer<'a> {
    /// A backslash, or what the directive says.
    pub escape: char,
    /// Values of variables; unknown ones are empty.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

/// Splits at blanks outside of quotes; quotes and escapes stay.
pub fn split(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(c);
        match (quote, c) {
            (Some('\''), c) if c == escape => {}
            (_, c) if c == escape => word.extend(characters.next()),
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            _ => {}
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Pieces of a word, as far as they are read.
#[derive(Default)]
struct Pieces {
    whole: String,
    words: Vec<String>,
    open: Option<String>,
}

impl Pieces {
    fn push(&mut self, c: char) {
        self.whole.push(c);
        self.open.get_or_insert_default().push(c);
    }

    /// Quoted text: blanks in it do not separate.
    fn push_quoted(&mut self, text: &str) {
        self.whole.push_str(text);
        self.open.get_or_insert_default().push_str(text);
    }

    /// A value outside of quotes: its blanks separate words.
    fn push_value(&mut self, text: &str) {
        self.whole.push_str(text);
        for c in text.chars() {
            if c.is_whitespace() {
                self.words.extend(self.open.take());
            } else {
                self.open.get_or_insert_default().push(c);
            }
        }
    }
}

impl Lexer<'_> {
    /// The text as one word.
    pub fn single(&self, text: &str) -> Result<String> {
        Ok(self.read(text)?.whole)
    }

    /// As several words, if it comes to that.
    pub fn several(&self, text: &str) -> Result<Vec<String>> {
        let mut pieces = self.read(text)?;
        pieces.words.extend(pieces.open.take());
        Ok(pieces.words)
    }

    /// A text of any kind, in which quotes mean nothing: a here-document.
    pub fn document(&self, text: &str) -> Result<String> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            if c == '$' {
                let (value, remaining) = self.variable(after)?;
                out.push_str(&value);
                rest = remaining;
            } else if c == self.escape && after.starts_with(['$', self.escape]) {
                out.extend(after.chars().next());
                rest = &after[1..];
            } else {
                out.push(c);
                rest = after;
            }
        }
        Ok(out)
    }

    fn read(&self, text: &str) -> Result<Pieces> {
        let (mut pieces, mut rest) = (Pieces::default(), text);
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = match c {
                '\'' => {
                    let end = after.find('\'').ok_or_else(|| unclosed("single-quote"))?;
                    pieces.push_quoted(&after[..end]);
                    &after[end + 1..]
                }
                '"' => self.double_quoted(after, &mut pieces)?,
                '$' => {
                    let (value, remaining) = self.variable(after)?;
                    pieces.push_value(&value);
                    remaining
                }
                c if c == self.escape => match after.chars().next() {
                    // At the end it escapes nothing.
                    None => after,
                    Some(escaped) => {
                        pieces.push(escaped);
                        &after[escaped.len_utf8()..]
                    }
                },
                c if c.is_whitespace() => {
                    pieces.whole.push(c);
                    pieces.words.extend(pieces.open.take());
                    after
                }
                c => {
                    pieces.push(c);
                    after
                }
            };
        }
        Ok(pieces)
    }

    fn double_quoted<'t>(&self, text: &'t str, pieces: &mut Pieces) -> Result<&'t str> {
        let mut rest = text;
        pieces.push_quoted("");
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = match c {
                '"' => return Ok(after),
                '$' => {
                    let (value, remaining) = self.variable(after)?;
                    pieces.push_quoted(&value);
                    remaining
                }
                c if c == self.escape => match after.chars().next() {
                    Some(escaped) if matches!(escaped, '"' | '$') || escaped == self.escape => {
                        pieces.push(escaped);
                        &after[escaped.len_utf8()..]
                    }
                    _ => {
                        pieces.push(c);
                        after
                    }
                },
                c => {
                    pieces.push(c);
                    after
                }
            };
        }
        Err(unclosed("double-quote"))
    }

    /// What follows a `$`: its value, and the text after it.
    fn variable<'t>(&self, text: &'t str) -> Result<(String, &'t str)> {
        if let Some(inner) = text.strip_prefix('{') {
            let end = self
                .closing(inner)
                .ok_or_else(|| Error::invalid("syntax error: missing '}'"))?;
            return Ok((self.braced(&inner[..end])?, &inner[end + 1..]));
        }
        match name_length(text) {
            0 => Ok(("$".to_owned(), text)),
            length => Ok((
                (self.lookup)(&text[..length]).unwrap_or_default(),
                &text[length..],
            )),
        }
    }

    /// Where the brace that is open closes.
    fn closing(&self, text: &str) -> Option<usize> {
        let mut depth = 0_u32;
        let mut characters = text.char_indices().peekable();
        while let Some((at, c)) = characters.next() {
            match c {
                // A brace without its dollar, or with one that is escaped, opens nothing.
                '$' => depth += u32::from(characters.next_if(|(_, c)| *c == '{').is_some()),
                '}' if depth == 0 => return Some(at),
                '}' => depth -= 1,
                c if c == self.escape => drop(characters.next()),
                _ => {}
            }
        }
        None
    }

    fn braced(&self, text: &str) -> Result<String> {
        let (name, modifier) = text.split_at(name_length(text));
        if name.is_empty() {
            return Err(Error::invalid("syntax error: bad substitution"));
        }
        let value = (self.lookup)(name);
        let Some(operator) = modifier.chars().next() else {
            return Ok(value.unwrap_or_default());
        };
        if matches!(operator, '#' | '%' | '/') {
            return self.cut(&value.unwrap_or_default(), modifier);
        }
        let (operator, word, present) = match modifier.strip_prefix(':') {
            Some(rest) => {
                let operator = rest.chars().next().ok_or_else(|| unsupported(text))?;
                (
                    operator,
                    &rest[operator.len_utf8()..],
                    value.filter(|v| !v.is_empty()),
                )
            }
            None => (operator, &modifier[operator.len_utf8()..], value),
        };
        match (operator, present) {
            ('-' | '?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => self.single(word),
            ('+', None) => Ok(String::new()),
            ('?', None) => {
                let message = match word {
                    "" => "is not allowed to be unset".to_owned(),
                    word => self.single(word)?,
                };
                Err(Error::invalid(format!("{name}: {message}")))
            }
            _ => Err(unsupported(text)),
        }
    }

    /// `#`, `##`, `%`, `%%` take a pattern off an end, `/` and `//` replace it.
    fn cut(&self, value: &str, modifier: &str) -> Result<String> {
        for (operator, longest) in [("##", true), ("#", false)] {
            if let Some(word) = modifier.strip_prefix(operator) {
                return Ok(pattern::without_prefix(value, &self.single(word)?, longest).to_owned());
            }
        }
        for (operator, longest) in [("%%", true), ("%", false)] {
            if let Some(word) = modifier.strip_prefix(operator) {
                return Ok(pattern::without_suffix(value, &self.single(word)?, longest).to_owned());
            }
        }
        let (all, rest) = match modifier.strip_prefix("//") {
            Some(rest) => (true, rest),
            None => (false, &modifier[1..]),
        };
        let (wanted, new) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(pattern::replaced(
            value,
            &self.single(wanted)?,
            &self.single(new)?,
            all,
        ))
    }
}

fn unclosed(what: &str) -> Error {
    Error::invalid(format!(
        "unexpected end of statement while looking for matching {what}"
    ))
}

fn unsupported(text: &str) -> Error {
    Error::invalid(format!("unsupported modifier in substitution: ${{{text}}}"))
}

/// A name, a number, or one of the shell's special signs.
fn name_length(text: &str) -> usize {
    match text.chars().next() {
        Some(c) if c.is_ascii_alphabetic() || c == '_' => text
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len()),
        Some(c) if c.is_ascii_digit() => text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
        Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("x".to_owned()),
            "E" => Some(String::new()),
            "S" => Some("two words".to_owned()),
            "F" => Some("archive.tar.gz".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn every_form() {
        let lexer = Lexer {
            escape: '\\',
            lookup: &lookup,
        };
        for (text, wanted) in [
            ("$A-${A}", "x-x"),
            ("${N:-d$A}", "dx"),
            ("${E:-d}|${E-d}", "d|"),
            ("${A:+y}${N:+y}${E+z}", "yz"),
            (r"\$A '$A' $", "$A $A $"),
            ("ä$A", "äx"),
            (r#""a\"b\n $S" 'c'"#, "a\"b\\n two words c"),
            ("${F#*.}|${F##*.}", "tar.gz|gz"),
            ("${F%.*}|${F%%.*}", "archive.tar|archive"),
            (
                "${F/a/A}|${F//a/A}|${F/.tar}",
                "Archive.tar.gz|Archive.tAr.gz|archive.gz",
            ),
            ("${A:?no}", "x"),
            (r"${N:-\${A}:}|${N:-\$A:}|${N:-${A}b}", "${A:}|$A:|xb"),
        ] {
            assert_eq!(lexer.single(text).unwrap(), wanted, "{text}");
        }
        for text in ["${A", "${A!b}", "${N:?is missing}", "${}", "'a", "\"a"] {
            assert!(lexer.single(text).is_err(), "{text}");
        }
        assert_eq!(
            lexer.several("$S \"$S\"").unwrap(),
            ["two", "words", "two words"]
        );
        assert_eq!(lexer.document("'$A' \\$A \"").unwrap(), "'x' $A \"");
    }

    #[test]
    fn words_keep_their_quotes() {
        assert_eq!(
            split(r#"a "b c" d\ e 'f"g' """#, '\\'),
            ["a", "\"b c\"", r"d\ e", "'f\"g'", "\"\""]
        );
        assert_eq!(split("a`  b\\ c", '`'), ["a` ", "b\\", "c"]);
    }
}
