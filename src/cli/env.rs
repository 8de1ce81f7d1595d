//! `windlass env`: what a shell must set so that any Docker client reaches a machine's engine.

use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;

use windlass_machine::MachineName;

use crate::environment;
use crate::error::{CommandError, Result};
use crate::forward;
use crate::world::World;

/// Prints what makes docker clients use a machine: eval "$(windlass env web1)"
///
/// A background process holds the local socket; it ends with the machine, or after an hour without a client.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// bash, zsh, sh, fish, tcsh or powershell [default: by $SHELL]
    #[arg(long)]
    shell: Option<Shell>,
    /// Print what undoes it
    #[arg(short, long)]
    unset: bool,
    /// Machine; none: the active one
    name: Option<MachineName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shell {
    Posix,
    Fish,
    Tcsh,
    Pwsh,
}

impl FromStr for Shell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "bash" | "zsh" | "sh" | "dash" | "ksh" => Ok(Self::Posix),
            "fish" => Ok(Self::Fish),
            "tcsh" | "csh" => Ok(Self::Tcsh),
            "powershell" | "pwsh" => Ok(Self::Pwsh),
            _ => Err("the shells are bash, zsh, sh, fish, tcsh and powershell".to_owned()),
        }
    }
}

impl Shell {
    /// The user's; POSIX where it is not known.
    fn detect() -> Self {
        environment::variable("SHELL")
            .and_then(|path| Path::new(&path).file_name()?.to_str()?.parse().ok())
            .unwrap_or(Self::Posix)
    }

    fn set(self, name: &str, value: &str) -> String {
        match self {
            Self::Posix => format!("export {name}={}\n", single_quoted(value, r"'\''")),
            Self::Fish => format!("set -gx {name} {};\n", single_quoted(value, r"\'")),
            Self::Tcsh => format!("setenv {name} {};\n", single_quoted(value, r"'\''")),
            Self::Pwsh => format!("$Env:{name} = {}\n", single_quoted(value, "''")),
        }
    }

    fn unset(self, name: &str) -> String {
        match self {
            Self::Posix => format!("unset {name}\n"),
            Self::Fish => format!("set -e {name};\n"),
            Self::Tcsh => format!("unsetenv {name};\n"),
            Self::Pwsh => format!("Remove-Item Env:\\{name}\n"),
        }
    }

    fn usage(self, command: &str) -> String {
        let how = match self {
            Self::Posix => format!("eval \"$({command})\""),
            Self::Fish => format!("{command} | source"),
            Self::Tcsh => format!("eval `{command}`"),
            Self::Pwsh => format!("& {command} | Invoke-Expression"),
        };
        format!("# Run this to set up your shell:\n# {how}\n")
    }
}

fn single_quoted(value: &str, quote: &str) -> String {
    format!("'{}'", value.replace('\'', quote))
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    let shell = args.shell.unwrap_or_else(Shell::detect);
    if args.unset {
        let variables = ["DOCKER_HOST", "WINDLASS_MACHINE"];
        let mut text: String = variables.iter().map(|name| shell.unset(name)).collect();
        text.push_str(&shell.usage("windlass env --unset"));
        world.print(&text);
        return Ok(());
    }
    let name = world.one_or_active(args.name).await?;
    let machine = world.machine(&name).await?;
    if machine.engine.is_none() {
        return Err(
            CommandError::failed(format!("machine `{name}` has no engine yet"))
                .hint("finish its create: give the same `windlass create` again"),
        );
    }
    let socket = forward::ensure(world, &name).await?;
    let mut text = shell.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    text.push_str(&shell.set("WINDLASS_MACHINE", name.as_str()));
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", shell.usage(&format!("windlass env {name}")));
    world.print(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_each_shell() {
        let cases = [
            (Shell::Posix, "export A='x'\\''y'\n"),
            (Shell::Fish, "set -gx A 'x\\'y';\n"),
            (Shell::Pwsh, "$Env:A = 'x''y'\n"),
        ];
        for (shell, want) in cases {
            assert_eq!(shell.set("A", "x'y"), want);
        }
    }
}
