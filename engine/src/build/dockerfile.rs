//! A Dockerfile's text → its instructions. Variables are expanded later, when their values are known.

use crate::container::error::{Error, Result};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Line of the file, from 1.
    pub line: usize,
    /// In capitals.
    pub keyword: String,
    /// `--name=value`, in order; without a value it is empty.
    pub flags: Vec<(String, String)>,
    /// What follows, on one line.
    pub text: String,
}

/// What an instruction's arguments can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// `["a", "b"]`.
    Exec(Vec<String>),
    /// Anything else.
    Shell(String),
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Instruction {
    /// The value of a flag.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags
            .iter()
            .rev()
            .find(|(flag, _)| flag == name)
            .map(|(_, value)| value.as_str())
    }

    /// Refuses flags that are not in `known`.
    pub fn only_flags(&self, known: &[&str]) -> Result<()> {
        match self
            .flags
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some((name, _))
                if matches!(
                    name.as_str(),
                    "mount" | "network" | "security" | "link" | "parents" | "exclude"
                ) =>
            {
                Err(self.error(&format!(
                    "the --{name} option requires BuildKit, which windlassd does not have"
                )))
            }
            Some((name, _)) => Err(self.error(&format!("unknown flag: {name}"))),
        }
    }

    /// The exec form where it is a JSON list of strings, else the text.
    pub fn arguments(&self) -> Arguments {
        match serde_json::from_str::<Vec<String>>(&self.text) {
            Ok(list) => Arguments::Exec(list),
            Err(_) => Arguments::Shell(self.text.clone()),
        }
    }

    /// An error that names the line.
    pub fn error(&self, message: &str) -> Error {
        Error::invalid(format!(
            "dockerfile parse error on line {}: {}: {message}",
            self.line, self.keyword
        ))
    }

    /// As Docker shows it in the steps.
    pub fn shown(&self) -> String {
        let mut shown = self.keyword.clone();
        for (name, value) in &self.flags {
            shown += &if value.is_empty() {
                format!(" --{name}")
            } else {
                format!(" --{name}={value}")
            };
        }
        format!("{shown} {}", self.text)
    }
}

/// Parses a whole file.
pub fn parse(text: &str) -> Result<Vec<Instruction>> {
    let escape = escape_directive(text)?;
    let mut instructions = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let trimmed = line.trim_start();
        if trimmed.starts_with('#') || (pending.is_some() && trimmed.is_empty()) {
            continue;
        }
        let (start, mut joined) = pending.take().unwrap_or((number + 1, String::new()));
        let line = if joined.is_empty() { trimmed } else { line };
        match line.trim_end().strip_suffix(escape) {
            Some(more) => {
                joined.push_str(more);
                pending = Some((start, joined));
            }
            None => {
                joined.push_str(line.trim_end());
                instructions.extend(instruction(start, &joined)?);
            }
        }
    }
    if let Some((start, joined)) = pending {
        instructions.extend(instruction(start, &joined)?);
    }
    if instructions.is_empty() {
        return Err(Error::invalid("the Dockerfile cannot be empty"));
    }
    Ok(instructions)
}

/// `# escape=` in the first lines.
fn escape_directive(text: &str) -> Result<char> {
    for line in text.lines() {
        let Some((name, value)) = line
            .trim()
            .strip_prefix('#')
            .and_then(|rest| rest.split_once('='))
        else {
            break;
        };
        if name.trim().eq_ignore_ascii_case("escape") {
            return match value.trim() {
                "\\" => Ok('\\'),
                "`" => Ok('`'),
                other => Err(Error::invalid(format!(
                    "invalid escape token {other:?}: must be ` or \\"
                ))),
            };
        }
    }
    Ok('\\')
}

fn instruction(line: usize, text: &str) -> Result<Option<Instruction>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let keyword = word.to_ascii_uppercase();
    if !KEYWORDS.contains(&keyword.as_str()) {
        return Err(Error::invalid(format!(
            "dockerfile parse error on line {line}: unknown instruction: {word}"
        )));
    }
    let mut rest = rest.trim_start();
    let mut flags = Vec::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        if flag.is_empty() {
            break;
        }
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        flags.push((name.to_owned(), value.to_owned()));
        rest = after.trim_start();
    }
    let parsed = Instruction {
        line,
        keyword,
        flags,
        text: rest.to_owned(),
    };
    if parsed.text.is_empty() {
        return Err(parsed.error("requires at least one argument"));
    }
    if matches!(parsed.keyword.as_str(), "RUN" | "COPY" | "ADD")
        && parsed.text.contains("<<")
        && heredoc(&parsed.text)
    {
        return Err(parsed.error("here-documents require BuildKit, which windlassd does not have"));
    }
    Ok(Some(parsed))
}

/// Only a whole file's word starts with `<<`; in RUN's shell text it may mean a shift or the shell's own here-document on one line.
fn heredoc(text: &str) -> bool {
    text.starts_with("<<")
}

/// Splits like a shell does: blanks separate, quotes and backslashes keep together; the quotes stay out.
pub fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut open) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"') | None, '\\') => {
                let next = characters.next().unwrap_or('\\');
                if quote.is_some() && !matches!(next, '"' | '\\' | '$') {
                    word.push('\\');
                }
                word.push(next);
                open = true;
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                open = true;
            }
            (None, c) if c.is_whitespace() => {
                if open {
                    words.push(std::mem::take(&mut word));
                    open = false;
                }
            }
            (_, c) => {
                word.push(c);
                open = true;
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        let parsed = parse("# syntax=x\nfrom --platform=linux/amd64 a AS b\nRUN one \\\n# no\n\n  && two\n\nCMD [\"x\", \"y\"]\n").unwrap();
        assert_eq!(parsed.len(), 3);
        assert_eq!(
            (parsed[0].keyword.as_str(), parsed[0].text.as_str()),
            ("FROM", "a AS b")
        );
        assert_eq!(parsed[0].flag("platform"), Some("linux/amd64"));
        assert_eq!(
            (parsed[1].line, parsed[1].text.as_str()),
            (3, "one   && two")
        );
        assert_eq!(
            parsed[2].arguments(),
            Arguments::Exec(vec!["x".into(), "y".into()])
        );
        assert_eq!(parsed[2].shown(), "CMD [\"x\", \"y\"]");
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, wanted) in [
            ("", "cannot be empty"),
            ("FROM a\nRUNN x", "line 2: unknown instruction: RUNN"),
            ("FROM a\nRUN", "line 2: RUN: requires at least one argument"),
            (
                "FROM a\nRUN <<EOF\nx\nEOF",
                "line 2: RUN: here-documents require BuildKit",
            ),
            ("# escape=x\nFROM a", "invalid escape token"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.message.contains(wanted),
                "{text:?}: {}",
                error.message
            );
        }
    }

    #[test]
    fn words_are_split_like_a_shell_does() {
        assert_eq!(
            words(r#"a "b c" d\ e 'f"g' """#),
            ["a", "b c", "d e", "f\"g", ""]
        );
        assert_eq!(words(r#"K="a\"b""#), ["K=a\"b"]);
    }
}
