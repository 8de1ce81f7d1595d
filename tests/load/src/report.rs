//! What came of the requests.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;

/// Problems that are kept in words; all are counted.
const PROBLEMS_KEPT: usize = 20;

/// The sum of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Requests without a complete answer, or with another status than 2xx and 3xx.
    pub failures: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// The first problems, in words.
    pub problems: Vec<String>,
    /// How long the run took.
    pub seconds: f64,
    /// Answers a second.
    pub requests_per_second: f64,
    /// Latency of answers, milliseconds: median, …
    pub p50_ms: f64,
    /// … 90 of 100, …
    pub p90_ms: f64,
    /// … 99 of 100, …
    pub p99_ms: f64,
    /// … and the longest.
    pub max_ms: f64,
}

/// Counts while it goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    latencies_us: Vec<u32>,
    failures: u64,
    without_answer: u64,
    statuses: BTreeMap<u16, u64>,
    problems: Vec<String>,
}

impl Tally {
    pub fn answered(&mut self, status: StatusCode, latency: Duration) {
        self.latencies_us
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        *self.statuses.entry(status.as_u16()).or_default() += 1;
        if !status.is_success() && !status.is_redirection() {
            self.failures += 1;
            self.note(format!("status {}", status.as_u16()));
        }
    }

    pub fn failed(&mut self, problem: String) {
        self.failures += 1;
        self.without_answer += 1;
        self.note(problem);
    }

    pub fn add(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.failures += other.failures;
        self.without_answer += other.without_answer;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for problem in other.problems {
            self.note(problem);
        }
    }

    pub fn report(mut self, elapsed: Duration) -> Report {
        self.latencies_us.sort_unstable();
        let answers = self.latencies_us.len();
        let at = |share: f64| {
            let index = ((answers as f64 * share).ceil() as usize).clamp(1, answers.max(1)) - 1;
            self.latencies_us
                .get(index)
                .map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        let seconds = elapsed.as_secs_f64();
        Report {
            requests: answers as u64 + self.without_answer,
            failures: self.failures,
            seconds,
            requests_per_second: if seconds > 0.0 {
                answers as f64 / seconds
            } else {
                0.0
            },
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            statuses: self.statuses,
            problems: self.problems,
        }
    }

    fn note(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_KEPT {
            self.problems.push(problem);
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} requests in {:.1} s ({:.0}/s), {} failed",
            self.requests, self.seconds, self.requests_per_second, self.failures
        )?;
        write!(
            f,
            "latency ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, max {:.2}",
            self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms
        )?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_failures() {
        let mut tally = Tally::default();
        for ms in 1..=100 {
            tally.answered(StatusCode::OK, Duration::from_millis(ms));
        }
        let mut other = Tally::default();
        other.answered(StatusCode::BAD_GATEWAY, Duration::from_millis(200));
        other.failed("connect: refused".to_owned());
        tally.add(other);
        let report = tally.report(Duration::from_secs(2));
        assert_eq!((report.requests, report.failures), (102, 2));
        assert_eq!(
            (report.p50_ms, report.p99_ms, report.max_ms),
            (51.0, 100.0, 200.0)
        );
        assert_eq!(report.statuses, BTreeMap::from([(200, 100), (502, 1)]));
        assert_eq!(report.problems, ["status 502", "connect: refused"]);
        assert_eq!(Tally::default().report(Duration::ZERO), Report::default());
    }
}
