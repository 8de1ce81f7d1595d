//! A Dockerfile's text → its instructions. Variables are expanded later, when their values are known.

use super::expand::split;
use super::heredoc::{self, Heredoc};
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
    /// As it was written, on one line.
    pub original: String,
    /// A backslash, or what the directive says.
    pub escape: char,
    /// Here-documents, in their order.
    pub documents: Vec<Heredoc>,
}

/// What an instruction's arguments can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// `["a", "b"]`.
    Exec(Vec<String>),
    /// Anything else.
    Shell(String),
}

/// Keywords, the flags that they take, and how many arguments they need.
const KEYWORDS: [(&str, &[&str], Needs); 18] = [
    (
        "ADD",
        &[
            "chown",
            "chmod",
            "checksum",
            "keep-git-dir",
            "link",
            "exclude",
            "unpack",
        ],
        Needs::Two,
    ),
    ("ARG", &[], Needs::Some),
    ("CMD", &[], Needs::Nothing),
    (
        "COPY",
        &["from", "chown", "chmod", "link", "parents", "exclude"],
        Needs::Two,
    ),
    ("ENTRYPOINT", &[], Needs::Nothing),
    ("ENV", &[], Needs::Some),
    ("EXPOSE", &[], Needs::Some),
    ("FROM", &["platform"], Needs::Nothing),
    (
        "HEALTHCHECK",
        &[
            "interval",
            "timeout",
            "start-period",
            "start-interval",
            "retries",
        ],
        Needs::Some,
    ),
    ("LABEL", &[], Needs::Some),
    ("MAINTAINER", &[], Needs::One),
    ("ONBUILD", &[], Needs::Some),
    ("RUN", &["mount", "network", "security"], Needs::Some),
    ("SHELL", &[], Needs::Some),
    ("STOPSIGNAL", &[], Needs::One),
    ("USER", &[], Needs::One),
    ("VOLUME", &[], Needs::Some),
    ("WORKDIR", &[], Needs::One),
];

#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    Some,
    One,
    Two,
}

/// Flags that may be given more than once, and those that need no value.
const REPEATED: [&str; 2] = ["mount", "exclude"];
const SWITCHES: [&str; 4] = ["link", "parents", "keep-git-dir", "unpack"];

impl Instruction {
    /// The value of a flag.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags
            .iter()
            .rev()
            .find(|(flag, _)| flag == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a flag.
    pub fn all_flags<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags
            .iter()
            .filter(move |(flag, _)| flag == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a flag without a value is set.
    pub fn switch(&self, name: &str) -> bool {
        self.flag(name).is_some_and(|value| value != "false")
    }

    /// The exec form where it is a JSON list of strings, else the text.
    pub fn arguments(&self) -> Arguments {
        match serde_json::from_str::<Vec<String>>(&self.text) {
            Ok(list) => Arguments::Exec(list),
            Err(_) => Arguments::Shell(self.text.clone()),
        }
    }

    /// The exec form's list, or the words; quotes stay on the latter.
    pub fn list(&self) -> Vec<String> {
        match self.arguments() {
            Arguments::Exec(list) => list,
            Arguments::Shell(text) => split(&text, self.escape),
        }
    }

    /// The words; quotes stay.
    pub fn words(&self) -> Vec<String> {
        split(&self.text, self.escape)
    }

    /// `A=b C=d`, or the old form `A b c`; quotes stay.
    pub fn pairs(&self) -> Result<Vec<(String, String)>> {
        let list = self.words();
        if !list.first().is_some_and(|word| word.contains('=')) {
            let (name, value) = self.text.split_once(char::is_whitespace).ok_or_else(|| {
                Error::invalid(format!("{} must have two arguments", self.keyword))
            })?;
            return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
        }
        let pair = |word: &String| match word.split_once('=') {
            Some(("", _)) => Err(self.error(&format!("{} names can not be blank", self.keyword))),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Error::invalid(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))),
        };
        list.iter().map(pair).collect()
    }

    /// An error that names the line.
    pub fn error(&self, message: &str) -> Error {
        at_line(self.line, message)
    }
}

fn at_line(line: usize, message: &str) -> Error {
    Error::invalid(format!("dockerfile parse error line {line}: {message}"))
}

/// Parses a whole file.
pub fn parse(text: &str) -> Result<Vec<Instruction>> {
    let text = text.trim_start_matches('\u{feff}');
    let escape = escape_directive(text)?;
    let mut instructions = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, first)) = lines.next() {
        let first = first.trim();
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let mut joined = String::new();
        let mut line = Some(first);
        while let Some(text) = line {
            let Some(more) = continued(text, escape) else {
                joined.push_str(text);
                break;
            };
            joined.push_str(more);
            // Comments and empty lines in between do not end it.
            line = lines
                .by_ref()
                .map(|(_, line)| line)
                .find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        }
        let mut parsed = instruction(number + 1, joined.trim(), escape)?;
        if matches!(parsed.keyword.as_str(), "RUN" | "COPY" | "ADD") {
            parsed.documents = heredoc::opened(&parsed.text, escape)?;
            for document in &mut parsed.documents {
                document
                    .fill(&mut lines.by_ref().map(|(_, line)| line))
                    .map_err(|error| at_line(number + 1, &error.message))?;
            }
        }
        check(&parsed)?;
        instructions.push(parsed);
    }
    if instructions.is_empty() {
        return Err(Error::invalid("file with no instructions"));
    }
    Ok(instructions)
}

/// The line without the escape that continues it.
fn continued(line: &str, escape: char) -> Option<&str> {
    let rest = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!rest.ends_with(escape)).then_some(rest)
}

/// `# escape=` in the first lines.
fn escape_directive(text: &str) -> Result<char> {
    let mut found = None;
    for line in text.lines() {
        let directive = line
            .trim()
            .strip_prefix('#')
            .and_then(|rest| rest.split_once('='));
        let Some((name, value)) = directive.map(|(name, value)| (name.trim(), value.trim())) else {
            break;
        };
        if !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            break;
        }
        if name.eq_ignore_ascii_case("escape") {
            if found.is_some() {
                return Err(Error::invalid(
                    "only one escape parser directive can be used",
                ));
            }
            found = match value {
                "\\" => Some('\\'),
                "`" => Some('`'),
                other => {
                    return Err(Error::invalid(format!(
                        "invalid escape token '{other}' does not match ` or \\"
                    )));
                }
            };
        }
    }
    Ok(found.unwrap_or('\\'))
}

fn instruction(line: usize, text: &str, escape: char) -> Result<Instruction> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let keyword = word.to_ascii_uppercase();
    if !KEYWORDS.iter().any(|(known, ..)| *known == keyword) {
        return Err(at_line(line, &format!("unknown instruction: {keyword}")));
    }
    let (flags, rest) = flags(rest.trim(), escape);
    Ok(Instruction {
        line,
        keyword,
        flags,
        text: rest.to_owned(),
        original: text.to_owned(),
        escape,
        documents: Vec::new(),
    })
}

/// Takes `--name=value` off the beginning; quotes in it keep blanks together.
fn flags(text: &str, escape: char) -> (Vec<(String, String)>, &str) {
    let (mut found, mut rest) = (Vec::new(), text);
    while rest.starts_with("--") {
        let Some(word) = split(rest, escape).into_iter().next() else {
            break;
        };
        let after = rest[word.len()..].trim_start();
        if word == "--" {
            return (found, after);
        }
        let (name, value) = word[2..].split_once('=').unwrap_or((&word[2..], "\0"));
        found.push((name.to_owned(), value.to_owned()));
        rest = after;
    }
    (found, rest)
}

/// What can be said without knowing any value.
fn check(parsed: &Instruction) -> Result<()> {
    let keyword = parsed.keyword.as_str();
    let Some((_, known, needs)) = KEYWORDS.iter().find(|(name, ..)| *name == keyword) else {
        return Ok(());
    };
    for (at, (name, value)) in parsed.flags.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            return Err(parsed.error(&format!("Unknown flag: {name}")));
        }
        if value == "\0" && !SWITCHES.contains(&name.as_str()) {
            return Err(parsed.error(&format!("Missing a value on flag: {name}")));
        }
        let again = parsed.flags[..at].iter().any(|(other, _)| other == name);
        if again && !REPEATED.contains(&name.as_str()) {
            return Err(parsed.error(&format!("Duplicate flag specified: {name}")));
        }
    }
    let empty = parsed.text.is_empty();
    match needs {
        Needs::Some if empty => {
            return Err(parsed.error(&format!("{keyword} requires at least one argument")));
        }
        Needs::One if empty => {
            return Err(parsed.error(&format!("{keyword} requires exactly one argument")));
        }
        Needs::Two if empty => {
            return Err(parsed.error(&format!("{keyword} requires at least two arguments")));
        }
        Needs::Two if parsed.list().len() < 2 => {
            return Err(parsed.error(&format!(
                "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
            )));
        }
        _ => {}
    }
    match keyword {
        "ENV" | "LABEL" => drop(parsed.pairs()?),
        "FROM" => drop(from(parsed)?),
        "ONBUILD" => trigger(parsed)?,
        "SHELL" if !matches!(parsed.arguments(), Arguments::Exec(_)) => {
            return Err(parsed.error("SHELL requires the arguments to be in JSON form"));
        }
        "HEALTHCHECK" => drop(super::health::check(parsed)?),
        "RUN" | "CMD" | "ENTRYPOINT" | "COPY" | "ADD" | "VOLUME" => {
            let list: Result<Vec<serde_json::Value>, _> = serde_json::from_str(&parsed.text);
            if list.is_ok_and(|list| list.iter().any(|word| !word.is_string())) {
                return Err(parsed.error(
                    "when using JSON array syntax, arrays must be comprised of strings only",
                ));
            }
        }
        _ => {}
    }
    Ok(())
}

/// `FROM image [AS name]`: both.
pub fn from(parsed: &Instruction) -> Result<(String, Option<String>)> {
    let list = parsed.words();
    match list.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [base] => Ok((base.to_owned(), None)),
        [base, word, name] if word.eq_ignore_ascii_case("as") => {
            let name = name.to_lowercase();
            let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
            if !plain {
                return Err(parsed.error(&format!(
                    "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                )));
            }
            Ok((base.to_owned(), Some(name)))
        }
        _ => Err(parsed.error("FROM requires either one or three arguments")),
    }
}

/// What an ONBUILD may hold.
fn trigger(parsed: &Instruction) -> Result<()> {
    let word = parsed.words().first().map(|word| word.to_ascii_uppercase());
    match word.as_deref() {
        Some("ONBUILD") => {
            Err(parsed.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"))
        }
        Some(word @ ("MAINTAINER" | "FROM")) => {
            Err(parsed.error(&format!("{word} isn't allowed as an ONBUILD trigger")))
        }
        _ => Ok(()),
    }
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
        assert_eq!(parsed[0].original, "from --platform=linux/amd64 a AS b");
    }

    #[test]
    fn documents_follow_their_instruction() {
        let parsed = parse(
            "# escape=`\nFROM a\nRUN <<EOF\n# kept\n  x `\nEOF\nCOPY <<a <<-\"b\" /d/\none\na\n\t$two\n\tb\nCMD x",
        )
        .unwrap();
        assert_eq!(parsed[1].documents[0].content, "# kept\n  x `\n");
        let [a, b] = &parsed[2].documents[..] else {
            panic!("two documents")
        };
        assert_eq!((a.content.as_str(), a.expands), ("one\n", true));
        assert_eq!((b.content.as_str(), b.expands), ("$two\n", false));
        assert_eq!(parsed[3].line, 12);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, wanted) in [
            ("", "no instructions"),
            ("FROM a\nRUNN x", "line 2: unknown instruction: RUNN"),
            ("FROM a\nRUN", "line 2: RUN requires at least one argument"),
            ("FROM a\nRUN <<EOF\nx\nE", "line 2: unterminated heredoc"),
            ("# escape=x\nFROM a", "invalid escape token 'x'"),
            ("FROM a b", "FROM requires either one or three arguments"),
            ("FROM a AS 1", "invalid name for build stage"),
            (
                "FROM a\nCOPY x",
                "requires at least two arguments, but only one",
            ),
            ("FROM a\nENV A", "ENV must have two arguments"),
            ("FROM a\nENV A=b C", "can't find = in \"C\""),
            ("FROM a\nRUN --x=y z", "Unknown flag: x"),
            ("FROM a\nCOPY --chown a b", "Missing a value on flag: chown"),
            (
                "FROM a\nONBUILD FROM x",
                "FROM isn't allowed as an ONBUILD trigger",
            ),
            (
                "FROM a\nSHELL sh",
                "SHELL requires the arguments to be in JSON form",
            ),
            ("FROM a\nCMD [1]", "comprised of strings only"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.message.contains(wanted),
                "{text:?}: {}",
                error.message
            );
        }
    }
}
