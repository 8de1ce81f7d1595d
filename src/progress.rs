//! Progress on standard error: on a terminal one live line for each machine and step, elsewhere one plain line when it is over.
//!
//! It also remembers what is unfinished, for the line after Ctrl-C. Deliberately absent: results, which go to standard output.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use windlass_machine::{Event, Phase};

/// Tells the user what happens.
pub struct Progress {
    live: Option<MultiProgress>,
    open: Mutex<BTreeMap<Task, Open>>,
}

/// Whose step, and which.
type Task = (String, String);

struct Open {
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Live lines when standard error is a terminal.
    pub fn new() -> Self {
        let live = std::io::stderr().is_terminal() && std::env::var_os("NO_PROGRESS").is_none();
        Self {
            live: live.then(MultiProgress::new),
            open: Mutex::new(BTreeMap::new()),
        }
    }

    /// A step begins.
    pub fn begin(&self, whose: &str, step: &str) {
        let bar = self.live.as_ref().map(|live| {
            let bar = live.add(ProgressBar::new_spinner());
            bar.set_style(style());
            bar.set_message(format!("{whose}: {step} …"));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let began = Instant::now();
        self.open().insert(task(whose, step), Open { began, bar });
    }

    /// A short note on a step that goes on.
    pub fn note(&self, whose: &str, step: &str, note: &str) {
        if let Some(Open { bar: Some(bar), .. }) = self.open().get(&task(whose, step)) {
            bar.set_message(format!("{whose}: {step} … {note}"));
        }
        tracing::debug!("{whose}: {step}: {note}");
    }

    /// A step is over, in a word or two.
    pub fn end(&self, whose: &str, step: &str, how: &str) {
        let Some(open) = self.open().remove(&task(whose, step)) else {
            return self.line(&format!("{whose}: {step} … {how}"));
        };
        if let Some(bar) = open.bar {
            bar.finish_and_clear();
        }
        let seconds = open.began.elapsed().as_secs_f64();
        self.line(&format!("{whose}: {step} … {how} ({seconds:.1} s)"));
    }

    /// A line that stays, above the live ones.
    pub fn line(&self, text: &str) {
        match &self.live {
            Some(live) => {
                // Nothing can be done about a terminal that is gone.
                let _ = live.println(text);
            }
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }

    /// Prints to standard output without tearing the live lines. `false` when nobody reads it any more.
    pub fn print(&self, text: &str) -> bool {
        let write = || {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        }
        .is_ok()
    }

    /// Clears the live lines, and says which steps were under way.
    pub fn abandon(&self) -> Vec<String> {
        let open = std::mem::take(&mut *self.open());
        if let Some(live) = &self.live {
            let _ = live.clear();
        }
        open.into_iter()
            .map(|((whose, step), open)| {
                if let Some(bar) = open.bar {
                    bar.finish_and_clear();
                }
                format!("{whose}: {step}")
            })
            .collect()
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<Task, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn task(whose: &str, step: &str) -> Task {
    (whose.to_owned(), step.to_owned())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl windlass_machine::Reporter for Progress {
    fn report(&self, event: &Event) {
        let (whose, step) = (event.machine.as_str(), event.step.to_string());
        match &event.phase {
            Phase::Started => self.begin(whose, &step),
            Phase::Progress(note) => self.note(whose, &step, note),
            Phase::Done => self.end(whose, &step, "done"),
            Phase::Failed(_) => self.end(whose, &step, "failed"),
        }
    }
}

/// Where the trace goes: standard error, without tearing the live lines.
#[derive(Clone)]
pub struct TraceWriter(pub std::sync::Arc<Progress>);

impl std::io::Write for TraceWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let write = || std::io::stderr().write_all(bytes);
        match &self.0.live {
            Some(live) => live.suspend(write)?,
            None => write()?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_begun_and_not_ended_is_unfinished() {
        let progress = Progress {
            live: None,
            open: Mutex::default(),
        };
        progress.begin("web1", "install");
        progress.begin("web2", "boot");
        progress.end("web1", "install", "done");
        assert_eq!(progress.abandon(), ["web2: boot"]);
        assert!(progress.abandon().is_empty());
    }
}
