//! Progress, as values: what a lifecycle tells while it works.

use std::fmt;

use crate::MachineName;

/// One thing worth telling the user.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which machine.
    pub machine: MachineName,
    /// Which step.
    pub step: Step,
    /// What of it.
    pub phase: Phase,
}

/// What has happened to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It begins.
    Started,
    /// It goes on; a short note.
    Progress(String),
    /// It is done.
    Done,
    /// It failed, for this reason.
    Failed(String),
}

/// The steps of a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Keys are made.
    Prepare,
    /// The provider makes the host.
    Create,
    /// The host gets its address.
    Boot,
    /// SSH answers.
    Connect,
    /// The engine is put onto it.
    Install,
    /// The host is started.
    Start,
    /// The host is shut down.
    Stop,
    /// The power is cut.
    Kill,
    /// The provider destroys the host.
    Delete,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare keys",
            Self::Create => "create",
            Self::Boot => "boot",
            Self::Connect => "connect",
            Self::Install => "install",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Delete => "delete",
        })
    }
}

/// Who is told.
pub trait Reporter: Send + Sync {
    /// Takes one event; returns at once.
    fn report(&self, event: &Event);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _: &Event) {}
}
