//! Instructions that change an image's configuration only.

use windlass_engine_api::types::HealthConfig;

use super::dockerfile::{Arguments, Instruction, parse, words};
use crate::container::error::{Error, Result};
use crate::image::{ImageConfig, RunConfig};

/// The shell of shell forms where SHELL names no other.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Where `$NAME` means a variable.
const VARIABLES_IN: [&str; 7] = [
    "ENV",
    "LABEL",
    "EXPOSE",
    "USER",
    "WORKDIR",
    "VOLUME",
    "STOPSIGNAL",
];

/// Applies `--change` instructions, as of `docker import`.
pub fn apply_changes(config: &mut ImageConfig, changes: &[String]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    for mut instruction in parse(&changes.join("\n"))? {
        if VARIABLES_IN.contains(&instruction.keyword.as_str()) {
            let env = &config.config.env;
            instruction.text = super::expand::expand(&instruction.text, &|name| {
                let line = |line: &String| {
                    let value = line.strip_prefix(name)?.strip_prefix('=')?;
                    Some(value.to_owned())
                };
                env.iter().find_map(line)
            })?;
        }
        if !apply(config, &instruction)? {
            return Err(Error::invalid(format!(
                "{} is not a valid change command",
                instruction.keyword
            )));
        }
    }
    Ok(())
}

/// The command line of a form.
pub fn command(config: &RunConfig, arguments: Arguments) -> Vec<String> {
    match arguments {
        Arguments::Exec(list) => list,
        Arguments::Shell(text) => {
            let default = || SHELL.map(str::to_owned).to_vec();
            let mut line = config.shell.clone().unwrap_or_else(default);
            line.push(text);
            line
        }
    }
}

/// Applies an instruction, its variables expanded; `false` if it is not one of this kind.
pub fn apply(config: &mut ImageConfig, instruction: &Instruction) -> Result<bool> {
    let text = instruction.text.as_str();
    let run = &mut config.config;
    match instruction.keyword.as_str() {
        "CMD" => run.cmd = Some(command(run, instruction.arguments())),
        "ENTRYPOINT" => {
            run.entrypoint = Some(command(run, instruction.arguments()));
            // A base's command was meant for its own entrypoint.
            run.cmd = None;
        }
        "ENV" => {
            for (name, value) in pairs(instruction)? {
                set_env(&mut run.env, &name, &value);
            }
        }
        "LABEL" => run.labels.extend(pairs(instruction)?),
        "EXPOSE" => {
            for port in words(text) {
                for port in expose(instruction, &port)? {
                    run.exposed_ports.insert(port, serde_json::json!({}));
                }
            }
        }
        "USER" => run.user = text.trim().to_owned(),
        "WORKDIR" => {
            run.working_dir = joined(
                &run.working_dir,
                words(text).first().map_or("", String::as_str),
            )
        }
        "VOLUME" => {
            let list = match instruction.arguments() {
                Arguments::Exec(list) => list,
                Arguments::Shell(text) => words(&text),
            };
            for path in list {
                if path.trim().is_empty() {
                    return Err(instruction.error("the path of a volume cannot be empty"));
                }
                run.volumes.insert(path, serde_json::json!({}));
            }
        }
        "STOPSIGNAL" => run.stop_signal = Some(text.to_owned()),
        "SHELL" => match instruction.arguments() {
            Arguments::Exec(list) if !list.is_empty() => run.shell = Some(list),
            _ => return Err(instruction.error("requires the form of a JSON list")),
        },
        "MAINTAINER" => config.author = Some(text.to_owned()),
        "ONBUILD" => run.on_build.push(text.to_owned()),
        "HEALTHCHECK" => run.healthcheck = Some(health(run, instruction)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    match env
        .iter_mut()
        .find(|known| known.split('=').next() == Some(name))
    {
        Some(known) => *known = line,
        None => env.push(line),
    }
}

/// `A=b C=d`, or the old form `A b c`.
pub fn pairs(instruction: &Instruction) -> Result<Vec<(String, String)>> {
    let list = words(&instruction.text);
    if !list.first().is_some_and(|word| word.contains('=')) {
        let (name, value) = instruction
            .text
            .split_once(char::is_whitespace)
            .ok_or_else(|| instruction.error("must have two arguments"))?;
        return Ok(vec![(name.to_owned(), words(value.trim()).join(" "))]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(instruction.error(&format!(
            "syntax error - can't find = in {word:?}. Must be of the form: name=value"
        ))),
    };
    list.iter().map(pair).collect()
}

/// `80`, `80/udp`, `8000-8002/tcp`.
fn expose(instruction: &Instruction, text: &str) -> Result<Vec<String>> {
    let bad = || instruction.error(&format!("invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (
        first.parse().map_err(|_| bad())?,
        last.parse().map_err(|_| bad())?,
    );
    if first == 0 || first > last || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

/// `path` seen from `base`, without dots.
pub fn joined(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn health(run: &RunConfig, instruction: &Instruction) -> Result<serde_json::Value> {
    instruction.only_flags(&[
        "interval",
        "timeout",
        "start-period",
        "start-interval",
        "retries",
    ])?;
    let duration = |name: &str| -> Result<i64> {
        instruction.flag(name).map_or(Ok(0), |text| {
            nanoseconds(text).ok_or_else(|| {
                instruction.error(&format!(
                    "--{name}: {text:?} is no duration, like 5s or 1m30s"
                ))
            })
        })
    };
    let mut check = HealthConfig {
        interval: duration("interval")?,
        timeout: duration("timeout")?,
        start_period: duration("start-period")?,
        start_interval: duration("start-interval")?,
        ..HealthConfig::default()
    };
    if let Some(retries) = instruction.flag("retries") {
        check.retries = retries
            .parse()
            .map_err(|_| instruction.error("--retries must be a number"))?;
    }
    let (word, rest) = instruction
        .text
        .split_once(char::is_whitespace)
        .unwrap_or((&instruction.text, ""));
    check.test = match word.to_ascii_uppercase().as_str() {
        "NONE" => vec!["NONE".into()],
        "CMD" => match (Instruction {
            text: rest.trim().to_owned(),
            ..instruction.clone()
        })
        .arguments()
        {
            Arguments::Exec(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            Arguments::Shell(_) if rest.trim().is_empty() => {
                return Err(instruction.error("missing command after HEALTHCHECK CMD"));
            }
            Arguments::Shell(text) if run.shell.is_none() => vec!["CMD-SHELL".into(), text],
            shell => std::iter::once("CMD".to_owned())
                .chain(command(run, shell))
                .collect(),
        },
        other => {
            return Err(instruction.error(&format!("unknown type {other:?} (try CMD or NONE)")));
        }
    };
    serde_json::to_value(check).map_err(Error::internal)
}

/// Go's durations: `1h2m3.5s`, `100ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    let (mut rest, mut total) = (text, 0.0_f64);
    if rest.is_empty() {
        return None;
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

    fn applied(text: &str) -> ImageConfig {
        let mut config = ImageConfig::default();
        apply_changes(&mut config, &[text.to_owned()]).unwrap();
        config
    }

    #[test]
    fn each_instruction_has_its_effect() {
        let config = applied(
            "ENV A=1 B=\"two words\"\nENV A three\nEXPOSE 80 8000-8001/udp\nWORKDIR /a\nWORKDIR b/../c\nUSER app:app\nLABEL x=y\n\
             VOLUME [\"/data\"]\nVOLUME /x /y\nCMD echo hi\nSTOPSIGNAL SIGINT\nONBUILD RUN x",
        );
        let run = config.config;
        assert_eq!(run.env, ["A=three", "B=two words"]);
        assert_eq!(
            run.exposed_ports.keys().collect::<Vec<_>>(),
            ["80/tcp", "8000/udp", "8001/udp"]
        );
        assert_eq!(
            (run.working_dir.as_str(), run.user.as_str()),
            ("/a/c", "app:app")
        );
        assert_eq!(
            run.volumes.keys().collect::<Vec<_>>(),
            ["/data", "/x", "/y"]
        );
        assert_eq!(run.cmd.unwrap(), ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(
            (
                run.stop_signal.as_deref(),
                run.on_build.len(),
                run.labels["x"].as_str()
            ),
            (Some("SIGINT"), 1, "y")
        );
    }

    #[test]
    fn a_change_sees_the_environment() {
        let config = applied("ENV PATH=/bin\nENV PATH=/usr/bin:$PATH\nCMD echo $PATH");
        assert_eq!(config.config.env, ["PATH=/usr/bin:/bin"]);
        assert_eq!(config.config.cmd.unwrap()[2], "echo $PATH");
    }

    #[test]
    fn an_entrypoint_drops_the_command_before_it() {
        let config = applied("CMD [\"x\"]\nENTRYPOINT [\"/e\"]");
        assert_eq!(
            (config.config.cmd, config.config.entrypoint),
            (None, Some(vec!["/e".into()]))
        );
        let shell = applied("SHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT run");
        assert_eq!(shell.config.entrypoint.unwrap(), ["/bin/bash", "-c", "run"]);
    }

    #[test]
    fn health_checks() {
        let config = applied("HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost");
        let check = config.config.healthcheck.unwrap();
        assert_eq!(check["Interval"], 90_000_000_000_i64);
        assert_eq!(
            check["Test"],
            serde_json::json!(["CMD-SHELL", "curl -f localhost"])
        );
        let mut config = ImageConfig::default();
        for bad in [
            "HEALTHCHECK --interval=x CMD a",
            "HEALTHCHECK MAYBE a",
            "EXPOSE a",
            "ENV A",
            "SHELL sh",
            "RUN x",
        ] {
            assert!(
                apply_changes(&mut config, &[bad.to_owned()]).is_err(),
                "{bad}"
            );
        }
    }
}
