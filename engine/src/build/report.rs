//! What the client reads: the lines of stages that are built side by side, in the order in which one after the other would have said them.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::Mutex;
use windlass_engine_api::types::Progress;

use crate::container::parts::ProgressSink;

/// Lines on their way to the client.
pub struct Report {
    sink: ProgressSink,
    quiet: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The stage that speaks now.
    speaker: Option<usize>,
    /// Stages that have begun and not ended.
    open: BTreeSet<usize>,
    /// What the others said meanwhile.
    waiting: BTreeMap<usize, Vec<Progress>>,
    /// What a quiet build said.
    withheld: Vec<Progress>,
}

impl Report {
    /// To `sink`; a quiet build's lines are kept back until it fails.
    pub fn new(sink: ProgressSink, quiet: bool) -> Self {
        Self {
            sink,
            quiet,
            state: Mutex::default(),
        }
    }

    /// A stage begins.
    pub async fn begin(&self, stage: usize) {
        let mut state = self.state.lock().await;
        state.open.insert(stage);
        state.speaker.get_or_insert(stage);
    }

    /// A stage has said all.
    pub async fn end(&self, stage: usize) {
        let mut state = self.state.lock().await;
        state.open.remove(&stage);
        if state.speaker != Some(stage) {
            return;
        }
        // Those before the next one that goes on are complete.
        loop {
            let next = state.waiting.keys().chain(&state.open).min().copied();
            state.speaker = next;
            let Some(next) = next else { return };
            for line in state.waiting.remove(&next).unwrap_or_default() {
                self.out(&mut state, line).await;
            }
            if state.open.contains(&next) {
                return;
            }
        }
    }

    /// A failed stage's lines come before its error, and others' no more.
    pub async fn fail(&self, stage: usize) {
        let mut state = self.state.lock().await;
        for line in state.waiting.remove(&stage).unwrap_or_default() {
            self.out(&mut state, line).await;
        }
        self.release(&mut state).await;
    }

    /// Everything that a quiet build kept back.
    pub async fn release_all(&self) {
        let mut state = self.state.lock().await;
        self.release(&mut state).await;
    }

    async fn release(&self, state: &mut State) {
        for line in std::mem::take(&mut state.withheld) {
            self.sink.send(line).await.ok();
        }
    }

    /// A line of a stage.
    pub async fn line(&self, stage: usize, line: Progress) {
        let mut state = self.state.lock().await;
        match state.speaker {
            Some(speaker) if speaker != stage => {
                state.waiting.entry(stage).or_default().push(line);
            }
            _ => self.out(&mut state, line).await,
        }
    }

    /// A line of the whole build.
    pub async fn say(&self, text: &str) {
        let mut state = self.state.lock().await;
        self.out(&mut state, stream(text)).await;
    }

    /// What a quiet build says, too.
    pub async fn tell(&self, line: Progress) {
        self.sink.send(line).await.ok();
    }

    async fn out(&self, state: &mut State, line: Progress) {
        if self.quiet {
            state.withheld.push(line);
        } else {
            self.sink.send(line).await.ok();
        }
    }
}

/// Text as it is.
pub fn stream(text: &str) -> Progress {
    Progress {
        stream: text.to_owned(),
        ..Progress::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_speak_in_order() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
        let report = Report::new(sender, false);
        report.begin(0).await;
        report.begin(1).await;
        report.begin(2).await;
        for (stage, text) in [(2, "c1"), (0, "a1"), (1, "b1"), (0, "a2")] {
            report.line(stage, stream(text)).await;
        }
        report.end(1).await;
        report.end(0).await;
        report.line(2, stream("c2")).await;
        report.end(2).await;
        drop(report);
        let mut said = Vec::new();
        while let Some(line) = receiver.recv().await {
            said.push(line.stream);
        }
        assert_eq!(said, ["a1", "a2", "b1", "c1", "c2"]);
    }

    #[tokio::test]
    async fn a_quiet_build_speaks_when_it_fails() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
        let report = Report::new(sender, true);
        report.begin(0).await;
        report.line(0, stream("x")).await;
        assert!(receiver.try_recv().is_err());
        report.fail(0).await;
        assert_eq!(receiver.try_recv().unwrap().stream, "x");
    }
}
