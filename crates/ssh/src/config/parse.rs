//! The lines of a client configuration: keywords, quoting, blocks, included files.

use std::path::{Path, PathBuf};

use super::{Block, ConfigError, Setting};
use crate::glob;

/// OpenSSH's own limit.
const DEEPEST_INCLUDE: usize = 16;

/// Parses the text of the user's file.
pub(super) fn parse(text: &str, home: &Path) -> Result<Vec<Block>, ConfigError> {
    let mut parser = Parser {
        home,
        blocks: Vec::new(),
    };
    parser.file(&home.join(".ssh/config"), text, &[], 0)?;
    Ok(parser.blocks)
}

struct Parser<'a> {
    home: &'a Path,
    blocks: Vec<Block>,
}

struct Place<'a> {
    file: &'a Path,
    line: usize,
}

impl Place<'_> {
    fn error(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::Line {
            file: self.file.to_owned(),
            line: self.line,
            problem: problem.into(),
        }
    }
}

impl Parser<'_> {
    fn file(
        &mut self,
        file: &Path,
        text: &str,
        outer: &[Vec<String>],
        depth: usize,
    ) -> Result<(), ConfigError> {
        let mut conditions = outer.to_vec();
        for (number, raw) in text.lines().enumerate() {
            let place = Place {
                file,
                line: number + 1,
            };
            let words = words(raw).map_err(|problem| place.error(problem))?;
            let Some((keyword, values)) = words.split_first() else {
                continue;
            };
            let keyword = keyword.to_ascii_lowercase();
            match keyword.as_str() {
                "host" => {
                    conditions = outer.to_vec();
                    conditions.push(values.to_vec());
                }
                "match" => {
                    conditions = outer.to_vec();
                    conditions.push(match_condition(&place, values));
                }
                "include" => self.include(values, &conditions, depth)?,
                _ => {
                    if let Some(setting) = setting(&place, &keyword, raw, values)? {
                        self.push(&conditions, setting);
                    }
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, conditions: &[Vec<String>], setting: Setting) {
        match self.blocks.last_mut() {
            Some(block) if block.conditions == conditions => block.settings.push(setting),
            _ => self.blocks.push(Block {
                conditions: conditions.to_vec(),
                settings: vec![setting],
            }),
        }
    }

    fn include(
        &mut self,
        patterns: &[String],
        conditions: &[Vec<String>],
        depth: usize,
    ) -> Result<(), ConfigError> {
        for pattern in patterns {
            if depth >= DEEPEST_INCLUDE {
                return Err(ConfigError::Circle(format!("Include {pattern}")));
            }
            let pattern = match pattern.strip_prefix("~/") {
                Some(rest) => self.home.join(rest),
                None => self.home.join(".ssh").join(pattern),
            };
            for path in expand(&pattern) {
                let text = fs_err::read_to_string(&path).map_err(ConfigError::Include)?;
                self.file(&path, &text, conditions, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// `Match all` is what it says; any other condition is not evaluated, so its block never applies.
fn match_condition(place: &Place<'_>, values: &[String]) -> Vec<String> {
    match values {
        [all] if all.eq_ignore_ascii_case("all") => vec!["*".to_owned()],
        _ => {
            tracing::debug!(
                file = %place.file.display(), line = place.line,
                "a Match block of the SSH client configuration is skipped: its conditions are not supported"
            );
            Vec::new()
        }
    }
}

fn setting(
    place: &Place<'_>,
    keyword: &str,
    raw: &str,
    values: &[String],
) -> Result<Option<Setting>, ConfigError> {
    let known = [
        "hostname",
        "port",
        "user",
        "identityfile",
        "identitiesonly",
        "proxyjump",
        "proxycommand",
    ];
    if !known.contains(&keyword) {
        return Ok(None);
    }
    let value = values
        .first()
        .ok_or_else(|| place.error(format!("{keyword} has no value")))?;
    Ok(Some(match keyword {
        "hostname" => Setting::HostName(value.clone()),
        "port" => Setting::Port(match value.parse() {
            Ok(port) if port != 0 => port,
            _ => return Err(place.error(format!("{value} is not a port"))),
        }),
        "user" => Setting::User(value.clone()),
        "identityfile" => Setting::IdentityFile(value.clone()),
        "identitiesonly" => Setting::IdentitiesOnly(value.eq_ignore_ascii_case("yes")),
        "proxyjump" => Setting::ProxyJump(value.clone()),
        _ => Setting::ProxyCommand(raw.trim().to_owned()).normalised(value),
    }))
}

impl Setting {
    /// A whole command, or the word `none`.
    fn normalised(self, value: &str) -> Self {
        if value.eq_ignore_ascii_case("none") {
            Self::ProxyCommand("none".to_owned())
        } else {
            self
        }
    }
}

/// Keyword and values; `=` or white space between, double quotes around, `#` starts a comment.
fn words(line: &str) -> Result<Vec<String>, String> {
    let line = line.trim();
    let mut words = Vec::new();
    let (keyword, rest) = match line.find(|c: char| c.is_whitespace() || c == '=') {
        Some(end) => (&line[..end], &line[end..]),
        None => (line, ""),
    };
    if keyword.is_empty() || keyword.starts_with('#') {
        return Ok(words);
    }
    words.push(keyword.to_owned());
    let rest = rest.trim_start();
    let mut rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (word, after) = quoted
                .split_once('"')
                .ok_or_else(|| "a quotation mark is not closed".to_owned())?;
            words.push(word.to_owned());
            rest = after.trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
    }
    Ok(words)
}

/// The files that a pattern names, sorted; a file that is not there is passed over, as in OpenSSH.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str().to_string_lossy();
        found = if name.contains(['*', '?']) {
            found
                .iter()
                .flat_map(|folder| children(folder, &name))
                .collect()
        } else {
            found.into_iter().map(|folder| folder.join(part)).collect()
        };
    }
    found.retain(|path| path.is_file());
    found
}

fn children(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            !name.starts_with('.') && glob::matches(pattern, &name)
        })
        .map(|entry| entry.path())
        .collect();
    names.sort();
    names
}
