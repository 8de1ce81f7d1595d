//! What a command answers when it fails: a heading, its causes, hints, and an exit code.
//!
//! Deliberately absent: the messages themselves, which the libraries make, one a failed operation.

use std::error::Error;
use std::fmt;

use windlass_deploy::DeployError;
use windlass_machine::{AccessError, LifecycleError, NameError, Step, StoreError};
use windlass_provider::{ErrorKind, ProviderError};

/// Any error of a library.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The result of what a command does.
pub type Result<T, E = CommandError> = std::result::Result<T, E>;

/// What an exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A host, a provider or an engine failed or refused.
    Failed,
    /// The command line, an option or the declared file is wrong; nothing was changed.
    Input,
    /// There is no machine, project or service of that name.
    NotFound,
    /// Another windlass is working on the same thing.
    Busy,
}

/// Every exit code, for help, README and tests.
pub const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "done"),
    (
        "1",
        "a host, a provider or an engine failed; the same command again goes on",
    ),
    (
        "2",
        "the command line, an option or the file is wrong; nothing was changed",
    ),
    (
        "3",
        "there is no machine, project, service or file of that name",
    ),
    (
        "4",
        "another windlass is working on the same machine, project or fleet",
    ),
    (
        "130",
        "interrupted by Ctrl-C; what was begun is recorded (143: by SIGTERM)",
    ),
    (
        "other",
        "that of the remote command of `windlass ssh`; 255: host not reached",
    ),
];

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Input => 2,
            Self::NotFound => 3,
            Self::Busy => 4,
        }
    }
}

/// A failed command.
#[derive(Debug)]
pub struct CommandError {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    others: Vec<CommandError>,
}

impl CommandError {
    /// An error with a one-sentence heading.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Something the user gave is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Something outside failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// From a library's error: its message, causes, hints and kind.
    pub fn from_box(error: BoxError) -> Self {
        Self::from_chain(error.as_ref())
    }

    /// From an error that somebody else keeps.
    pub fn from_ref(error: &(dyn Error + 'static)) -> Self {
        Self::from_chain(error)
    }

    /// The same error with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
        self
    }

    /// The same error with what lies below it.
    #[must_use]
    pub fn because(mut self, cause: &(dyn Error + 'static)) -> Self {
        let below = Self::from_chain(cause);
        self.causes.push(below.message);
        self.causes.extend(below.causes);
        for hint in below.hints {
            self = self.hint(hint);
        }
        self
    }

    /// Several failures as one; `None` when there are none.
    pub fn several(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        for other in errors {
            if other.kind != first.kind {
                first.kind = Kind::Failed;
            }
            first.others.push(other);
        }
        Some(first)
    }

    /// The same error, with where it is put first.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Heading and causes in one line.
    pub fn summary(&self) -> String {
        let causes = self.causes.iter().map(String::as_str);
        let parts: Vec<_> = std::iter::once(self.message.as_str())
            .chain(causes)
            .collect();
        parts.join(": ")
    }

    /// As an error that a library can pass through; [`CommandError::from_box`] finds hints and kind again.
    pub fn into_box(self) -> BoxError {
        Box::new(Carried(self))
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.kind.code()
    }

    fn from_chain(error: &(dyn Error + 'static)) -> Self {
        let mut made = Self::new(Kind::Failed, error.to_string());
        let mut last = made.message.clone();
        let mut next = Some(error);
        while let Some(link) = next {
            let text = link.to_string();
            // A transparent error says the same as its source.
            if text != last {
                made.causes.push(text.clone());
                last = text;
            }
            if let Some(kind) = kind_of(link)
                && made.kind == Kind::Failed
            {
                made.kind = kind;
            }
            for hint in hints_of(link) {
                made = made.hint(hint);
            }
            next = link.source();
        }
        made
    }
}

/// A [`CommandError`] on its way through a library.
#[derive(Debug)]
struct Carried(CommandError);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.summary())
    }
}

impl Error for Carried {}

fn kind_of(error: &(dyn Error + 'static)) -> Option<Kind> {
    match error.downcast_ref::<DeployError>() {
        Some(DeployError::Plan(_)) => return Some(Kind::Input),
        Some(DeployError::NoService { .. }) => return Some(Kind::NotFound),
        Some(DeployError::Store(error)) => return kind_of(error),
        _ => {}
    }
    if let Some(Carried(error)) = error.downcast_ref::<Carried>() {
        return Some(error.kind);
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return match error {
            StoreError::NotFound(_) => Some(Kind::NotFound),
            StoreError::Locked { .. } => Some(Kind::Busy),
            StoreError::Exists(_) | StoreError::Shared(_) => Some(Kind::Input),
            _ => None,
        };
    }
    if let Some(LifecycleError::Store(error)) = error.downcast_ref::<LifecycleError>() {
        return kind_of(error);
    }
    if matches!(
        error.downcast_ref::<LifecycleError>(),
        Some(
            LifecycleError::OtherDriver { .. }
                | LifecycleError::Access {
                    step: Step::Prepare,
                    ..
                }
        )
    ) || error.is::<NameError>()
    {
        return Some(Kind::Input);
    }
    if let Some(windlass_autoscale::LeaderError::Taken { .. }) = error.downcast_ref() {
        return Some(Kind::Busy);
    }
    match error.downcast_ref::<ProviderError>() {
        Some(error) if error.kind == ErrorKind::Invalid => Some(Kind::Input),
        _ => None,
    }
}

fn hints_of(error: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(error) = error.downcast_ref::<LifecycleError>() {
        return error.hint().into_iter().collect();
    }
    if let Some(error) = error.downcast_ref::<ProviderError>() {
        return error.hint.clone().into_iter().collect();
    }
    if let Some(error) = error.downcast_ref::<AccessError>() {
        return error.hint.clone().into_iter().collect();
    }
    if let Some(Carried(error)) = error.downcast_ref::<Carried>() {
        return error.hints.clone();
    }
    if let Some(error) = error.downcast_ref::<windlass_ssh::Error>() {
        return error.hint().into_iter().collect();
    }
    if let Some(StoreError::NotFound(_)) = error.downcast_ref::<StoreError>() {
        return vec!["`windlass ls` lists the machines".to_owned()];
    }
    if let Some(StoreError::Shared(_)) = error.downcast_ref::<StoreError>() {
        return vec!["set WINDLASS_HOME to a folder of its own".to_owned()];
    }
    Vec::new()
}

impl<E: Error + Send + Sync + 'static> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::from_chain(&error)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  because: {cause}")?;
        }
        if !self.hints.is_empty() {
            writeln!(f)?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        for other in &self.others {
            write!(f, "\n{other}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_machine::MachineName;

    #[test]
    fn the_chain_gives_causes_hints_and_the_code() {
        let name = MachineName::new("web1").unwrap_or_else(|error| unreachable!("{error}"));
        let error = CommandError::from(LifecycleError::from(StoreError::NotFound(name)));
        assert_eq!(error.code(), 3);
        assert_eq!(
            error.to_string(),
            "error: there is no machine `web1`\n\nhint: `windlass ls` lists the machines"
        );
        let provider =
            ProviderError::new(ErrorKind::Invalid, "it is not a port").with_hint("give one");
        let error = CommandError::input("bad").because(&provider);
        assert_eq!(
            error.to_string(),
            "error: bad\n  because: it is not a port\n\nhint: give one"
        );
    }

    #[test]
    fn several_failures_of_different_kinds_are_failures() {
        assert!(CommandError::several([]).is_none());
        let all = CommandError::several([CommandError::input("a"), CommandError::failed("b")]);
        let Some(all) = all else {
            unreachable!("two errors are an error")
        };
        assert_eq!(
            (all.code(), all.to_string()),
            (1, "error: a\nerror: b".to_owned())
        );
    }
}
