//! The tests of other clients, run by their own runners, and what those say, test by test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use windlass_fixtures::program;

use crate::{Extent, Outcome, Result, Selection, Target};

const LIMIT: Duration = Duration::from_secs(1800);

/// The three docker compose, which the tests are given as `COMPOSE_…`.
#[derive(Clone, Debug)]
pub struct Composes {
    /// 1.29, in Python.
    pub one: std::path::PathBuf,
    /// 2.40, in Go.
    pub two: std::path::PathBuf,
    /// 5.6, in Go.
    pub five: std::path::PathBuf,
}

/// Runs pytest of the virtual environment `python` on `python/`, where slow tests are marked so.
pub fn pytest(
    python: &Path,
    composes: &Composes,
    target: &Target,
    selection: &Selection,
) -> anyhow::Result<Vec<Result>> {
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short"])
        .args(["-rA", "--timeout=400", "--show-capture=no"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("COLUMNS", "400")
        .env("COMPOSE_1", &composes.one)
        .env("COMPOSE_2", &composes.two)
        .env("COMPOSE_5", &composes.five)
        .envs(target.environment())
        .current_dir(crate::folder().join("python"));
    if let Some(only) = &selection.only {
        command.args(["-k", only]);
    }
    if selection.extent == Extent::Quick {
        command.args(["-m", "not slow"]);
    }
    let output = program::run(&mut command, LIMIT)?;
    let results = pytest_results(&output.stdout);
    // 5: nothing was chosen.
    ensure!(
        !results.is_empty() || output.status.code() == Some(5),
        "pytest said nothing of its tests:\n{}{}",
        output.stdout,
        output.stderr
    );
    Ok(results)
}

/// From the short summary that `-rA` asks for, with the errors that come before it.
fn pytest_results(text: &str) -> Vec<Result> {
    text.lines()
        .filter_map(|line| {
            let (word, rest) = line.split_once(' ')?;
            let (name, why) = rest.split_once(" - ").unwrap_or((rest, ""));
            let outcome = match word {
                "PASSED" => Outcome::Passed(String::new()),
                "FAILED" | "ERROR" => Outcome::Failed(failure(text, name, why)),
                _ => return None,
            };
            name.contains("::").then(|| (pytest_name(name), outcome))
        })
        .collect()
}

/// `test_docker_py.py::test_x[2]` is `docker_py/x[2]`.
fn pytest_name(name: &str) -> String {
    name.replacen(".py::test_", "/", 1)
        .trim_start_matches("test_")
        .to_owned()
}

/// The lines that start with `E` in the section of this test.
fn failure(text: &str, name: &str, why: &str) -> String {
    let function = name.rsplit("::").next().unwrap_or(name);
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| !(line.starts_with('_') && line.contains(&format!(" {function} "))))
        .skip(1)
        .take_while(|line| !line.starts_with("____") && !line.starts_with("===="))
        .filter(|line| line.starts_with("E  "))
        .take(12)
        .collect();
    if lines.is_empty() {
        return why.to_owned();
    }
    lines.join("\n")
}

/// Runs the tests with bollard, which cargo builds.
pub fn bollard(target: &Target, selection: &Selection) -> anyhow::Result<Vec<Result>> {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--quiet", "--package", "windlass-conformance"])
        .args(["--test", "bollard", "--no-fail-fast", "--"])
        .args(["--ignored", "--format=pretty", "--test-threads=2"])
        .args(&selection.only)
        .envs(target.environment())
        .current_dir(crate::folder());
    let output = program::run(&mut command, LIMIT).context("bollard")?;
    let results = libtest_results(&output.stdout);
    ensure!(
        !results.is_empty() || selection.only.is_some(),
        "the tests did not run:\n{}",
        output.stderr
    );
    Ok(results)
}

fn libtest_results(text: &str) -> Vec<Result> {
    text.lines()
        .filter_map(|line| {
            let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
            // A test that is ignored says why after its name.
            let name = name.split(' ').next()?;
            let outcome = match verdict {
                "ok" => Outcome::Passed(String::new()),
                "FAILED" => Outcome::Failed(panic_of(text, name)),
                _ => return None,
            };
            Some((format!("bollard/{}", name.replace("::", "/")), outcome))
        })
        .collect()
}

fn panic_of(text: &str, name: &str) -> String {
    let begin = format!("---- {name} stdout ----");
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != begin)
        .skip(1)
        .take_while(|line| !line.starts_with("---- ") && !line.starts_with("failures:"))
        .filter(|line| !line.is_empty())
        .take(8)
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pytest_says_is_read_test_by_test() {
        let text = "\
..F
=================================== FAILURES ===================================
__________________________________ test_b[2] ___________________________________
test_docker_py.py:3: in test_b
    assert 1 == 2
E   assert 1 == 2
=========================== short test summary info ============================
PASSED test_docker_py.py::test_a
FAILED test_docker_py.py::test_b[2] - assert 1 == 2
2 passed, 1 failed in 0.1s
";
        assert_eq!(
            pytest_results(text),
            [
                ("docker_py/a".to_owned(), Outcome::Passed(String::new())),
                (
                    "docker_py/b[2]".to_owned(),
                    Outcome::Failed("E   assert 1 == 2".to_owned())
                ),
            ]
        );
    }

    #[test]
    fn what_cargo_says_is_read_test_by_test() {
        let text = "\
running 2 tests
test networks::a ... ok
test networks::b ... FAILED

failures:

---- networks::b stdout ----
thread panicked: no

failures:
    networks::b
";
        assert_eq!(
            libtest_results(text),
            [
                (
                    "bollard/networks/a".to_owned(),
                    Outcome::Passed(String::new())
                ),
                (
                    "bollard/networks/b".to_owned(),
                    Outcome::Failed("thread panicked: no".to_owned())
                ),
            ]
        );
    }
}
