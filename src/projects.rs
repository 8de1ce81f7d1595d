//! Which projects are up, so that `ps`, `logs` and `down` need no file: `<state>/projects/<name>`, empty files.
//!
//! Deliberately absent: what they declare (releases in the store) and where their files lie, for no absolute path is kept.

use std::path::PathBuf;

use crate::error::Result;
use crate::world::World;

fn folder(world: &World) -> PathBuf {
    world.home.join("projects")
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
