//! HEALTHCHECK.

use windlass_engine_api::types::HealthConfig;

use super::dockerfile::{Arguments, Instruction};
use crate::container::error::Result;

/// What the instruction asks for.
pub fn check(instruction: &Instruction) -> Result<HealthConfig> {
    let duration = |name: &str| -> Result<i64> {
        let Some(text) = instruction.flag(name) else {
            return Ok(0);
        };
        let parsed = nanoseconds(text)
            .ok_or_else(|| instruction.error(&format!("time: invalid duration \"{text}\"")))?;
        if (1..1_000_000).contains(&parsed) {
            return Err(instruction.error(&format!("Interval \"{name}\" cannot be less than 1ms")));
        }
        Ok(parsed)
    };
    let mut check = HealthConfig {
        interval: duration("interval")?,
        timeout: duration("timeout")?,
        start_period: duration("start-period")?,
        start_interval: duration("start-interval")?,
        ..HealthConfig::default()
    };
    if let Some(retries) = instruction.flag("retries").filter(|text| !text.is_empty()) {
        check.retries = retries
            .parse()
            .map_err(|_| instruction.error("--retries must be a number"))?;
        if check.retries < 1 {
            return Err(instruction.error(&format!("--retries must be at least 1 (not {retries})")));
        }
    }
    let (word, rest) = instruction
        .text
        .split_once(char::is_whitespace)
        .unwrap_or((&instruction.text, ""));
    let rest = rest.trim();
    check.test = match word.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => vec!["NONE".into()],
        "NONE" => return Err(instruction.error("HEALTHCHECK NONE takes no arguments")),
        "CMD" if rest.is_empty() => {
            return Err(instruction.error("Missing command after HEALTHCHECK CMD"));
        }
        "CMD" => {
            let command = Instruction {
                text: rest.to_owned(),
                ..instruction.clone()
            };
            match command.arguments() {
                Arguments::Exec(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
                Arguments::Shell(text) => vec!["CMD-SHELL".into(), text],
            }
        }
        _ => {
            return Err(
                instruction.error(&format!("Unknown type {word:?} in HEALTHCHECK (try CMD)"))
            );
        }
    };
    Ok(check)
}

/// As the history shows it.
pub fn shown(check: &HealthConfig) -> String {
    let test: Vec<String> = check.test.iter().map(|word| format!("{word:?}")).collect();
    format!(
        "HEALTHCHECK &{{[{}] \"{}\" \"{}\" \"{}\" \"{}\" '\\x{:02x}'}}",
        test.join(" "),
        go_duration(check.interval),
        go_duration(check.timeout),
        go_duration(check.start_period),
        go_duration(check.start_interval),
        check.retries
    )
}

/// Go's way to write nanoseconds, for whole milliseconds.
fn go_duration(nanoseconds: i64) -> String {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    if seconds == 0 && rest > 0 {
        return format!("{}ms", rest as f64 / 1e6);
    }
    let tail = format!("{}s", (seconds % 60) as f64 + rest as f64 / 1e9);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => tail,
        (0, minutes) => format!("{minutes}m{tail}"),
        (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
    }
}

/// Go's durations: `1h2m3.5s`, `100ms`.
pub fn nanoseconds(text: &str) -> Option<i64> {
    let (mut rest, mut total) = (text, 0.0_f64);
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        total += number
            * match &unit[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 6e10,
                "h" => 3.6e12,
                _ => return None,
            };
        rest = &unit[end..];
    }
    // The largest duration that Docker's own type holds is below 2^63 ns.
    (total < 9.2e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(nanoseconds("1m30s"), Some(90_000_000_000));
        assert_eq!(nanoseconds("x"), None);
        for (value, wanted) in [
            (0, "0s"),
            (5_000_000_000, "5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (500_000_000, "500ms"),
        ] {
            assert_eq!(go_duration(value), wanted);
        }
    }
}
