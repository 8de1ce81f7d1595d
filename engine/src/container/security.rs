//! `--security-opt`, read as Docker reads it: pure.

use super::error::{Error, Result};

/// What the options say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// No program gains privileges.
    pub no_new_privileges: bool,
    /// `unconfined`, or the name of a profile in the kernel.
    pub apparmor: Option<String>,
    /// `unconfined`, `builtin`, or a profile's JSON text.
    pub seccomp: Option<String>,
    /// Control groups may be written in the container.
    pub writable_cgroups: bool,
}

/// Reads all; labels of SELinux are taken and mean nothing, as on a host without it.
pub fn parse(options: &[String]) -> Result<Options> {
    let mut parsed = Options::default();
    for option in options {
        match option.as_str() {
            "no-new-privileges" => parsed.no_new_privileges = true,
            "disable" => {}
            other => keyed(&mut parsed, other)?,
        }
    }
    Ok(parsed)
}

fn keyed(parsed: &mut Options, option: &str) -> Result<()> {
    let separator = if option.contains('=') { '=' } else { ':' };
    let (key, value) = option
        .split_once(separator)
        .ok_or_else(|| Error::invalid(format!("invalid --security-opt 1: {option:?}")))?;
    let bad = || Error::invalid(format!("invalid --security-opt 2: {option:?}"));
    match key {
        "label" => {}
        "apparmor" => parsed.apparmor = Some(value.to_owned()),
        "seccomp" => parsed.seccomp = Some(value.to_owned()),
        "no-new-privileges" => parsed.no_new_privileges = boolean(value).ok_or_else(bad)?,
        "writable-cgroups" => parsed.writable_cgroups = boolean(value).ok_or_else(bad)?,
        _ => return Err(bad()),
    }
    Ok(())
}

/// What Go takes for a truth value.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the host has AppArmor; without it profiles' names mean nothing, as for Docker.
pub fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with(b"Y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_and_refusals() {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let all = parse(&words(&[
            "no-new-privileges:true",
            "label=disable",
            "apparmor:unconfined",
            "seccomp={\"a\":1}",
            "writable-cgroups=1",
        ]))
        .unwrap();
        assert!(all.no_new_privileges && all.writable_cgroups);
        assert_eq!(all.apparmor.as_deref(), Some("unconfined"));
        assert_eq!(all.seccomp.as_deref(), Some("{\"a\":1}"));
        for (bad, text) in [
            ("nosuch=1", "invalid --security-opt 2: \"nosuch=1\""),
            ("nosuch", "invalid --security-opt 1: \"nosuch\""),
            (
                "no-new-privileges:maybe",
                "invalid --security-opt 2: \"no-new-privileges:maybe\"",
            ),
        ] {
            assert_eq!(parse(&words(&[bad])).unwrap_err().message, text);
        }
    }
}
