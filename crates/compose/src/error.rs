//! What is wrong with a declared file: each finding with its place and what to do.
//!
//! Deliberately absent: printing and exit codes.

use std::fmt;

use crate::node::Mark;

/// How many findings are kept; what a first mistake causes further down helps nobody.
const KEPT: usize = 10;

/// One finding, `file:line:column: message` with the hint on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// As the source was named.
    pub file: String,
    /// From 1; 0 when the finding is about the file as a whole.
    pub line: usize,
    /// From 1; 0 when the finding is about the file as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do, where that is known.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message)?,
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the files; at least one finding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.render())]
pub struct ComposeErrors {
    /// The first ten.
    pub findings: Vec<Diagnostic>,
    /// How many more there are.
    pub more: usize,
}

impl ComposeErrors {
    fn render(&self) -> String {
        let mut lines: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines.join("\n")
    }
}

/// What reading has found so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    files: Vec<String>,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

#[derive(Debug)]
struct Finding {
    mark: Mark,
    message: String,
    hint: Option<String>,
}

impl Log {
    /// The index by which marks name the file.
    pub fn add_file(&mut self, path: impl Into<String>) -> usize {
        self.files.push(path.into());
        self.files.len() - 1
    }

    pub fn error(&mut self, mark: Mark, message: impl Into<String>) {
        self.record(mark, message.into(), None);
    }

    pub fn error_with_hint(
        &mut self,
        mark: Mark,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.record(mark, message.into(), Some(hint.into()));
    }

    fn record(&mut self, mark: Mark, message: String, hint: Option<String>) {
        let known = |finding: &Finding| finding.mark == mark && finding.message == message;
        if !self.errors.iter().any(known) {
            self.errors.push(Finding {
                mark,
                message,
                hint,
            });
        }
    }

    /// The same warning is given once, at its first place.
    pub fn warn(&mut self, mark: Mark, message: impl Into<String>) {
        let message = message.into();
        if !self.warnings.iter().any(|w| w.message == message) {
            let hint = None;
            self.warnings.push(Finding {
                mark,
                message,
                hint,
            });
        }
    }

    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The warnings when there is no error, else the errors.
    pub fn finish(self) -> Result<Vec<Diagnostic>, ComposeErrors> {
        if self.errors.is_empty() {
            return Ok(locate(self.warnings, &self.files));
        }
        let mut findings = locate(self.errors, &self.files);
        let more = findings.len().saturating_sub(KEPT);
        findings.truncate(KEPT);
        Err(ComposeErrors { findings, more })
    }
}

fn locate(mut findings: Vec<Finding>, files: &[String]) -> Vec<Diagnostic> {
    findings.sort_by_key(|finding| finding.mark);
    findings
        .into_iter()
        .map(|finding| Diagnostic {
            file: files
                .get(finding.mark.source)
                .cloned()
                .unwrap_or_else(|| "the command line".into()),
            line: finding.mark.line,
            column: finding.mark.column,
            message: finding.message,
            hint: finding.hint,
        })
        .collect()
}
