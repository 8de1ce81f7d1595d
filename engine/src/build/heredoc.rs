//! Here-documents of RUN, COPY and ADD: which words open one, and what it holds.

use super::expand::{Lexer, split};
use crate::container::error::{Error, Result};

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it; a COPY into a folder takes it for the file's name.
    pub name: String,
    /// Variables are replaced: its word was not quoted.
    pub expands: bool,
    /// `<<-`: tabs at the beginning of the lines are left out.
    pub chomps: bool,
    /// Every line with its end.
    pub content: String,
}

/// The documents that an instruction's text opens, still empty, in their order.
pub fn opened(text: &str, escape: char) -> Result<Vec<Heredoc>> {
    if !text.contains("<<") || text.trim_start().starts_with('[') {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for word in split(text, escape) {
        if let Some((chomps, raw)) = operator(&word) {
            let name = Lexer {
                escape,
                lookup: &|_| None,
            };
            let name = name.single(raw)?;
            found.push(Heredoc {
                expands: name == raw,
                name,
                chomps,
                content: String::new(),
            });
        }
    }
    Ok(found)
}

/// `<<EOF`, `<<-EOF`, with a descriptor's number before it.
pub fn operator(word: &str) -> Option<(bool, &str)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    let (chomps, name) = match rest.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, rest),
    };
    (!name.is_empty() && !name.contains('<')).then_some((chomps, name))
}

impl Heredoc {
    /// Takes its lines from `lines`, up to the one that ends it.
    pub fn fill<'a>(&mut self, lines: &mut impl Iterator<Item = &'a str>) -> Result<()> {
        for line in lines {
            let shown = line.trim_end_matches('\r');
            let shown = match self.chomps {
                true => shown.trim_start_matches('\t'),
                false => shown,
            };
            if shown == self.name {
                return Ok(());
            }
            self.content.push_str(shown);
            self.content.push('\n');
        }
        Err(Error::invalid(format!(
            "unterminated heredoc: {} is missing at the end of the Dockerfile",
            self.name
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_open_one() {
        let names = |text: &str| -> Vec<(String, bool, bool)> {
            let all = opened(text, '\\').unwrap();
            all.into_iter()
                .map(|d| (d.name, d.expands, d.chomps))
                .collect()
        };
        assert_eq!(names("<<EOF"), [("EOF".to_owned(), true, false)]);
        assert_eq!(
            names("cat <<-'A B' 3<<\"X\" > /x"),
            [
                ("A B".to_owned(), false, true),
                ("X".to_owned(), false, false)
            ]
        );
        assert!(names("echo $((1<<3)) '<<EOF' [\"<<a\"]").is_empty());
        assert!(names("[\"<<EOF\"]").is_empty());
        let mut document = opened("<<-EOF", '\\').unwrap().remove(0);
        document.fill(&mut "\ta\n\n\tEOF\nrest".lines()).unwrap();
        assert_eq!(document.content, "a\n\n");
        assert!(document.fill(&mut "x".lines()).is_err());
    }
}
