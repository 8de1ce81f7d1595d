//! How much of this computer a machine may use.

use windlass_provider::{ErrorKind, OptionValues, ProviderError, Result};

/// Less than this and no engine runs in it.
const SMALLEST_MEMORY: i64 = 64 << 20;
const NANO: f64 = 1e9;

/// Limits of a machine; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    /// Memory.
    pub memory_bytes: i64,
}

impl Limits {
    /// From `cpus` and `memory`.
    pub fn from_options(values: &OptionValues) -> Result<Self> {
        let text = |name: &str| values.get(name).map(String::as_str);
        Ok(Self {
            nano_cpus: text("cpus").map(cpus).transpose()?.unwrap_or(0),
            memory_bytes: text("memory").map(memory).transpose()?.unwrap_or(0),
        })
    }
}

fn cpus(text: &str) -> Result<i64> {
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    match text.parse::<f64>() {
        Ok(number) if number >= 0.01 && number <= there as f64 => Ok((number * NANO) as i64),
        Ok(number) if number > there as f64 => {
            Err(invalid("cpus", text, &format!("this computer has {there}")))
        }
        _ => Err(invalid(
            "cpus",
            text,
            "it is not a number from 0.01 on, like 1.5",
        )),
    }
}

fn memory(text: &str) -> Result<i64> {
    let bad = || invalid("memory", text, "it is not a size like 512m or 2g");
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").unwrap_or(&lower);
    let lower = match lower.strip_suffix('b') {
        Some(rest) if !rest.is_empty() => rest,
        _ => lower,
    };
    let (digits, shift) = match lower.char_indices().last().ok_or_else(bad)? {
        (at, 'k') => (&lower[..at], 10),
        (at, 'm') => (&lower[..at], 20),
        (at, 'g') => (&lower[..at], 30),
        (at, 't') => (&lower[..at], 40),
        _ => (lower, 0),
    };
    let number: f64 = digits.parse().map_err(|_| bad())?;
    let bytes = number * (1u64 << shift) as f64;
    if !bytes.is_finite() || bytes < 0.0 || bytes > i64::MAX as f64 {
        return Err(bad());
    }
    if (bytes as i64) < SMALLEST_MEMORY {
        return Err(invalid("memory", text, "a machine needs 64m at least"));
    }
    Ok(bytes as i64)
}

fn invalid(option: &str, value: &str, reason: &str) -> ProviderError {
    ProviderError::new(
        ErrorKind::Invalid,
        format!("--local-{option} `{value}`: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(cpus: &str, memory: &str) -> Result<Limits> {
        let values = [("cpus", cpus), ("memory", memory)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Limits::from_options(&values)
    }

    #[test]
    fn good_ones() {
        assert_eq!(limits("", "").unwrap(), Limits::default());
        assert_eq!(limits("0.5", "").unwrap().nano_cpus, 500_000_000);
        for (text, bytes) in [
            ("512m", 512 << 20),
            ("2g", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("512MB", 512 << 20),
            ("134217728", 128 << 20),
        ] {
            assert_eq!(limits("", text).unwrap().memory_bytes, bytes, "{text}");
        }
    }

    #[test]
    fn bad_ones_are_named() {
        for (cpus, memory, wanted) in [
            (
                "0",
                "",
                "--local-cpus `0`: it is not a number from 0.01 on, like 1.5",
            ),
            ("-1", "", "0.01"),
            ("two", "", "--local-cpus `two`"),
            ("NaN", "", "not a number"),
            ("100000", "", "this computer has "),
            (
                "",
                "63m",
                "--local-memory `63m`: a machine needs 64m at least",
            ),
            (
                "",
                "much",
                "--local-memory `much`: it is not a size like 512m or 2g",
            ),
            ("", "m", "not a size"),
            ("", "-1g", "not a size"),
            ("", "ä", "not a size"),
        ] {
            let error = limits(cpus, memory).unwrap_err();
            assert!(error.message.contains(wanted), "{error}");
            assert_eq!(error.kind, ErrorKind::Invalid);
        }
    }
}
