//! `~/.ssh/config`: `Host` with patterns, `HostName`, `Port`, `User`, `IdentityFile`, `IdentitiesOnly`, `ProxyJump`, `Include`.
//!
//! As in OpenSSH the first value wins, except that identity files add up. Other keywords are passed over. `Match` blocks are
//! skipped (apart from `Match all`), and `ProxyCommand` is an error for the hosts that need it: neither is supported.

mod parse;

use std::path::{Path, PathBuf};

use crate::glob;

/// A parsed client configuration. The default is an empty one.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    home: PathBuf,
    local_user: String,
    blocks: Vec<Block>,
}

/// Why a client configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A line that cannot be understood.
    #[error("line {line} of {}: {problem}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// An included file that is there cannot be read.
    #[error("cannot read an included file")]
    Include(#[source] std::io::Error),
    /// Files that include each other, or hosts that jump over each other.
    #[error("{0} goes round in circles")]
    Circle(String),
    /// A jump that is not `[user@]host[:port]`.
    #[error("ProxyJump {0}: not [user@]host[:port]")]
    Jump(String),
    /// Something that this client does not do.
    #[error("{host} is reached by ProxyCommand, which is not supported; use ProxyJump")]
    ProxyCommand {
        /// The host.
        host: String,
    },
}

/// What the configuration says about one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Where to connect: `HostName`, or the name itself.
    pub host_name: String,
    /// `Port`.
    pub port: Option<u16>,
    /// `User`.
    pub user: Option<String>,
    /// `IdentityFile`, in order, with `~` and tokens replaced; OpenSSH's defaults that exist where none is named.
    pub identity_files: Vec<PathBuf>,
    /// `IdentitiesOnly`: of the agent, use only what is named.
    pub identities_only: bool,
    /// `ProxyJump`: the hops in order.
    pub proxy_jump: Vec<Hop>,
}

/// One hop of a `ProxyJump`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Name or address; looked up in the configuration again.
    pub host: String,
    /// Port, if given.
    pub port: Option<u16>,
    /// User, if given.
    pub user: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// Patterns of every `Host` line around it (an `Include` in a `Host` block adds to those inside); all have to match.
    conditions: Vec<Vec<String>>,
    settings: Vec<Setting>,
}

#[derive(Clone, Debug)]
enum Setting {
    HostName(String),
    Port(u16),
    User(String),
    IdentityFile(String),
    IdentitiesOnly(bool),
    ProxyJump(String),
    ProxyCommand(String),
}

impl ClientConfig {
    /// Parses the text of `<home>/.ssh/config`; `home` and `local_user` stand for `~`, `%d` and `%u`. Included files are read.
    pub fn parse(text: &str, home: &Path, local_user: &str) -> Result<Self, ConfigError> {
        let blocks = parse::parse(text, home)?;
        Ok(Self {
            home: home.to_owned(),
            local_user: local_user.to_owned(),
            blocks,
        })
    }

    /// What it says about `host`.
    pub fn resolve(&self, host: &str) -> Result<HostConfig, ConfigError> {
        let mut found = Found::default();
        for block in &self.blocks {
            let applies = |patterns: &Vec<String>| {
                glob::matches_list(patterns.iter().map(String::as_str), host)
            };
            if block.conditions.iter().all(applies) {
                block.settings.iter().for_each(|s| found.take(s));
            }
        }
        self.finish(host, found)
    }

    fn finish(&self, host: &str, found: Found) -> Result<HostConfig, ConfigError> {
        let host_name = match &found.host_name {
            Some(name) => replace_tokens(name, &[('h', host), ('n', host)]),
            None => host.to_owned(),
        };
        let jump = found.proxy_jump.as_deref().unwrap_or("none");
        let proxy_jump = if jump.eq_ignore_ascii_case("none") {
            Vec::new()
        } else {
            jump.split(',')
                .map(|hop| parse_hop(hop.trim()))
                .collect::<Result<_, _>>()?
        };
        let command = found.proxy_command.as_deref().unwrap_or("none");
        if proxy_jump.is_empty() && !command.eq_ignore_ascii_case("none") {
            return Err(ConfigError::ProxyCommand {
                host: host.to_owned(),
            });
        }
        let mut resolved = HostConfig {
            host_name,
            port: found.port,
            user: found.user,
            identities_only: found.identities_only.unwrap_or(false),
            identity_files: Vec::new(),
            proxy_jump,
        };
        resolved.identity_files = self.identity_files(host, &found.identity_files, &resolved);
        Ok(resolved)
    }

    fn identity_files(&self, host: &str, named: &[String], resolved: &HostConfig) -> Vec<PathBuf> {
        if named.is_empty() {
            let defaults = ["id_ed25519", "id_ecdsa", "id_rsa"];
            let here = !self.home.as_os_str().is_empty();
            return defaults
                .iter()
                .map(|name| self.home.join(".ssh").join(name))
                .filter(|path| here && path.is_file())
                .collect();
        }
        let home = self.home.to_string_lossy();
        let port = resolved.port.unwrap_or(22).to_string();
        let tokens = [
            ('d', home.as_ref()),
            ('h', resolved.host_name.as_str()),
            ('n', host),
            ('p', port.as_str()),
            ('r', resolved.user.as_deref().unwrap_or("root")),
            ('u', self.local_user.as_str()),
        ];
        named
            .iter()
            .filter(|name| !name.eq_ignore_ascii_case("none"))
            .map(|name| self.expand_home(&replace_tokens(name, &tokens)))
            .collect()
    }

    fn expand_home(&self, path: &str) -> PathBuf {
        match path.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None if Path::new(path).is_absolute() => path.into(),
            None => self.home.join(".ssh").join(path),
        }
    }
}

#[derive(Default)]
struct Found {
    host_name: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    identity_files: Vec<String>,
    identities_only: Option<bool>,
    proxy_jump: Option<String>,
    proxy_command: Option<String>,
}

impl Found {
    fn take(&mut self, setting: &Setting) {
        match setting {
            Setting::HostName(v) => first(&mut self.host_name, v),
            Setting::Port(v) => first(&mut self.port, v),
            Setting::User(v) => first(&mut self.user, v),
            Setting::IdentitiesOnly(v) => first(&mut self.identities_only, v),
            // Of these two the one that comes first counts, as in OpenSSH.
            Setting::ProxyJump(v) if self.proxy_command.is_none() => first(&mut self.proxy_jump, v),
            Setting::ProxyCommand(v) if self.proxy_jump.is_none() => {
                first(&mut self.proxy_command, v);
            }
            Setting::ProxyJump(_) | Setting::ProxyCommand(_) => {}
            Setting::IdentityFile(v) if self.identity_files.contains(v) => {}
            Setting::IdentityFile(v) => self.identity_files.push(v.clone()),
        }
    }
}

fn first<T: Clone>(slot: &mut Option<T>, value: &T) {
    if slot.is_none() {
        *slot = Some(value.clone());
    }
}

fn replace_tokens(text: &str, tokens: &[(char, &str)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('%') | None => out.push('%'),
            Some(name) => match tokens.iter().find(|(token, _)| *token == name) {
                Some((_, value)) => out.push_str(value),
                None => out.extend(['%', name]),
            },
        }
    }
    out
}

fn parse_hop(text: &str) -> Result<Hop, ConfigError> {
    let bad = || ConfigError::Jump(text.to_owned());
    let text_ = text.strip_prefix("ssh://").unwrap_or(text);
    let (user, rest) = match text_.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, text_),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']').ok_or_else(bad)?;
            (host, after.strip_prefix(':'))
        }
        None => match rest.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (rest, None),
        },
    };
    if host.is_empty() || user.as_deref() == Some("") {
        return Err(bad());
    }
    let port = port.map(str::parse).transpose().map_err(|_| bad())?;
    Ok(Hop {
        host: host.to_owned(),
        port,
        user,
    })
}

#[cfg(test)]
mod tests;
