//! Size budgets of source files: 90 % within 400 lines, none over 800, tests aside.

use anyhow::{Result, bail};

use crate::run::output;

const P90: usize = 400;
const MAX: usize = 800;

/// Fails with the files over budget.
pub fn check() -> Result<()> {
    let listing = output(&["git", "ls-files", "*.rs"])?;
    let mut sizes: Vec<(usize, &str)> = Vec::new();
    for path in listing.lines().filter(|path| !path.contains("tests/")) {
        if let Ok(text) = fs_err::read_to_string(path) {
            sizes.push((lines_without_tests(&text), path));
        }
    }
    sizes.sort_unstable();
    let Some(&(largest, path)) = sizes.last() else {
        bail!("no source files found")
    };
    let p90 = sizes[(sizes.len() - 1) * 9 / 10].0;
    println!(
        "budget: {} files, p90 {p90} lines (at most {P90}), largest {largest} lines (at most {MAX}): {path}",
        sizes.len()
    );
    if largest > MAX || p90 > P90 {
        let over: Vec<String> = sizes
            .iter()
            .filter(|(lines, _)| *lines > P90)
            .map(|(lines, path)| format!("{lines} {path}"))
            .collect();
        bail!("over budget:\n{}", over.join("\n"));
    }
    Ok(())
}

fn lines_without_tests(text: &str) -> usize {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .count()
}

#[cfg(test)]
mod tests {
    use super::lines_without_tests;

    #[test]
    fn tests_do_not_count() {
        assert_eq!(
            lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"),
            2
        );
        assert_eq!(lines_without_tests(""), 0);
    }
}
