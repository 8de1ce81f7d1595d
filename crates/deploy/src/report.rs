//! Progress, as values. How it looks is the command line's.

use std::time::Duration;

use crate::plan::{Action, Note, Plan};

/// One thing worth telling the user.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// What is about to be done; told once a round, never empty.
    Planned(&'a Plan),
    /// Something that could not be taken into account.
    Noted(&'a Note),
    /// A step begins.
    Started {
        /// Its place in the plan.
        step: usize,
        /// What it does.
        action: &'a Action,
    },
    /// A step is done.
    Done {
        /// Its place in the plan.
        step: usize,
        /// What it did.
        action: &'a Action,
        /// How long it took.
        took: Duration,
    },
    /// A step failed.
    Failed {
        /// Its place in the plan.
        step: usize,
        /// What it tried.
        action: &'a Action,
        /// How long it took.
        took: Duration,
        /// Why, in one line.
        reason: String,
    },
}

/// Who is told.
pub trait Reporter: Send + Sync {
    /// Takes one event; returns at once.
    fn report(&self, event: &Event<'_>);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _: &Event<'_>) {}
}
