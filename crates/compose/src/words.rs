//! Splits a command line into words as a shell does: quotes and backslashes.
//!
//! Deliberately absent: variables, patterns, pipes; nothing runs in a shell unless the command says so.

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordsError {
    #[error("the quote {0} is not closed")]
    OpenQuote(char),
    #[error("it ends with a backslash")]
    TrailingBackslash,
}

pub(crate) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut characters, word.get_or_insert_default())?,
            '\\' => match characters.next() {
                Some('\n') => {}
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err(WordsError::TrailingBackslash),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(
    quote: char,
    characters: &mut std::str::Chars<'_>,
    word: &mut String,
) -> Result<(), WordsError> {
    while let Some(c) = characters.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match characters.next() {
                Some('\n') => {}
                Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                Some(next) => word.extend(['\\', next]),
                None => break,
            },
            other => word.push(other),
        }
    }
    Err(WordsError::OpenQuote(quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (text, expected) in [
            ("", &[][..]),
            ("  a  b\tc\n", &["a", "b", "c"]),
            ("sh -c 'echo \"x y\"'", &["sh", "-c", "echo \"x y\""]),
            (r#"a"b c"d"#, &["ab cd"]),
            (r#""a\"b\n" ''"#, &["a\"b\\n", ""]),
            (r"a\ b \'c", &["a b", "'c"]),
            ("a \\\n b", &["a", "b"]),
            ("a # b", &["a", "#", "b"]),
        ] {
            assert_eq!(split(text).unwrap(), expected, "{text:?}");
        }
        assert_eq!(split("a 'b"), Err(WordsError::OpenQuote('\'')));
        assert_eq!(split("a \"b\\"), Err(WordsError::OpenQuote('"')));
        assert_eq!(split("a \\"), Err(WordsError::TrailingBackslash));
    }
}
