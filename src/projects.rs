//! Which projects are up, so that `ps`, `logs` and `down` need no file: `<state>/projects/<name>`, empty files.
//!
//! Deliberately absent: what they declare (releases in the store) and where their files lie, for no absolute path is kept.

use std::path::PathBuf;

use crate::error::{CommandError, Result};
use crate::world::World;

fn folder(world: &World) -> PathBuf {
    world.home.join("projects")
}

/// Whether a project can have this name, as Compose has it; it is a file's name here.
pub fn check(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.starts_with(plain)
        && name.chars().all(|c| plain(c) || c == '-' || c == '_')
        && name.len() <= 63;
    if good {
        return Ok(());
    }
    Err(
        CommandError::input(format!("`{name}` cannot name a project")).hint(
            "it takes lower-case letters, digits, `-` and `_`, a letter or digit first, at most 63",
        ),
    )
}

/// Notes a project before anything of it is made. Its name is checked: letters, digits, `-` and `_`.
pub fn note(world: &World, project: &str) -> Result<()> {
    fs_err::create_dir_all(folder(world))?;
    Ok(fs_err::write(folder(world).join(project), "")?)
}

/// Forgets a project that is down.
pub fn forget(world: &World, project: &str) -> Result<()> {
    match fs_err::remove_file(folder(world).join(project)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// All of them, by name.
pub fn all(world: &World) -> Result<Vec<String>> {
    let entries = match fs_err::read_dir(folder(world)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path() {
        assert!(check("shop").is_ok() && check("9_a-b").is_ok());
        for bad in ["", "../windlass.db", "a/b", "Shop", "-a", ".", "a.b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
