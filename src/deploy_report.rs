//! The steps of a deploy as lines of progress.

use windlass_deploy::{Action, Event, Reporter};

use crate::progress::Progress;

/// Whose line it is, and what stands in it.
fn line(action: &Action) -> (String, String) {
    let text = action.to_string();
    match action.machine() {
        // The machine stands in front of the line already.
        Some(machine) => (
            machine.to_string(),
            text.replace(&format!(" on {machine}"), ""),
        ),
        None => ("project".to_owned(), text),
    }
}

/// The lifecycle tells of these itself, step by step.
fn told_elsewhere(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateMachine { .. } | Action::RemoveMachine { .. }
    )
}

impl Reporter for Progress {
    fn report(&self, event: &Event<'_>) {
        match event {
            Event::Planned(plan) => tracing::info!(steps = plan.steps.len(), "planned"),
            Event::Noted(note) => self.line(&format!("note: {note}")),
            Event::Started { action, .. }
            | Event::Done { action, .. }
            | Event::Failed { action, .. }
                if told_elsewhere(action) => {}
            Event::Started { action, .. } => {
                let (whose, step) = line(action);
                self.begin(&whose, &step);
            }
            Event::Done { action, .. } => {
                let (whose, step) = line(action);
                self.end(&whose, &step, "done");
            }
            Event::Failed { action, .. } => {
                let (whose, step) = line(action);
                self.end(&whose, &step, "failed");
            }
        }
    }
}
