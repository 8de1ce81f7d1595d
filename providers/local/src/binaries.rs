//! The engine and the machines' init, unpacked from what windlass ships for hosts.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use fs_err as fs;
use sha2::{Digest as _, Sha256};
use windlass_provider::{ErrorKind, ProviderError, Result};

use crate::failure;

/// A program that can be run on this computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it is; the name has its digest, so that another version is another file.
    pub path: PathBuf,
}

/// Unpacks `<binaries>/<arch>/<name>.gz` into `folder`, unless it is there. Without `binaries`, the one unpacked last is used.
pub fn unpack(binaries: Option<&Path>, name: &str, folder: &Path) -> Result<Program> {
    let latest = folder.join(name);
    let Some(binaries) = binaries else {
        return fs::canonicalize(&latest)
            .map(|path| Program { path })
            .map_err(|_| missing(name, None));
    };
    let packed = binaries
        .join(std::env::consts::ARCH)
        .join(format!("{name}.gz"));
    let bytes = match fs::read(&packed) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(missing(name, Some(&packed)));
        }
        Err(error) => return Err(failure::of_host("cannot read a binary for hosts")(error)),
    };
    let digest = hex::encode(Sha256::digest(&bytes));
    let path = folder.join(format!("{name}-{}", &digest[..16]));
    if !path.exists() {
        write(&bytes, &path).map_err(failure::of_host("cannot unpack a binary for hosts"))?;
    }
    remember(&path, &latest).map_err(failure::of_host("cannot unpack a binary for hosts"))?;
    Ok(Program { path })
}

fn write(packed: &[u8], path: &Path) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes)?;
    let mut file = tempfile_beside(path)?;
    file.0.write_all(&bytes)?;
    file.0
        .set_permissions(std::fs::Permissions::from_mode(0o755))?;
    // Closed before the rename: a file that is open for writing cannot be run.
    drop(file.0);
    fs::rename(&file.1, path)
}

/// A file that no other process writes, in the same folder.
fn tempfile_beside(path: &Path) -> std::io::Result<(fs::File, PathBuf)> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    Ok((fs::File::create(&temporary)?, temporary))
}

fn remember(path: &Path, latest: &Path) -> std::io::Result<()> {
    let Some(name) = path.file_name() else {
        return Ok(());
    };
    if fs::read_link(latest).is_ok_and(|target| target.as_os_str() == name) {
        return Ok(());
    }
    let temporary = latest.with_extension(format!("{}.link", std::process::id()));
    let _ = fs::remove_file(&temporary);
    fs::os::unix::fs::symlink(name, &temporary)?;
    fs::rename(&temporary, latest)
}

fn missing(name: &str, looked: Option<&Path>) -> ProviderError {
    let message = match looked {
        Some(path) => format!(
            "driver `local` needs the binary `{name}`, and {} is not there",
            path.display()
        ),
        None => format!("driver `local` needs the binary `{name}`, and none was found"),
    };
    ProviderError::new(ErrorKind::Unsupported, message).with_hint(
        "`cargo xtask binaries` builds the binaries for hosts and prints their folder, to be given as WINDLASS_BINARIES",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

    fn pack(folder: &Path, name: &str, content: &[u8]) {
        let folder = folder.join(std::env::consts::ARCH);
        fs::create_dir_all(&folder).unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        fs::write(folder.join(format!("{name}.gz")), encoder.finish().unwrap()).unwrap();
    }

    #[test]
    fn unpacked_by_digest_and_found_again() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let error = unpack(Some(from.path()), "prog", to.path()).unwrap_err();
        assert!(error.message.contains("prog.gz is not there"), "{error}");
        assert!(error.hint.unwrap().contains("cargo xtask binaries"));
        assert!(unpack(None, "prog", to.path()).is_err());
        pack(from.path(), "prog", b"one");
        let one = unpack(Some(from.path()), "prog", to.path()).unwrap();
        assert_eq!(fs::read(&one.path).unwrap(), b"one");
        assert_eq!(unpack(Some(from.path()), "prog", to.path()).unwrap(), one);
        pack(from.path(), "prog", b"two");
        let two = unpack(Some(from.path()), "prog", to.path()).unwrap();
        assert_ne!(one, two);
        assert_eq!(fs::read(&one.path).unwrap(), b"one", "in use, perhaps");
        let last = unpack(None, "prog", to.path()).unwrap();
        assert_eq!(fs::read(last.path).unwrap(), b"two");
        let mode = fs::metadata(two.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}
