//! What the command line reads from its surroundings: folders, variables, the shell.
//!
//! The libraries are handed all of it as values. Deliberately absent: the environment of a declared file, see `cli/file.rs`.

use std::path::{Path, PathBuf};

use crate::error::{CommandError, Result};

/// The variable, when it is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The folder of the user.
pub fn user_home() -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from)
}

/// The state directory: `$WINDLASS_HOME`, else `$XDG_DATA_HOME/windlass`, else `~/.local/share/windlass`. Made when absent, and kept to its owner.
pub fn state_folder() -> Result<PathBuf> {
    let chosen = variable("WINDLASS_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("XDG_DATA_HOME").map(|data| Path::new(&data).join("windlass")))
        .or_else(|| user_home().map(|home| home.join(".local/share/windlass")));
    let Some(chosen) = chosen else {
        return Err(
            CommandError::input("there is no folder for windlass to keep its state in")
                .hint("set WINDLASS_HOME, or HOME"),
        );
    };
    let refused = |error: std::io::Error| {
        CommandError::failed("cannot use the state directory")
            .because(&error)
            .hint("set WINDLASS_HOME to a folder that you may write")
    };
    fs_err::create_dir_all(&chosen).map_err(refused)?;
    std::path::absolute(chosen).map_err(refused)
}

/// Where the binaries for hosts lie, as `<folder>/<arch>/<program>.gz`: `$WINDLASS_BINARIES`, else beside this executable.
pub fn binaries() -> Option<PathBuf> {
    if let Some(given) = variable("WINDLASS_BINARIES") {
        return Some(PathBuf::from(given));
    }
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let mut candidates = vec![folder.join("binaries"), folder.to_owned()];
    // In a build tree the executable lies in <target>/<profile>, and `cargo xtask binaries` writes into <target>/binaries/<profile>.
    if let Some(target) = folder.parent() {
        candidates.push(target.join("binaries/engine"));
        candidates.push(target.join("binaries/engine-dev"));
    }
    candidates.into_iter().find(|folder| {
        ["x86_64", "aarch64"]
            .iter()
            .any(|arch| folder.join(arch).join("windlassd.gz").is_file())
    })
}
