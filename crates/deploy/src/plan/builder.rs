//! Steps as they are put together: each names the ones it needs, all of them earlier.

use super::action::Action;
use super::{Note, Plan, Step};

/// A plan in the making.
#[derive(Default)]
pub(super) struct Builder {
    steps: Vec<Step>,
    /// What is left as it is.
    pub(super) notes: Vec<Note>,
}

impl Builder {
    /// Adds a step; its place is returned.
    pub(super) fn push(&mut self, action: Action, after: &[usize]) -> usize {
        let mut after = after.to_vec();
        after.sort_unstable();
        after.dedup();
        self.steps.push(Step { action, after });
        self.steps.len() - 1
    }

    /// Adds steps that follow each other; the place of the last is returned, or `after` when there is none.
    pub(super) fn chain(&mut self, actions: Vec<Action>, after: &[usize]) -> Vec<usize> {
        let mut tail = after.to_vec();
        for action in actions {
            tail = vec![self.push(action, &tail)];
        }
        tail
    }

    pub(super) fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn finish(self) -> Plan {
        Plan {
            steps: self.steps,
            notes: self.notes,
        }
    }
}
