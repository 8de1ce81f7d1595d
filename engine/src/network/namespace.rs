//! Network namespaces that stay without a process, each pinned by a mount on a file.
//!
//! Deliberately absent: what is in them (`link`).

use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use fs_err as fs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::runtime::user_namespace::{self, Owner};
use crate::userns::Maps;

const OWN: &str = "/proc/thread-self/ns/net";

/// Makes a namespace and pins it at `path`, then does `work` in it; it gets the engine's own namespace.
/// What was pinned there before is let go. With `user` it belongs to a new user namespace with these ids.
pub async fn make<T: Send + 'static>(
    path: &Path,
    user: Option<Maps>,
    work: impl FnOnce(&File) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    remove(path)?;
    let path = path.to_owned();
    on_thread(move || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create(&path)?;
        let home = fs::File::open(OWN)?.into_parts().0;
        match user {
            None => unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?,
            Some(maps) => enter_owned(&maps)?,
        }
        let nothing: Option<&str> = None;
        mount(Some(OWN), &path, nothing, MsFlags::MS_BIND, nothing)
            .with_context(|| format!("pin the network namespace at {}", path.display()))?;
        work(&home)
    })
    .await
}

fn enter_owned(maps: &Maps) -> anyhow::Result<()> {
    let kind = CloneFlags::CLONE_NEWNET;
    let made = user_namespace::make(Owner::New(maps), &[("net", kind)])?;
    for (namespace, kind) in &made.others {
        setns(namespace, *kind).context("enter the network namespace")?;
    }
    Ok(())
}

/// Does `work` in a pinned namespace.
pub async fn within<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let path = path.to_owned();
    on_thread(move || {
        let namespace = fs::File::open(&path)?.into_parts().0;
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter {}", path.display()))?;
        work()
    })
    .await
}

/// Lets a namespace go; nothing there is success.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not there, or a file left from before the host's last start.
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
        Err(error) => return Err(error).with_context(|| format!("unmount {}", path.display())),
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// A thread of its own: its namespace changes, so that it can serve nobody else afterwards.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            sender.send(work()).ok();
        })
        .context("start a thread")?;
    result
        .await
        .map_err(|_| anyhow::anyhow!("the work in a network namespace broke off"))?
}
