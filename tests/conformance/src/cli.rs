//! The table of commands: text files below `cli/`, one an area, so that a check is three lines and needs no compiler.
//!
//! A case begins with `## name` (`## name (slow)` where it takes many seconds), a line `$ command` is run by the shell in a folder that is the case's own, and the lines below it say what is
//! expected: `exit N` (0 where nothing is said), `out PATTERN`, `err PATTERN` (regular expressions, all must be found), `none` (nothing
//! on either), `free` (what it shows is not compared between engines). Lines that start with `#` are comments.
//! The functions of the shell are in [`PRELUDE`].

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use regex::Regex;
use windlass_fixtures::program;

use crate::{Extent, Outcome, Selection, Target, normal};

/// `eventually COMMAND` waits until it succeeds, for a minute at least; `id NAME` is a container's id.
pub const PRELUDE: &str = r#"
eventually() { n=0; until "$@" >/dev/null 2>&1; do n=$((n+1)); [ $n -gt 600 ] && { echo "in vain: $*" >&2; return 99; }; sleep 0.1; done; }
says() { docker logs "$1" 2>&1 | grep -q "$2"; }
state() { [ "$(docker inspect -f "{{.State.$2}}" "$1")" = "$3" ]; }
id() { docker inspect --type container -f '{{.Id}}' "$1"; }
"#;

/// After every case there is `box:latest` and nothing else.
const CLEAN: &str = r#"exec >/dev/null 2>&1
docker ps -aq | xargs -r docker rm -fv
docker images --format '{{.Repository}}:{{.Tag}} {{.ID}}' | grep -v '^box:latest ' | sed 's/^<none>.* //; s/ .*//' | xargs -r docker rmi -f
docker volume ls -q | xargs -r docker volume rm
docker network ls -q --filter type=custom | xargs -r docker network rm
docker image inspect box:latest || docker import --change 'CMD ["sh"]' --change 'ENV PATH=/bin' "$BOX" box:latest"#;

const LIMIT: Duration = Duration::from_secs(240);

/// Some commands, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// `cli/AREA/NAME`.
    pub name: String,
    slow: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, Default)]
struct Step {
    command: String,
    exit: i32,
    out: Vec<Regex>,
    err: Vec<Regex>,
    silent: bool,
    free: bool,
}

/// All tables below `folder`, in the order of their names.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Case>> {
    let mut paths: Vec<_> = fs_err::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let area = path.file_stem().unwrap_or_default().to_string_lossy();
        let parsed = parse(&area, &fs_err::read_to_string(&path)?);
        cases.extend(parsed.with_context(|| format!("{}", path.display()))?);
    }
    Ok(cases)
}

fn parse(area: &str, text: &str) -> anyhow::Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = || format!("line {}: `{line}`", number + 1);
        if let Some(name) = line.strip_prefix("## ") {
            let quick = name.trim().trim_end_matches(" (slow)");
            cases.push(Case {
                name: format!("cli/{area}/{quick}"),
                slow: quick != name.trim(),
                steps: Vec::new(),
            });
            continue;
        }
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let steps = &mut cases.last_mut().with_context(at)?.steps;
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                ..Step::default()
            });
            continue;
        }
        let step = steps.last_mut().with_context(at)?;
        step.expect(line).with_context(at)?;
    }
    Ok(cases)
}

impl Step {
    fn expect(&mut self, line: &str) -> anyhow::Result<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "exit" => self.exit = rest.trim().parse()?,
            "out" => self.out.push(Regex::new(&format!("(?m){rest}"))?),
            "err" => self.err.push(Regex::new(&format!("(?m){rest}"))?),
            "none" => self.silent = true,
            "free" => self.free = true,
            _ => bail!("not `exit`, `out`, `err`, `none` or `free`"),
        }
        Ok(())
    }

    /// What it showed, where that is compared.
    fn run(&self, folder: &Path, target: &Target) -> anyhow::Result<Option<String>> {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("{PRELUDE}\n{}", self.command))
            .current_dir(folder)
            .envs(target.environment());
        let output = program::run(&mut shell, LIMIT)?;
        let shown = || {
            format!(
                "`{}` gave {}\n{}{}",
                self.command, output.status, output.stdout, output.stderr
            )
        };
        ensure!(
            output.status.code() == Some(self.exit),
            "exit {} expected; {}",
            self.exit,
            shown()
        );
        for (name, patterns, text) in [
            ("out", &self.out, &output.stdout),
            ("err", &self.err, &output.stderr),
        ] {
            if let Some(missing) = patterns.iter().find(|pattern| !pattern.is_match(text)) {
                bail!("{name} has no `{missing}`; {}", shown());
            }
        }
        let silent = output.stdout.is_empty() && output.stderr.is_empty();
        ensure!(!self.silent || silent, "silence expected; {}", shown());
        Ok((!self.free).then(|| format!("{}\n{}", output.stdout, output.stderr)))
    }
}

impl Case {
    /// Whether it is one of those.
    pub fn is_in(&self, selection: &Selection) -> bool {
        let named = selection
            .only
            .as_ref()
            .is_none_or(|only| self.name.contains(only.as_str()));
        named && !(self.slow && selection.extent == Extent::Quick)
    }

    /// Runs the commands up to the first that does not do as expected, then removes what is left.
    pub fn run(&self, target: &Target) -> anyhow::Result<Outcome> {
        let folder = tempfile::Builder::new()
            .prefix("tmp.")
            .tempdir_in("/var/tmp")?;
        let mut shown = String::new();
        let mut outcome = None;
        for step in &self.steps {
            match step.run(folder.path(), target) {
                Ok(Some(text)) => {
                    shown.push_str(&format!("$ {}\n{}\n", step.command, normal(&text)));
                }
                Ok(None) => {}
                Err(error) => {
                    outcome = Some(Outcome::Failed(format!("{error:#}")));
                    break;
                }
            }
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", CLEAN]).envs(target.environment());
        program::run(&mut shell, LIMIT)?;
        Ok(outcome.unwrap_or(Outcome::Passed(shown)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_well_formed_and_names_are_used_once() {
        let cases = load(&crate::folder().join("cli")).unwrap();
        assert!(cases.len() >= 100, "{} cases", cases.len());
        let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cases.len(), "two cases have one name");
        assert!(cases.iter().all(|case| !case.steps.is_empty()));
    }

    #[test]
    fn expectations_belong_to_a_command() {
        assert!(parse("x", "exit 1\n").is_err());
        assert!(parse("x", "## a\nout b\n").is_err());
        assert!(parse("x", "## a\n$ true\nmaybe\n").is_err());
        let cases = parse("x", "# words\n## a\n$ false\nexit 1\nnone\n").unwrap();
        assert_eq!(cases[0].name, "cli/x/a");
        assert_eq!(cases[0].steps[0].exit, 1);
    }

    #[test]
    fn a_command_is_held_to_what_is_expected() {
        let target = Target {
            socket: "/nowhere/engine.sock".into(),
            image: "/nowhere/box.tar".into(),
            registry: String::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        let run = |text: &str| {
            parse("x", text).unwrap()[0].steps[0]
                .run(folder.path(), &target)
                .map_err(|error| error.to_string())
        };
        assert_eq!(run("## a\n$ echo hi").unwrap(), Some("hi\n\n".to_owned()));
        assert_eq!(run("## a\n$ echo hi\nfree\nout ^h").unwrap(), None);
        assert!(run("## a\n$ echo hi\nout ^i").unwrap_err().contains("no `"));
        assert!(run("## a\n$ exit 3").unwrap_err().contains("exit 0"));
        assert!(
            run("## a\n$ echo x >&2\nnone")
                .unwrap_err()
                .contains("silence")
        );
    }
}
