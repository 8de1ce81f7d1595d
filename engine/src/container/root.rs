//! A container's root from outside, with everything that is mounted in it, also while it does not run.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::error::{Error, Result};
use super::record::{Record, Status};
use super::registry::Container;
use super::{Engine, files, rooted};
use crate::runtime::user_namespace::Assumed;
use crate::userns::Maps;

/// A container's root, kept mounted while this lives.
pub struct Root {
    engine: Arc<Engine>,
    container: Arc<Container>,
    /// It does not run: what was mounted for this is taken back.
    is_own: bool,
    fd: Arc<OwnedFd>,
    /// Keeps the mounts that are seen from here alone.
    namespace: Option<fs::File>,
    maps: Option<Maps>,
}

impl Root {
    /// The root's descriptor.
    pub fn fd(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }

    /// Its files' owners are shifted by these.
    pub fn maps(&self) -> Option<Maps> {
        self.maps.clone()
    }

    /// The container whose it is.
    pub fn container(&self) -> &Arc<Container> {
        &self.container
    }

    /// Unmounts it, if it was mounted for this.
    pub async fn close(self) {
        drop(self.fd);
        drop(self.namespace);
        if self.is_own {
            let _one = self.container.operation.lock().await;
            if !self.container.status().has_process() {
                self.engine.release_sources(&self.container).await.ok();
                self.engine.images.unmount(&self.container.id).await.ok();
            }
        }
    }

    /// Tells everybody what was done with it.
    pub fn tell(&self, action: &str) {
        self.engine.tell(&self.container, action);
    }

    /// Refuses a folder whose content must not be changed.
    pub fn check_writable(&self, path: &str) -> Result<()> {
        let Ok(folder) = rooted::open(self.fd.as_fd(), Path::new(path), OFlag::O_PATH) else {
            // What is not there is refused by whoever looks for it.
            return Ok(());
        };
        let inside = inside(&self.fd, &folder)?;
        let mounts = self.container.read(|r| r.mounts.clone());
        let over = mounts
            .iter()
            .filter(|m| inside.starts_with(files::normal(Path::new(&m.destination))))
            .max_by_key(|m| m.destination.len());
        let read_only = self.container.read(|r| r.host_config.readonly_rootfs);
        match over {
            Some(mount) if !mount.rw => Err(Error::invalid("mounted volume is marked read-only")),
            None if read_only => Err(Error::invalid("container rootfs is marked read-only")),
            _ => Ok(()),
        }
    }
}

/// Where an open file is, seen from the root.
fn inside(root: &OwnedFd, file: &OwnedFd) -> std::io::Result<PathBuf> {
    let root = std::fs::read_link(rooted::path_of(root))?;
    let path = std::fs::read_link(rooted::path_of(file))?;
    Ok(Path::new("/").join(path.strip_prefix(root).unwrap_or(&path)))
}

impl Engine {
    /// Opens a container's root: of the running process, or mounted for the purpose with all that belongs in it.
    pub async fn open_root(self: &Arc<Self>, id: &str) -> Result<Root> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        let record = container.snapshot();
        let pid = record.state.pid;
        match record.state.status {
            Status::Running | Status::Paused => {
                let fd = rooted::open_root(Path::new(&format!("/proc/{pid}/root")))?;
                if !is_of(pid, &container.id) {
                    return Err(Error::conflict(format!(
                        "container {} has just ended",
                        container.id
                    )));
                }
                let maps = Maps::of_process(pid).map_err(Error::internal)?;
                Ok(self.root(&container, false, (fd, None), maps))
            }
            Status::Removing | Status::Dead => Err(being_removed(&container)),
            _ => {
                let remap = self.remap_of(&record.host_config);
                let maps = remap.as_ref().map(|remap| remap.maps.clone());
                let mounted = self.images.mount(&container.id, &record.image_id, remap);
                let rootfs = mounted.await?;
                let opened = match self.hold_sources(&record).await {
                    Ok(sources) => {
                        let over = mounts(&container, &record, &sources);
                        // A first run would make it.
                        let folder = (record.state.status == Status::Created)
                            .then(|| PathBuf::from(&record.config.working_dir));
                        let root = maps.as_ref().map(Maps::root);
                        blocking(move || with_mounts(&rootfs, &over, folder, root)).await
                    }
                    Err(error) => Err(error),
                };
                if opened.is_err() {
                    self.release_sources(&container).await.ok();
                    self.images.unmount(&container.id).await.ok();
                }
                let (fd, namespace) = opened?;
                Ok(self.root(&container, true, (fd, Some(namespace)), maps))
            }
        }
    }

    /// Opens the image's files and the container's own, without anything mounted over them.
    pub async fn open_layers(self: &Arc<Self>, id: &str) -> Result<Root> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        let record = container.snapshot();
        let status = record.state.status;
        if matches!(status, Status::Removing | Status::Dead) {
            return Err(being_removed(&container));
        }
        let remap = self.remap_of(&record.host_config);
        let maps = match status.has_process() {
            true => Maps::of_process(record.state.pid).map_err(Error::internal)?,
            false => remap.as_ref().map(|remap| remap.maps.clone()),
        };
        let mounted = self.images.mount(&container.id, &record.image_id, remap);
        let fd = rooted::open_root(&mounted.await?)?;
        Ok(self.root(&container, !status.has_process(), (fd, None), maps))
    }

    fn root(
        self: &Arc<Self>,
        container: &Arc<Container>,
        is_own: bool,
        (fd, namespace): (OwnedFd, Option<fs::File>),
        maps: Option<Maps>,
    ) -> Root {
        Root {
            engine: self.clone(),
            container: container.clone(),
            is_own,
            fd: Arc::new(fd),
            namespace,
            maps,
        }
    }
}

fn being_removed(container: &Container) -> Error {
    Error::conflict(format!("container {} is being removed", container.id))
}

/// Whether the number still means a process of the container: numbers come back, and another process' root may be the host's.
fn is_of(pid: i32, container: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(container))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::internal)?
}

/// One thing to mount over a root.
struct Over {
    source: PathBuf,
    destination: PathBuf,
    is_read_only: bool,
}

/// What a run would mount from the host, in its order.
fn mounts(container: &Container, record: &Record, sources: &[PathBuf]) -> Vec<Over> {
    let files = ["hosts", "hostname", "resolv.conf"].map(|name| Over {
        source: container.folder.join(name),
        destination: Path::new("/etc").join(name),
        is_read_only: false,
    });
    let mut all: Vec<Over> = files.into_iter().filter(|o| o.source.exists()).collect();
    let records = record.mounts.iter().zip(sources);
    all.extend(
        records
            .filter(|(m, _)| m.kind != "tmpfs")
            .map(|(m, source)| Over {
                source: source.join(m.subpath.trim_start_matches('/')),
                destination: PathBuf::from(&m.destination),
                is_read_only: !m.rw,
            }),
    );
    all.sort_by_key(|o| o.destination.components().count());
    all
}

/// Mounts in a namespace that nobody else sees, and that lasts as long as its file is open.
fn with_mounts(
    rootfs: &Path,
    all: &[Over],
    folder: Option<PathBuf>,
    owner: Option<(u32, u32)>,
) -> Result<(OwnedFd, fs::File)> {
    // A thread cannot come back from where it goes here.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<(OwnedFd, fs::File)> {
            let none: Option<&str> = None;
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
                .map_err(std::io::Error::from)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).map_err(std::io::Error::from)?;
            let root = rooted::open_root(rootfs)?;
            let _owner = owner.map(Assumed::new).transpose()?;
            for over in all {
                // A source that has gone since is no reason to refuse everything else.
                if let Err(error) = put_over(&root, over) {
                    tracing::debug!(%error, at = %over.destination.display(), "not mounted");
                }
            }
            if let Some(folder) = &folder {
                // Where a file is in its way the run says so.
                rooted::make_directories(root.as_fd(), folder).ok();
            }
            let namespace = fs::File::open("/proc/thread-self/ns/mnt")?;
            Ok((root, namespace))
        });
        thread
            .join()
            .map_err(|_| Error::message("the mounting thread stopped"))?
    })
}

fn put_over(root: &OwnedFd, over: &Over) -> std::io::Result<()> {
    let source = fs::File::open(&over.source)?;
    let is_folder = source.metadata()?.is_dir();
    let open = || rooted::open(root.as_fd(), &over.destination, OFlag::O_PATH);
    let target = match open() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            make_stub(root, &over.destination, is_folder)?;
            open()?
        }
        other => other?,
    };
    let none: Option<&str> = None;
    let from = format!("/proc/thread-self/fd/{}", source.as_raw_fd());
    let at = format!("/proc/thread-self/fd/{}", target.as_raw_fd());
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from.as_str()), at.as_str(), none, bind, none)?;
    if over.is_read_only {
        let top = open()?;
        let at = format!("/proc/thread-self/fd/{}", top.as_raw_fd());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, at.as_str(), none, flags, none)?;
    }
    Ok(())
}

/// What a first run would make too.
fn make_stub(root: &OwnedFd, path: &Path, is_folder: bool) -> std::io::Result<()> {
    if is_folder {
        return rooted::make_directories(root.as_fd(), path).map(drop);
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = rooted::make_directories(root.as_fd(), parent)?;
    let name = path.file_name().unwrap_or_default();
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(rooted::path_of(&parent).join(name))?;
    Ok(())
}
