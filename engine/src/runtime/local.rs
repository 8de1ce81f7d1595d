//! The engine's side: starts shims, talks with them, takes away what they leave.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::container::error::{Error, Result};
use crate::container::parts::{Attachment, Exit, ProcessSpec, RunSpec, Runtime};

/// Runs containers on this host.
#[derive(Debug, Clone)]
pub struct LocalRuntime {
    folder: PathBuf,
    program: PathBuf,
}

impl LocalRuntime {
    /// `run` is the engine's folder of what lasts until the next boot; shims are this very program.
    pub fn open(run: &Path) -> anyhow::Result<Self> {
        Self::open_with(run, PathBuf::from("/proc/self/exe"))
    }

    /// With another program for the shims.
    pub fn open_with(run: &Path, shim_program: PathBuf) -> anyhow::Result<Self> {
        let folder = run.join("shim");
        fs_err::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            program: shim_program,
        })
    }

    fn missing(&self) -> Error {
        Error::not_implemented(format!(
            "{} starts no shims in {} yet",
            self.program.display(),
            self.folder.display()
        ))
    }
}

#[async_trait]
impl Runtime for LocalRuntime {
    async fn create(&self, _spec: &RunSpec) -> Result<i32> {
        Err(self.missing())
    }
    async fn start(&self, _id: &str) -> Result<()> {
        Err(self.missing())
    }
    async fn wait(&self, _id: &str) -> Result<Exit> {
        Err(self.missing())
    }
    async fn alive(&self, _id: &str) -> Option<i32> {
        None
    }
    async fn signal(&self, _id: &str, _signal: i32) -> Result<()> {
        Err(self.missing())
    }
    async fn pause(&self, _id: &str) -> Result<()> {
        Err(self.missing())
    }
    async fn resume(&self, _id: &str) -> Result<()> {
        Err(self.missing())
    }
    async fn attach(&self, _id: &str) -> Result<Attachment> {
        Err(self.missing())
    }
    async fn resize(
        &self,
        _id: &str,
        _exec: Option<&str>,
        _rows: u16,
        _columns: u16,
    ) -> Result<()> {
        Err(self.missing())
    }
    async fn exec(
        &self,
        _id: &str,
        _exec: &str,
        _process: &ProcessSpec,
    ) -> Result<(i32, Attachment)> {
        Err(self.missing())
    }
    async fn wait_exec(&self, _id: &str, _exec: &str) -> Result<Exit> {
        Err(self.missing())
    }
    async fn delete(&self, _id: &str) -> Result<()> {
        Ok(())
    }
}
