//! `docker top`: the host's `ps`, cut down to the container's processes; without one, its `-ef` made from `/proc`.

use std::collections::BTreeSet;
use std::process::Command;

use windlass_engine_api::types::Top;

use super::Engine;
use super::error::{Error, Result};
use super::record::Status;
use super::stats::Groups;

impl Engine {
    /// The processes of a container, as `ps` with these options shows them.
    pub async fn top(&self, id: &str, options: &str) -> Result<Top> {
        check(options)?;
        let container = self.containers.find(id)?;
        let (pid, status) = container.read(|r| (r.state.pid, r.state.status));
        if status == Status::Restarting {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        if !status.has_process() {
            return Err(Error::conflict(format!(
                "Container {} is not running",
                container.id
            )));
        }
        let options = options.to_owned();
        let top = tokio::task::spawn_blocking(move || list(pid, &options))
            .await
            .map_err(Error::internal)??;
        self.tell(&container, "top");
        Ok(top)
    }
}

/// A title that pretends to be the column of the numbers would show other processes.
fn check(options: &str) -> Result<()> {
    let mut words = options.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let Some((key, value)) = word.split_once('=') else {
            continue;
        };
        let title = if value.is_empty() {
            words.peek().copied().unwrap_or_default()
        } else {
            value
        };
        if title.starts_with("PID") && key != "pid" {
            return Err(Error::invalid(format!(
                "specifying \"{key}={title}\" is not allowed"
            )));
        }
    }
    Ok(())
}

fn list(first: i32, options: &str) -> Result<Top> {
    let members = Groups::of(first)?.processes();
    let words: Vec<&str> = options.split(' ').filter(|w| !w.is_empty()).collect();
    let numbers: Vec<String> = members.iter().map(ToString::to_string).collect();
    let only = format!("-q{}", numbers.join(","));
    let run = |further: Option<&str>| Command::new("ps").args(&words).args(further).output();
    let output = match run(Some(&only)) {
        // Some options go with no choice of processes.
        Ok(output) if !output.status.success() => run(None),
        other => other,
    };
    match output {
        Ok(output) if output.status.success() => {
            read(&String::from_utf8_lossy(&output.stdout), &members)
        }
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            let words = words.lines().next().unwrap_or_default();
            Err(Error::message(format!("ps: {words}")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && options == "-ef" => Ok(own(&members)),
        Err(e) => Err(Error::message(format!("ps: {e}"))),
    }
}

/// What `ps` says about the members.
fn read(text: &str, members: &BTreeSet<i32>) -> Result<Top> {
    let mut lines = text.lines();
    let titles: Vec<String> = words(lines.next().unwrap_or_default());
    let column = titles.iter().position(|t| t == "PID");
    let column = column.ok_or_else(|| Error::message("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    let mut is_member = false;
    for line in lines {
        let mut fields = words(line);
        let Some(number) = fields.get(column) else {
            continue;
        };
        // A thread of the process before it.
        if number != "-" {
            is_member = number.parse().is_ok_and(|pid: i32| members.contains(&pid));
        }
        if is_member {
            let last = titles.len() - 1;
            if fields.len() > titles.len() {
                let rest = fields.split_off(last);
                fields.push(rest.join(" "));
            }
            processes.push(fields);
        }
    }
    Ok(Top { titles, processes })
}

fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

fn own(members: &BTreeSet<i32>) -> Top {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    Top {
        titles: titles.map(str::to_owned).to_vec(),
        processes: members.iter().filter_map(|pid| line(*pid)).collect(),
    }
}

/// The fields of `/proc/PID/stat` after the name, which may have spaces and brackets.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(
        text.rsplit_once(')')?
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

fn line(pid: i32) -> Option<Vec<String>> {
    use std::os::unix::fs::MetadataExt as _;
    let stat = stat(pid)?;
    let ticks: u64 = stat.get(11)?.parse::<u64>().ok()? + stat.get(12)?.parse::<u64>().ok()?;
    let seconds = ticks / 100;
    let uid = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .trim_end_matches('\0')
        .replace('\0', " ");
    let command = if command.is_empty() {
        format!(
            "[{}]",
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .ok()?
                .trim()
        )
    } else {
        command
    };
    let tty = if stat.get(4)? == "0" {
        "?".to_owned()
    } else {
        "pts".to_owned()
    };
    let user = if uid == 0 {
        "root".to_owned()
    } else {
        uid.to_string()
    };
    let time = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    Some(vec![
        user,
        pid.to_string(),
        stat.get(1)?.clone(),
        "0".to_owned(),
        start_time(stat.get(19)?.parse().ok()?),
        tty,
        time,
        command,
    ])
}

/// Ticks since boot → `HH:MM`.
fn start_time(ticks: u64) -> String {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot: i64 = text
        .lines()
        .find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok())
        .unwrap_or_default();
    let at = time::OffsetDateTime::from_unix_timestamp(boot + (ticks / 100) as i64)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!("{:02}:{:02}", at.hour(), at.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ps_says() {
        let pid = std::process::id() as i32;
        let words = line(pid).unwrap();
        assert_eq!(
            (words[1].as_str(), words.len()),
            (pid.to_string().as_str(), 8)
        );
        let text = "UID PID CMD\nroot 1 init\nroot 7 sleep 100 s\nroot - thread\nroot 8 sh\n";
        let top = read(text, &[7].into()).unwrap();
        let lines: Vec<_> = top.processes.iter().map(|p| p.join("|")).collect();
        assert_eq!(lines, ["root|7|sleep 100 s", "root|-|thread"]);
        assert!(read("COMMAND\nsh\n", &[7].into()).is_err());
        assert!(check("-o pid,comm").is_ok() && check("-o pid=PIDX").is_ok());
        assert!(check("-o comm=PID").is_err() && check("-eo uid= PID").is_err());
    }
}
