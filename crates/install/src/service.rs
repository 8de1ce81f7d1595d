//! The engine's service on a host: written, started, asked, taken back.

use std::collections::HashMap;
use std::time::Duration;

use windlass_ssh::{Command, Session};

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::probe::Init;

const SERVICE: &str = include_str!("../../../templates/service.sh");
const STATE: &str = include_str!("../../../templates/state.sh");
const SYSTEMD: &str = include_str!("../../../templates/windlassd.service");
const OPENRC: &str = include_str!("../../../templates/windlassd.openrc");

/// A service manager that takes longer is stuck: systemd kills what does not stop within 90 s.
const LONGEST: Duration = Duration::from_secs(120);

/// What to do with an engine that runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Leave it, unless its service has changed.
    Running,
    /// Restart it.
    Restarted,
    /// Stop it, and do not start it.
    Stopped,
}

/// What was done, and from where on its log is about this start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Started {
    pub changed: bool,
    since: String,
    from: String,
}

/// Whether an engine that does not answer yet still may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    Gone,
}

/// The service of one host.
pub(crate) struct Service<'a> {
    pub session: &'a Session,
    pub layout: &'a Layout,
    pub init: Init,
}

impl Service<'_> {
    /// Writes it where it differs, and sees to what is wanted.
    pub async fn converge(&self, wanted: Wanted) -> Result<Started> {
        let (unit, text) = self.unit();
        let restart = match wanted {
            Wanted::Running => "no",
            Wanted::Restarted => "yes",
            Wanted::Stopped => "stop",
        };
        let arguments = [
            self.init_name().to_owned(),
            self.layout.binary(),
            self.layout.state(),
            self.layout.run(),
            self.layout.socket(),
            self.layout.log(),
            unit.to_owned(),
            text,
            restart.to_owned(),
        ];
        let said = self
            .root_script("the engine's service", SERVICE, arguments.to_vec())
            .await?;
        Ok(parse_started(&said))
    }

    /// Whether it is still there, and with `Gone`, or when `words` are asked for anyway, the last it said.
    pub async fn state(&self, started: &Started, words: Words) -> Result<(State, String)> {
        let arguments = [
            self.init_name().to_owned(),
            self.layout.pid_file(),
            self.layout.log(),
            started.since.clone(),
            started.from.clone(),
            match words {
                Words::Always => "yes".to_owned(),
                Words::IfGone => "no".to_owned(),
            },
        ];
        let said = self
            .root_script("a look at the engine's service", STATE, arguments.to_vec())
            .await?;
        let (state, words) = said.split_once('\n').unwrap_or((said.trim(), ""));
        let state = if state == "gone" {
            State::Gone
        } else {
            State::Up
        };
        Ok((state, words.trim_end().to_owned()))
    }

    /// Puts the program before this one back. Whether there was one.
    pub async fn take_back(&self) -> Result<bool> {
        let script =
            r#"[ -f "$2" ] || exit 0; mv -f -- "$2" "$1" && rm -f -- "$1.sha256" && echo back"#;
        let arguments = vec![self.layout.binary(), self.layout.old_binary()];
        let said = self
            .root_script("putting the engine before back", script, arguments)
            .await?;
        Ok(said.trim() == "back")
    }

    /// The new program has answered: the one before is not needed any more.
    pub async fn keep(&self, digest: &str) -> Result<()> {
        let script = r#"rm -f -- "$2" && printf '%s\n' "$3" >"$1.sha256""#;
        let arguments = vec![
            self.layout.binary(),
            self.layout.old_binary(),
            digest.to_owned(),
        ];
        self.root_script("tidying up", script, arguments)
            .await
            .map(|_| ())
    }

    async fn root_script(
        &self,
        during: &'static str,
        script: &str,
        arguments: Vec<String>,
    ) -> Result<String> {
        let command = Command::script("windlass", script, arguments)
            .called(during)
            .as_root()
            .time_limit(LONGEST);
        let said = self.session.run(&command).await;
        said.map_err(|e| Error::ssh(during, e))
    }

    fn init_name(&self) -> &'static str {
        match self.init {
            Init::Systemd => "systemd",
            Init::OpenRc => "openrc",
            Init::None => "none",
        }
    }

    /// The file of the service, and its text without a line end.
    fn unit(&self) -> (&'static str, String) {
        match self.init {
            Init::Systemd => (
                "/etc/systemd/system/windlassd.service",
                self.fill_in(SYSTEMD),
            ),
            Init::OpenRc => ("/etc/init.d/windlassd", self.fill_in(OPENRC)),
            Init::None => ("", String::new()),
        }
    }

    fn fill_in(&self, template: &str) -> String {
        let log = self.layout.log();
        let logs = log.rsplit_once('/').map_or("/", |(folder, _)| folder);
        template
            .replace("@binary@", &self.layout.binary())
            .replace("@state@", &self.layout.state())
            .replace("@run@", &self.layout.run())
            .replace("@socket@", &self.layout.socket())
            .replace("@logs@", logs)
            .replace("@log@", &log)
            .trim_end()
            .to_owned()
    }
}

/// When to fetch the engine's last words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    Always,
    IfGone,
}

fn parse_started(text: &str) -> Started {
    let facts: HashMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
    let get = |key: &str| facts.get(key).copied().unwrap_or_default();
    let number = |key: &str| {
        let value = get(key);
        if value.is_empty() { "0" } else { value }.to_owned()
    };
    Started {
        changed: get("unit") == "yes" || !matches!(get("action"), "none" | ""),
        since: number("since"),
        from: number("from"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command as Process;

    use super::*;

    #[test]
    fn what_was_done_is_read() {
        let started = parse_started("unit=no\naction=none\nsince=17\nfrom=4\n");
        assert!(!started.changed);
        assert_eq!((started.since.as_str(), started.from.as_str()), ("17", "4"));
        assert!(parse_started("unit=no\naction=restarted\n").changed);
        assert!(parse_started("unit=yes\naction=none\n").changed);
    }

    /// A `systemctl` that writes down what it is asked for, and at one request ends whoever asks.
    const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$1" >>"$HERE/asked"
[ "$1" != "$KILL_AT" ] || kill -9 $PPID
[ "$1" != show ] || printf 'LoadState=%s\nNeedDaemonReload=%s\n' "${LOAD:-loaded}" "$NEED"
"#;

    /// Runs the script for a service that is active. What it says, and which changes it asked for.
    fn converge(here: &Path, text: &str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
        let at = |name: &str| here.join(name).to_str().unwrap().to_owned();
        let _ = fs_err::remove_file(at("asked"));
        let output = Process::new("sh")
            .args(["-c", SERVICE, "windlass", "systemd"])
            .args([at("binary"), at("state"), at("run"), at("socket")])
            .args([at("log/log"), at("unit"), text.to_owned(), "no".to_owned()])
            .env("PATH", format!("{}:/usr/bin:/bin", here.display()))
            .env("HERE", here)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let asked = fs_err::read_to_string(at("asked")).unwrap();
        let changes = asked
            .lines()
            .filter(|line| matches!(*line, "daemon-reload" | "restart"));
        let said = String::from_utf8(output.stdout).unwrap();
        (said, changes.map(str::to_owned).collect())
    }

    #[test]
    fn a_changed_service_is_put_to_use_after_whatever_interruption() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let systemctl = here.join("systemctl");
        fs_err::write(&systemctl, SYSTEMCTL).unwrap();
        fs_err::set_permissions(&systemctl, Permissions::from_mode(0o755)).unwrap();
        for kill_at in ["daemon-reload", "restart"] {
            let text = format!("for {kill_at}");
            let (said, _) = converge(here, &text, &[("KILL_AT", kill_at)]);
            assert_eq!(said, "", "it was killed");
            assert_eq!(
                fs_err::read_to_string(here.join("unit")).unwrap().trim(),
                text
            );
            let (said, changes) = converge(here, &text, &[]);
            assert!(said.starts_with("unit=yes\naction=restarted\n"), "{said}");
            assert_eq!(changes, ["daemon-reload", "restart"]);
            let (said, changes) = converge(here, &text, &[]);
            assert!(said.starts_with("unit=no\naction=none\n"), "{said}");
            assert!(changes.is_empty(), "{changes:?}");
        }
        let (said, changes) = converge(here, "read by itself", &[("NEED", "no")]);
        assert!(said.starts_with("unit=yes\naction=restarted\n"), "{said}");
        assert_eq!(changes, ["restart"], "systemd has the new file already");
        let missing = [("LOAD", "not-found"), ("NEED", "no")];
        let (_, changes) = converge(here, "for restart", &missing);
        assert_eq!(
            changes,
            ["daemon-reload", "restart"],
            "an older systemd looks only once whether there is a file"
        );
        let (_, changes) = converge(here, "for restart", &[("NEED", "yes")]);
        assert_eq!(
            changes,
            ["daemon-reload", "restart"],
            "somebody else changed it"
        );
    }

    #[test]
    fn no_placeholder_is_left_in_a_template() {
        let layout = Layout::default();
        for template in [SYSTEMD, OPENRC] {
            let filled = ["binary", "state", "run", "socket", "logs", "log"]
                .iter()
                .fold(template.to_owned(), |text, key| {
                    text.replace(&format!("@{key}@"), "")
                });
            assert!(!filled.contains('@'), "{filled}");
        }
        assert_eq!(layout.log(), "/var/log/windlass/windlassd.log");
    }
}
