//! The table of figures: ours, the peer's, ours divided by theirs, the target, and whether it is met.

use std::fmt;

use super::sample::Sample;

/// All rows.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Row>);

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    ours: String,
    theirs: String,
    /// Ours divided by theirs.
    ratio: Option<f64>,
    /// The figure that a bound is on.
    value: f64,
    target: String,
    met: Option<bool>,
}

impl Table {
    /// Adds a row, and prints it: a long run should say what it has.
    pub fn add(&mut self, row: Row) {
        println!("{}", row.line());
        self.0.push(row);
    }
}

impl Row {
    /// A figure that only we have.
    pub fn ours(name: &str, value: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            ours: format!("{value:.1} {unit}"),
            theirs: "-".to_owned(),
            ratio: None,
            value,
            target: String::new(),
            met: None,
        }
    }

    /// A figure of both, measured once each.
    pub fn once(name: &str, ours: f64, theirs: f64, unit: &str) -> Self {
        Self {
            theirs: format!("{theirs:.1} {unit}"),
            ratio: Some(ours / theirs),
            ..Self::ours(name, ours, unit)
        }
    }

    /// A figure of both, measured several times.
    pub fn both(name: &str, ours: &Sample, theirs: &Sample, unit: &str) -> Self {
        Self {
            ours: with_spread(ours, unit),
            theirs: with_spread(theirs, unit),
            ratio: Some(ours.median() / theirs.median()),
            ..Self::ours(name, ours.median(), unit)
        }
    }

    /// A figure that only we have, measured several times.
    pub fn alone(name: &str, sample: &Sample, unit: &str) -> Self {
        Self {
            ours: with_spread(sample, unit),
            ..Self::ours(name, sample.median(), unit)
        }
    }

    /// A figure to compare with, which is neither's.
    pub fn note(name: &str, sample: &Sample, unit: &str) -> Self {
        Self {
            ours: String::new(),
            theirs: with_spread(sample, unit),
            ..Self::ours(name, sample.median(), unit)
        }
    }

    /// The target: our figure is so much or less.
    pub fn at_most(mut self, bound: f64) -> Self {
        self.target = format!("at most {bound}");
        self.met = Some(self.value <= bound);
        self
    }

    /// The target: ours is at most so many times theirs.
    pub fn at_most_times(mut self, bound: f64) -> Self {
        self.target = format!("at most {bound:.2}x");
        self.met = self.ratio.map(|ratio| ratio <= bound);
        self
    }

    /// The target: ours is at least so many times theirs.
    pub fn at_least_times(mut self, bound: f64) -> Self {
        self.target = format!("at least {bound:.2}x");
        self.met = self.ratio.map(|ratio| ratio >= bound);
        self
    }

    fn line(&self) -> String {
        let ratio = self
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.2}x"));
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        format!(
            "{:<52} {:>26} {:>26} {ratio:>7}  {:<15} {met}",
            self.name, self.ours, self.theirs, self.target
        )
    }
}

fn with_spread(sample: &Sample, unit: &str) -> String {
    let (least, greatest) = sample.spread();
    format!(
        "{:.2} {unit} ({least:.2}–{greatest:.2}, {})",
        sample.median(),
        sample.len()
    )
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<52} {:>26} {:>26} {:>7}  target",
            "median (spread, count)", "windlass", "peer", "ratio"
        )?;
        for row in &self.0 {
            writeln!(f, "{}", row.line())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_met_or_missed() {
        assert!(
            Row::ours("size", 9.9, "MB")
                .at_most(10.0)
                .line()
                .ends_with("met")
        );
        assert!(
            Row::ours("size", 10.1, "MB")
                .at_most(10.0)
                .line()
                .ends_with("missed")
        );
        assert!(
            Row::once("time", 1.0, 10.0, "s")
                .at_most_times(0.1)
                .line()
                .ends_with("met")
        );
        assert!(
            Row::once("time", 1.1, 10.0, "s")
                .at_most_times(0.1)
                .line()
                .ends_with("missed")
        );
        assert!(
            Row::once("requests", 9.0, 10.0, "/s")
                .at_least_times(1.0)
                .line()
                .ends_with("missed")
        );
    }
}
