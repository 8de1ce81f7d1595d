//! The key files of a machine, in a folder that is mounted into it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use windlass_provider::{CreateRequest, Result};

use crate::failure;

/// Writes them, for the owner only. Writing them again is success.
pub fn write(folder: &Path, request: &CreateRequest) -> Result<()> {
    let write = || {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
        let line = format!("{}\n", request.authorized_key.trim());
        write_private(&folder.join("authorized_keys"), &line)?;
        if let Some(key) = &request.host_key {
            write_private(&folder.join("host_key"), key)?;
        }
        Ok(())
    };
    write().map_err(failure::of_host("cannot write the keys of the machine"))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_reads_them() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("m");
        let request = CreateRequest {
            name: "m".to_owned(),
            token: "t".to_owned(),
            authorized_key: "ssh-ed25519 AAAA x".to_owned(),
            host_key: Some("secret\n".to_owned()),
        };
        write(&folder, &request).unwrap();
        write(&folder, &request).unwrap();
        for (name, text) in [
            ("authorized_keys", "ssh-ed25519 AAAA x\n"),
            ("host_key", "secret\n"),
        ] {
            let path = folder.join(name);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
}
