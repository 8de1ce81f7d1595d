//! The binaries for hosts: `<root>/<arch>/{windlassd,windlass-ingress,windlass-local-init}.gz`.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::probe::Arch;

/// A folder of binaries. Clones share what was read.
#[derive(Clone, Debug)]
pub struct Binaries {
    root: PathBuf,
    engines: Arc<Mutex<HashMap<PathBuf, EngineBinary>>>,
}

/// The engine's program for one architecture.
#[derive(Clone, Debug)]
pub struct EngineBinary {
    /// The file as it lies here.
    pub compressed: Arc<[u8]>,
    /// Hex SHA-256 of the program.
    pub digest: String,
    /// Bytes of the program.
    pub size: u64,
}

impl Binaries {
    /// Nothing is read yet.
    pub fn new(root: impl AsRef<Path>) -> Self {
        Self {
            root: root.as_ref().to_owned(),
            engines: Arc::default(),
        }
    }

    /// A program, unpacked; `arch` as the folders are called.
    pub async fn read(&self, arch: &str, name: &str) -> Result<Vec<u8>> {
        let path = self.path(arch, name);
        blocking(move || {
            let compressed = read(&path)?;
            unpack(&path, &compressed)
        })
        .await
    }

    /// The engine for a host. Read once.
    pub async fn engine(&self, arch: Arch) -> Result<EngineBinary> {
        let path = self.path(arch.name(), "windlassd");
        let engines = self.engines.clone();
        blocking(move || {
            let mut engines = engines.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(engine) = engines.get(&path) {
                return Ok(engine.clone());
            }
            let compressed = read(&path)?;
            let program = unpack(&path, &compressed)?;
            let engine = EngineBinary {
                digest: hex::encode(Sha256::digest(&program)),
                size: program.len() as u64,
                compressed: compressed.into(),
            };
            engines.insert(path, engine.clone());
            Ok(engine)
        })
        .await
    }

    fn path(&self, arch: &str, name: &str) -> PathBuf {
        self.root.join(arch).join(format!("{name}.gz"))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs_err::read(path).map_err(Error::Binary)
}

fn unpack(path: &Path, compressed: &[u8]) -> Result<Vec<u8>> {
    let mut program = Vec::new();
    let unpacked = GzDecoder::new(compressed).read_to_end(&mut program);
    unpacked.map_err(|source| Error::Broken {
        path: path.to_owned(),
        source,
    })?;
    Ok(program)
}

impl EngineBinary {
    /// The program itself, for a host that cannot unpack.
    pub(crate) async fn unpacked(&self) -> Result<Vec<u8>> {
        let compressed = self.compressed.clone();
        blocking(move || unpack(Path::new("windlassd.gz"), &compressed)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::Binary(std::io::Error::other(e))))
}
