//! The results of two engines side by side, and what counts as a difference.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, ensure};

use crate::{Outcome, Result};

/// Differences that are meant, by test, each with its reason: `wanted.txt`.
#[derive(Clone, Debug, Default)]
pub struct Wanted(BTreeMap<String, String>);

impl Wanted {
    /// One a line: the test's name, then why. Lines that start with `#` are comments.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut wanted = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, why) = line
                .split_once(char::is_whitespace)
                .with_context(|| format!("`{line}` has no reason"))?;
            let before = wanted.insert(name.to_owned(), why.trim().to_owned());
            ensure!(before.is_none(), "`{name}` is there twice");
        }
        Ok(Self(wanted))
    }
}

/// Ours and theirs.
type Row = (Option<Outcome>, Option<Outcome>);

/// What two engines did.
#[derive(Debug)]
pub struct Report<'a> {
    wanted: &'a Wanted,
    rows: BTreeMap<String, Row>,
    beside: bool,
}

impl<'a> Report<'a> {
    /// `theirs` is `None` where only our engine was asked.
    pub fn new(wanted: &'a Wanted, ours: Vec<Result>, theirs: Option<Vec<Result>>) -> Self {
        let beside = theirs.is_some();
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for (name, outcome) in ours {
            rows.entry(name).or_default().0 = Some(outcome);
        }
        for (name, outcome) in theirs.unwrap_or_default() {
            rows.entry(name).or_default().1 = Some(outcome);
        }
        Self {
            wanted,
            rows,
            beside,
        }
    }

    /// The tests in which ours does not do as it should: it fails and dockerd does not, or both pass and show different things; those that are
    /// wanted left out.
    pub fn failures(&self) -> Vec<&str> {
        self.rows
            .iter()
            .filter(|(name, row)| is_difference(row) && !self.wanted.0.contains_key(*name))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Wanted differences of tests that ran and did not differ: the list has grown stale.
    pub fn stale(&self) -> Vec<&str> {
        self.rows
            .iter()
            .filter(|(name, row)| {
                self.beside && !is_difference(row) && self.wanted.0.contains_key(*name)
            })
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

fn is_difference(row: &Row) -> bool {
    match row {
        (Some(Outcome::Passed(ours)), Some(Outcome::Passed(theirs))) => ours != theirs,
        (Some(Outcome::Failed(_)), Some(Outcome::Failed(_)))
        | (Some(Outcome::Passed(_) | Outcome::Skipped), _) => false,
        (Some(Outcome::Failed(_)) | None, _) => true,
    }
}

fn word(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Passed(_)) => "ok",
        Some(Outcome::Failed(_)) => "FAILED",
        Some(Outcome::Skipped) => "-",
        None => "",
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.keys().map(String::len).max().unwrap_or(0);
        writeln!(f, "{:<width$}  {:<7}  dockerd", "test", "ours")?;
        for (name, (ours, theirs)) in &self.rows {
            let differs = match (
                is_difference(&(ours.clone(), theirs.clone())),
                self.wanted.0.get(name),
            ) {
                (true, Some(why)) => format!("  differs, as wanted: {why}"),
                (true, None) => "  DIFFERS".to_owned(),
                (false, _) => String::new(),
            };
            let (a, b) = (word(ours.as_ref()), word(theirs.as_ref()));
            writeln!(f, "{name:<width$}  {a:<7}  {b:<7}{differs}")?;
        }
        let both = self
            .rows
            .iter()
            .filter(|(_, row)| matches!(row, (Some(Outcome::Failed(_)), Some(Outcome::Failed(_)))));
        let both = both.map(|(name, _)| name.as_str());
        for name in both.chain(self.failures()) {
            writeln!(f, "\n--- {name}")?;
            match &self.rows[name] {
                (Some(Outcome::Passed(ours)), Some(Outcome::Passed(theirs))) => {
                    write_difference(f, ours, theirs)?;
                }
                (ours, theirs) => {
                    for (engine, outcome) in [("ours", ours), ("dockerd", theirs)] {
                        if let Some(Outcome::Failed(why)) = outcome {
                            writeln!(f, "{engine}: {}", why.trim_end())?;
                        }
                    }
                    if ours.is_none() {
                        writeln!(f, "ours: the test did not run")?;
                    }
                }
            }
        }
        let passed = |which: fn(&Row) -> &Option<Outcome>| {
            self.rows
                .values()
                .filter(|row| matches!(which(row), Some(Outcome::Passed(_))))
                .count()
        };
        write!(
            f,
            "\n{} tests: ours passes {}",
            self.rows.len(),
            passed(|row| &row.0)
        )?;
        if self.beside {
            write!(f, ", dockerd {}", passed(|row| &row.1))?;
        }
        writeln!(f, "; {} differ and should not", self.failures().len())
    }
}

/// The lines that only one of them has, with the command above them.
fn write_difference(f: &mut fmt::Formatter<'_>, ours: &str, theirs: &str) -> fmt::Result {
    let parts = |text: &str| -> Vec<String> {
        text.split("\n$ ")
            .map(|part| part.trim().to_owned())
            .collect()
    };
    for (a, b) in parts(ours).iter().zip(&parts(theirs)) {
        if a == b {
            continue;
        }
        writeln!(
            f,
            "$ {}",
            a.lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("$ ")
        )?;
        for line in a
            .lines()
            .filter(|line| !b.lines().any(|other| other == *line))
        {
            writeln!(f, "  ours:    {line}")?;
        }
        for line in b
            .lines()
            .filter(|line| !a.lines().any(|other| other == *line))
        {
            writeln!(f, "  dockerd: {line}")?;
        }
        if a.lines().all(|line| b.lines().any(|other| other == line))
            && a.lines().count() == b.lines().count()
        {
            writeln!(f, "  the same lines in another order")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(name: &str, shown: &str) -> Result {
        (name.to_owned(), Outcome::Passed(shown.to_owned()))
    }

    fn failed(name: &str) -> Result {
        (name.to_owned(), Outcome::Failed("broken".to_owned()))
    }

    #[test]
    fn a_difference_is_ours_alone_failing_or_both_showing_different_things() {
        let wanted = Wanted::parse("# why\nd  meant so\n").unwrap();
        let ours = vec![
            passed("a", "x"),
            failed("b"),
            failed("c"),
            failed("d"),
            passed("e", "$ e\n1"),
        ];
        let theirs = vec![
            passed("a", "x"),
            passed("b", ""),
            failed("c"),
            passed("d", ""),
            passed("e", "$ e\n2"),
        ];
        let report = Report::new(&wanted, ours, Some(theirs));
        assert_eq!(report.failures(), ["b", "e"]);
        let text = report.to_string();
        assert!(text.contains("as wanted: meant so"), "{text}");
        assert!(
            text.contains("ours:    1") && text.contains("dockerd: 2"),
            "{text}"
        );
    }

    #[test]
    fn alone_ours_must_pass_all() {
        let wanted = Wanted::default();
        let report = Report::new(&wanted, vec![passed("a", ""), failed("b")], None);
        assert_eq!(report.failures(), ["b"]);
        assert!(report.stale().is_empty());
    }

    #[test]
    fn the_list_of_wanted_differences_is_well_formed() {
        let text = fs_err::read_to_string(crate::folder().join("wanted.txt")).unwrap();
        Wanted::parse(&text).unwrap();
        assert!(Wanted::parse("name\n").is_err());
        assert!(Wanted::parse("a b\na c\n").is_err());
    }
}
