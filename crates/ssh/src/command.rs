//! Commands as argument lists, the one function that quotes them, and what they leave behind.

use std::time::Duration;

use crate::error::{Error, Result};

/// Quotes an argument list for a POSIX shell, so that it sees exactly these arguments.
pub fn quote<S: AsRef<str>>(arguments: &[S]) -> String {
    let quoted: Vec<String> = arguments.iter().map(|a| quote_one(a.as_ref())).collect();
    quoted.join(" ")
}

fn quote_one(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+:,./-_".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// Who runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    Login,
    Root,
}

/// A command on a host: an argument list, and whether root has to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    arguments: Vec<String>,
    privilege: Privilege,
    label: Option<String>,
    pub(crate) time_limit: Option<Duration>,
}

impl Command {
    /// A program and its arguments.
    pub fn new<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            privilege: Privilege::Login,
            label: None,
            time_limit: None,
        }
    }

    /// A script for `sh -c`, its arguments as `$1`, `$2`, …; data belongs there, never in the script.
    pub fn script<S: Into<String>>(
        name: &str,
        script: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        let head = ["sh", "-c", script, name].map(str::to_owned);
        Self::new(
            head.into_iter()
                .chain(arguments.into_iter().map(Into::into)),
        )
        .called(name)
    }

    /// Lets root run it: `sudo -n --` is put before it when the login user is not root.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.privilege = Privilege::Root;
        self
    }

    /// Gives up, and closes the channel, after this long.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// What errors call it, instead of its arguments.
    #[must_use]
    pub fn called(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    /// The line for the login shell of `user`.
    pub(crate) fn line(&self, user: &str) -> Result<String> {
        let problem = if self.arguments.is_empty() {
            Some("it is empty")
        } else if self.arguments.iter().any(|a| a.contains('\0')) {
            Some("an argument contains a zero byte")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(Error::BadCommand {
                what: self.describe(),
                problem,
            });
        }
        let line = quote(&self.arguments);
        Ok(match self.privilege {
            Privilege::Root if user != "root" => format!("sudo -n -- {line}"),
            _ => line,
        })
    }

    /// Short, for messages.
    pub(crate) fn describe(&self) -> String {
        self.label.clone().unwrap_or_else(|| {
            let line = quote(&self.arguments);
            match line.char_indices().nth(80) {
                Some((end, _)) => format!("{}…", &line[..end]),
                None => line,
            }
        })
    }
}

/// What a finished command left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + n for a signal.
    pub status: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether the status is 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Stdout as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text, without white space around it.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through_sh(arguments: &[String]) -> Vec<Vec<u8>> {
        let script = format!(
            r#"show() {{ for a in "$@"; do printf '%s\0' "$a"; done; }}; show {}"#,
            quote(arguments)
        );
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(script)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut parts: Vec<Vec<u8>> = output
            .stdout
            .split(|b| *b == 0)
            .map(<[u8]>::to_vec)
            .collect();
        parts.pop();
        parts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_shell_gives_back_what_was_quoted(arguments in proptest::collection::vec("[^\0]*", 1..6)) {
            let want: Vec<Vec<u8>> = arguments.iter().map(|a| a.clone().into_bytes()).collect();
            prop_assert_eq!(through_sh(&arguments), want);
        }

        #[test]
        fn nor_do_shell_characters_get_out(arguments in proptest::collection::vec("[ '\"$`\\\\;&|<>(){}*?!#~\n\t=-]*", 1..6)) {
            let want: Vec<Vec<u8>> = arguments.iter().map(|a| a.clone().into_bytes()).collect();
            prop_assert_eq!(through_sh(&arguments), want);
        }
    }

    #[test]
    fn sudo_is_put_before_for_others_than_root() {
        let command = Command::new(["id", "-u"]).as_root();
        assert_eq!(command.line("root").unwrap(), "id -u");
        assert_eq!(command.line("debian").unwrap(), "sudo -n -- id -u");
        assert_eq!(Command::new(["id"]).line("debian").unwrap(), "id");
    }

    #[test]
    fn an_impossible_command_is_refused() {
        assert!(Command::new(["a\0b"]).line("root").is_err());
        assert!(Command::new(Vec::<String>::new()).line("root").is_err());
    }
}
