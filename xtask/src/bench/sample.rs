//! Repeated measurements: the median and the spread.

use anyhow::Result;

use crate::interrupt;

/// Measurements of one thing, sorted.
#[derive(Clone, Debug)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Measures `count` times.
    pub fn of(count: usize, mut measure: impl FnMut() -> Result<f64>) -> Result<Self> {
        let mut values = Vec::new();
        for _ in 0..count.max(1) {
            interrupt::check()?;
            values.push(measure()?);
        }
        Ok(Self::from(values))
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(self.0[middle - 1], self.0[middle]),
            _ => self.0[middle],
        }
    }

    /// The least and the greatest.
    pub fn spread(&self) -> (f64, f64) {
        let first = self.0.first().copied().unwrap_or(f64::NAN);
        (first, self.0.last().copied().unwrap_or(f64::NAN))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<Vec<f64>> for Sample {
    fn from(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

/// Measures two things in turns, so that whatever else the computer does falls on both; the first of each is not counted.
pub fn take_turns(
    count: usize,
    mut first: impl FnMut() -> Result<f64>,
    mut second: impl FnMut() -> Result<f64>,
) -> Result<(Sample, Sample)> {
    first()?;
    second()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..count.max(1) {
        interrupt::check()?;
        ours.push(first()?);
        theirs.push(second()?);
    }
    Ok((ours.into(), theirs.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread() {
        let sample = Sample::from(vec![3.0, 1.0, 2.0]);
        assert_eq!((sample.median(), sample.spread()), (2.0, (1.0, 3.0)));
        assert_eq!(Sample::from(vec![1.0, 2.0]).median(), 1.5);
    }

    #[test]
    fn turns_alternate_after_a_first_of_each() {
        let order = std::cell::RefCell::new(String::new());
        let say = |letter| {
            order.borrow_mut().push(letter);
            Ok(1.0)
        };
        let (ours, theirs) = take_turns(2, || say('a'), || say('b')).unwrap();
        assert_eq!((ours.len(), theirs.len()), (2, 2));
        assert_eq!(*order.borrow(), "ababab");
    }
}
