//! `windlass logs`.

use std::collections::HashSet;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use windlass_deploy::{Deployer, LogTarget};
use windlass_engine_api::LogOptions;

use super::file::FileArgs;
use crate::error::{CommandError, Result};
use crate::world::World;

/// What has no line end until then is shown in pieces.
const LONGEST_LINE: usize = 1 << 20;
/// Between two looks for new replicas, with `-f`.
const LOOK: Duration = Duration::from_secs(2);

/// Prints the logs of a project's containers, each line with its replica in front
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// Go on, with replicas that come later too
    #[arg(short = 'f', long)]
    follow: bool,
    /// The last lines only
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Lines since then: RFC 3339, Unix seconds, or a time ago like 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<String>,
    /// Each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Without the replica in front
    #[arg(long)]
    no_log_prefix: bool,
    /// Services, or replicas like web.2; none: all
    services: Vec<String>,
}

/// A line from one replica; no text: its log has ended.
type Line = Result<String>;

pub async fn run(args: Args, world: &World) -> Result<()> {
    let project = args.file.project_name(world)?;
    let deployer = world.deployer();
    let (sender, mut lines) = mpsc::channel::<Line>(256);
    let mut known = HashSet::new();
    for target in deployer.log_targets(&project, &args.services).await? {
        known.insert(target.container.clone());
        read(target, options(&args, args.tail), &args, sender.clone());
    }
    if args.follow {
        tokio::spawn(later(
            args_for_later(&args),
            project,
            deployer,
            known,
            sender,
        ));
    } else {
        drop(sender);
    }
    while let Some(line) = lines.recv().await {
        if !world.print(&line?) {
            break;
        }
    }
    Ok(())
}

struct Later {
    services: Vec<String>,
    options: LogOptions,
    prefix: Prefix,
}

fn args_for_later(args: &Args) -> Later {
    Later {
        services: args.services.clone(),
        options: options(args, None),
        prefix: prefix(args),
    }
}

/// Finds replicas that come while we follow. A look that fails is tried again: a machine may just be starting.
async fn later(
    later: Later,
    project: String,
    deployer: Deployer,
    mut known: HashSet<String>,
    sender: mpsc::Sender<Line>,
) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !sender.is_closed() {
        looks.tick().await;
        let Ok(targets) = deployer.log_targets(&project, &[]).await else {
            continue;
        };
        for target in targets {
            let service = target.name.split('.').next().unwrap_or_default();
            let asked = |s: &String| *s == target.name || s == service;
            let wanted = later.services.is_empty() || later.services.iter().any(asked);
            if wanted && known.insert(target.container.clone()) {
                spawn(target, later.options.clone(), later.prefix, sender.clone());
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Replica,
    Nothing,
}

fn prefix(args: &Args) -> Prefix {
    if args.no_log_prefix {
        Prefix::Nothing
    } else {
        Prefix::Replica
    }
}

fn options(args: &Args, tail: Option<u64>) -> LogOptions {
    LogOptions {
        follow: args.follow,
        timestamps: args.timestamps,
        tail,
        since: args.since.clone(),
    }
}

fn read(target: LogTarget, options: LogOptions, args: &Args, sender: mpsc::Sender<Line>) {
    spawn(target, options, prefix(args), sender);
}

fn spawn(target: LogTarget, options: LogOptions, prefix: Prefix, sender: mpsc::Sender<Line>) {
    tokio::spawn(async move {
        let front = match prefix {
            Prefix::Replica => format!("{}@{} | ", target.name, target.machine),
            Prefix::Nothing => String::new(),
        };
        let follows = options.follow;
        if let Err(error) = copy(&target, &options, &front, &sender).await {
            let error = CommandError::from(error).within(&format!("the log of {}", target.name));
            // Who follows sees replicas go; that is no failure.
            if !follows {
                let _ = sender.send(Err(error)).await;
            }
        }
    });
}

/// Whole lines, so that those of several replicas do not mix; standard output and error each by itself.
async fn copy(
    target: &LogTarget,
    options: &LogOptions,
    front: &str,
    sender: &mpsc::Sender<Line>,
) -> windlass_engine_api::Result<()> {
    let mut stream = target.client.logs(&target.container, options).await?;
    let mut begun: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
    while let Some(frame) = stream.next().await? {
        let buffer = &mut begun[usize::from(frame.source == windlass_engine_api::Source::Stderr)];
        let from = buffer.len();
        buffer.extend_from_slice(&frame.data);
        let mut searched = from;
        while let Some(end) = buffer[searched..].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=searched + end).collect();
            searched = 0;
            if send(front, &line, sender).await.is_err() {
                return Ok(());
            }
        }
        if buffer.len() > LONGEST_LINE {
            let mut piece = std::mem::take(buffer);
            piece.push(b'\n');
            if send(front, &piece, sender).await.is_err() {
                return Ok(());
            }
        }
    }
    for mut rest in begun {
        if !rest.is_empty() {
            rest.push(b'\n');
            // Nobody reads it any more.
            let _ = send(front, &rest, sender).await;
        }
    }
    Ok(())
}

async fn send(
    front: &str,
    line: &[u8],
    sender: &mpsc::Sender<Line>,
) -> Result<(), mpsc::error::SendError<Line>> {
    let text = format!("{front}{}", String::from_utf8_lossy(line));
    sender.send(Ok(text)).await
}

/// Unix seconds, RFC 3339, or a time ago.
fn since(text: &str) -> Result<String, String> {
    if text.parse::<f64>().is_ok() || OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Ok(text.to_owned());
    }
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match (number.parse::<i64>(), unit) {
        (Ok(n), "s") => Some(n),
        (Ok(n), "m") => n.checked_mul(60),
        (Ok(n), "h") => n.checked_mul(3600),
        (Ok(n), "d") => n.checked_mul(86400),
        _ => {
            return Err(
                "give a time like 2026-01-31T12:00:00Z, Unix seconds, or a time ago like 10m"
                    .to_owned(),
            );
        }
    };
    let since = seconds.and_then(|s| OffsetDateTime::now_utc().unix_timestamp().checked_sub(s));
    since
        .map(|since| since.to_string())
        .ok_or_else(|| format!("{text} is longer ago than can be counted"))
}

#[cfg(test)]
mod tests {
    use super::since;

    #[test]
    fn times() {
        assert_eq!(since("1700000000").as_deref(), Ok("1700000000"));
        assert_eq!(
            since("2026-01-31T12:00:00Z").as_deref(),
            Ok("2026-01-31T12:00:00Z")
        );
        let ago: i64 = since("10m").ok().and_then(|t| t.parse().ok()).unwrap_or(0);
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        assert!((599..=601).contains(&(now - ago)), "{ago}");
        for bad in ["", "yesterday", "10x", "ü"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
