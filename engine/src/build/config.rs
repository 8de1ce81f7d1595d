//! Instructions that change an image's configuration only.

use super::dockerfile::{Arguments, Instruction, parse};
use super::expand::Lexer;
use super::health;
use crate::container::error::{Error, Result};
use crate::container::signal;
use crate::image::{ImageConfig, RunConfig};

/// The shell of shell forms where SHELL names no other.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies `--change` instructions, as of `docker import` and `docker commit`.
pub fn apply_changes(config: &mut ImageConfig, changes: &[String]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut command_set = false;
    for instruction in parse(&changes.join("\n"))? {
        let env = config.config.env.clone();
        let lexer = Lexer {
            escape: instruction.escape,
            lookup: &|name| value_of(&env, name),
        };
        if apply(config, &mut command_set, &instruction, &lexer)?.is_none() {
            return Err(Error::invalid(format!(
                "{} is not a valid change command",
                instruction.keyword
            )));
        }
    }
    Ok(())
}

/// The value of a variable in `NAME=value` lines.
pub fn value_of(env: &[String], name: &str) -> Option<String> {
    env.iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(str::to_owned)
}

/// The command line of a form.
pub fn command(config: &RunConfig, arguments: Arguments) -> Vec<String> {
    match arguments {
        Arguments::Exec(list) => list,
        Arguments::Shell(text) => shell_line(config, text),
    }
}

/// The shell with a text to run.
pub fn shell_line(config: &RunConfig, text: String) -> Vec<String> {
    let default = || SHELL.map(str::to_owned).to_vec();
    let mut line = config.shell.clone().unwrap_or_else(default);
    line.push(text);
    line
}

/// Applies an instruction; what the history says of it, or `None` if it is not one of this kind. `command_set` is whether a CMD came before
/// in the same file: an ENTRYPOINT drops the one of the base only, which was meant for the base's own.
pub fn apply(
    config: &mut ImageConfig,
    command_set: &mut bool,
    instruction: &Instruction,
    lexer: &Lexer<'_>,
) -> Result<Option<String>> {
    let text = instruction.text.as_str();
    let run = &mut config.config;
    let located =
        |error: Error| Error::invalid(format!("failed to process {text:?}: {}", error.message));
    let one = |text: &str| lexer.single(text).map_err(located);
    let all = |list: Vec<String>| -> Result<Vec<String>> { list.iter().map(|t| one(t)).collect() };
    let shown = match instruction.keyword.as_str() {
        "CMD" => {
            let line = match (text, instruction.arguments()) {
                ("", _) => Vec::new(),
                (_, arguments) => command(run, arguments),
            };
            *command_set = true;
            let shown = format!("CMD [{}]", quoted(&line));
            run.cmd = Some(line);
            shown
        }
        "ENTRYPOINT" => {
            let line = match (text, instruction.arguments()) {
                ("", _) => Vec::new(),
                (_, arguments) => command(run, arguments),
            };
            if !*command_set {
                run.cmd = None;
            }
            let shown = format!("ENTRYPOINT [{}]", quoted(&line));
            run.entrypoint = Some(line).filter(|line| !line.is_empty());
            shown
        }
        "ENV" | "LABEL" => pairs(run, instruction, &one)?,
        "EXPOSE" => {
            let mut written = Vec::new();
            for word in instruction.words() {
                written.extend(lexer.several(&word).map_err(located)?);
            }
            // In another order they are the same step.
            written.sort();
            expose(run, &written)?
        }
        "USER" => {
            run.user = one(text)?;
            format!("USER {}", run.user)
        }
        "WORKDIR" => {
            let path = one(text)?;
            // One from the root on stays as it is written.
            run.working_dir = match path.starts_with('/') {
                true => path,
                false => joined(&run.working_dir, &path),
            };
            format!("WORKDIR {}", run.working_dir)
        }
        "VOLUME" => {
            let list = all(instruction.list())?;
            if list.iter().any(|path| path.trim().is_empty()) || list.is_empty() {
                return Err(instruction.error("VOLUME specified can not be an empty string"));
            }
            let shown = format!("VOLUME [{}]", list.join(" "));
            for path in list {
                run.volumes.insert(path, serde_json::json!({}));
            }
            shown
        }
        "STOPSIGNAL" => {
            let name = one(text)?;
            if signal::parse(&name).is_none() {
                return Err(Error::invalid(format!("Invalid signal: {name}")));
            }
            let shown = format!("STOPSIGNAL {name}");
            run.stop_signal = Some(name);
            shown
        }
        "SHELL" => shell(run, instruction)?,
        "MAINTAINER" => {
            config.author = Some(text.to_owned());
            format!("MAINTAINER {text}")
        }
        "ONBUILD" => {
            run.on_build.push(text.to_owned());
            format!("ONBUILD {text}")
        }
        "HEALTHCHECK" => {
            let check = health::check(instruction)?;
            let shown = health::shown(&check);
            run.healthcheck = Some(serde_json::to_value(check).map_err(Error::internal)?);
            shown
        }
        _ => return Ok(None),
    };
    Ok(Some(shown))
}

/// ENV and LABEL.
fn pairs(
    run: &mut RunConfig,
    instruction: &Instruction,
    one: &dyn Fn(&str) -> Result<String>,
) -> Result<String> {
    let mut shown = instruction.keyword.clone();
    for (name, value) in instruction.pairs()? {
        let (name, value) = (one(&name)?, one(&value)?);
        if name.is_empty() {
            let message = format!("{} names can not be blank", instruction.keyword);
            return Err(instruction.error(&message));
        }
        shown += &format!(" {name}={value}");
        match instruction.keyword.as_str() {
            "ENV" => set_env(&mut run.env, &name, &value),
            _ => drop(run.labels.insert(name, value)),
        }
    }
    Ok(shown)
}

fn expose(run: &mut RunConfig, written: &[String]) -> Result<String> {
    for word in written {
        for port in exposed(word)? {
            run.exposed_ports.insert(port, serde_json::json!({}));
        }
    }
    Ok(format!("EXPOSE {}", written.join(" ")))
}

fn shell(run: &mut RunConfig, instruction: &Instruction) -> Result<String> {
    let Arguments::Exec(list) = instruction.arguments() else {
        return Err(instruction.error("SHELL requires the arguments to be in JSON form"));
    };
    if list.is_empty() {
        return Err(instruction.error("SHELL requires at least one argument"));
    }
    let shown = format!("SHELL [{}]", list.join(" "));
    run.shell = Some(list);
    Ok(shown)
}

fn quoted(list: &[String]) -> String {
    let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
    words.join(" ")
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

/// `80`, `80/udp`, `8000-8002/tcp`; a host's port before a colon is let through, and means nothing.
fn exposed(text: &str) -> Result<Vec<String>> {
    let bad = || Error::invalid(format!("invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let range = range.rsplit(':').next().unwrap_or(range);
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (
        first.parse().map_err(|_| bad())?,
        last.parse().map_err(|_| bad())?,
    );
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    if first > last {
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
            "ENV A=1 B=\"two words\" \"C D\"=x\nENV A three 'f'\nENV E=$B\nEXPOSE 80 8000-8001/udp\nWORKDIR /a\nWORKDIR b/../c\nUSER app:app\nLABEL x=y\n\
             VOLUME [\"/data\"]\nVOLUME /x /y\nCMD echo hi\nSTOPSIGNAL SIGINT\nONBUILD RUN x",
        );
        let run = config.config;
        assert_eq!(
            run.env,
            ["A=three f", "B=two words", "C D=x", "E=two words"]
        );
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
    fn a_working_directory_from_the_root_stays_as_written() {
        assert_eq!(applied("WORKDIR /tmp/").config.working_dir, "/tmp/");
        assert_eq!(applied("WORKDIR tmp/").config.working_dir, "/tmp");
    }

    #[test]
    fn a_change_sees_the_environment() {
        let config = applied("ENV PATH=/bin\nENV PATH=/usr/bin:$PATH\nCMD echo $PATH");
        assert_eq!(config.config.env, ["PATH=/usr/bin:/bin"]);
        assert_eq!(config.config.cmd.unwrap()[2], "echo $PATH");
    }

    #[test]
    fn an_entrypoint_drops_the_command_of_the_base() {
        let mut config = applied("CMD [\"x\"]");
        apply_changes(&mut config, &["ENTRYPOINT [\"/e\"]".to_owned()]).unwrap();
        assert_eq!(
            (config.config.cmd, config.config.entrypoint),
            (None, Some(vec!["/e".into()]))
        );
        let own = applied("CMD [\"x\"]\nENTRYPOINT [\"/e\"]");
        assert_eq!(own.config.cmd, Some(vec!["x".into()]));
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
            "STOPSIGNAL what",
        ] {
            assert!(
                apply_changes(&mut config, &[bad.to_owned()]).is_err(),
                "{bad}"
            );
        }
    }
}
