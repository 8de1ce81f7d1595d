//! What mounts need on the host: volumes filled when a container is made, volumes and images mounted before it starts
//! and let go of after its end, sources of binds checked.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::fcntl::OFlag;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::error::{Error, Result};
use super::parts::MountSpec;
use super::record::Record;
use super::registry::Container;
use super::{Engine, MountRecord, rooted};

impl Engine {
    /// Makes what a new container's volumes lack; the answer is the anonymous ones, which are taken away again on failure.
    pub(super) async fn make_volumes(&self, record: &mut Record) -> Result<Vec<String>> {
        let mut made = Vec::new();
        let mut done = self.create_volumes(record, &mut made);
        if done.is_ok() {
            done = self.fill_volumes(record).await;
        }
        match done {
            Ok(()) => Ok(made),
            Err(error) => {
                for name in made {
                    self.volumes.remove(&name).ok();
                }
                Err(error)
            }
        }
    }

    fn create_volumes(&self, record: &mut Record, anonymous: &mut Vec<String>) -> Result<()> {
        for mount in record.mounts.iter_mut().filter(|m| m.kind == "volume") {
            let new = mount.name.is_empty() || self.volumes.find(&mount.name).is_err();
            let labels = std::mem::take(&mut mount.labels);
            let options = std::mem::take(&mut mount.driver_options);
            let volume = self.volumes.create(&mount.name, labels, options)?;
            if new {
                self.tell_volume("create", &volume.name, &[]);
            }
            if mount.name.is_empty() {
                anonymous.push(volume.name.clone());
            }
            mount.name = volume.name;
            mount.source = volume.mountpoint;
        }
        for mount in record.mounts.iter_mut().filter(|m| m.kind == "image") {
            mount.name = self.images.find(&mount.name)?.id;
        }
        Ok(())
    }

    /// Copies the image's files into volumes that are empty.
    async fn fill_volumes(&self, record: &Record) -> Result<()> {
        let empty = |m: &&MountRecord| {
            let files = std::fs::read_dir(&m.source).map(|mut entries| entries.next().is_some());
            m.kind == "volume" && m.copy && matches!(files, Ok(false))
        };
        let wanted: Vec<MountRecord> = record.mounts.iter().filter(empty).cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let id = &record.id;
        // Volumes hold the host's ids.
        let remap = self.remap_of(&record.host_config);
        let rootfs = self.images.mount(id, &record.image_id, remap).await?;
        let (volumes, user) = (self.volumes.clone(), id.clone());
        let filled = blocking(move || {
            wanted.iter().try_for_each(|mount| {
                let Some(from) = shown_by_image(&rootfs, &mount.destination)? else {
                    return Ok(());
                };
                volumes.mount(&mount.name, &user)?;
                let filled = fill(volumes.as_ref(), mount, &user, &from);
                volumes.unmount(&mount.name, &user)?;
                filled
            })
        })
        .await;
        let unmounted = self.images.unmount(id).await;
        if filled.is_err() {
            self.images.discard(id).await.ok();
        }
        filled.and(unmounted)
    }

    /// Before a start: the source of every mount, in their order.
    pub(super) async fn hold_sources(&self, record: &Record) -> Result<Vec<PathBuf>> {
        let mut sources = Vec::new();
        for (number, mount) in record.mounts.iter().enumerate() {
            sources.push(match mount.kind.as_str() {
                "volume" => {
                    let (volumes, name) = (self.volumes.clone(), mount.name.clone());
                    let user = record.id.clone();
                    blocking(move || volumes.mount(&name, &user)).await?;
                    self.tell_mounted(&record.id, mount);
                    PathBuf::from(&mount.source)
                }
                "image" => {
                    let layer = image_layer(&record.id, number);
                    let remap = self.remap_of(&record.host_config);
                    self.images.mount(&layer, &mount.name, remap).await?
                }
                _ => PathBuf::from(&mount.source),
            });
        }
        Ok(sources)
    }

    /// After an end, or a start that failed.
    pub(super) async fn release_sources(&self, container: &Container) -> Result<()> {
        let mut outcome = Ok(());
        for (number, mount) in container.read(|r| r.mounts.clone()).iter().enumerate() {
            let released = match mount.kind.as_str() {
                "volume" => {
                    let was = self.volumes.unmount(&mount.name, &container.id);
                    if matches!(was, Ok(true)) {
                        let attributes = [("container", container.id.as_str())];
                        self.tell_volume("unmount", &mount.name, &attributes);
                    }
                    was.map(drop)
                }
                "image" => {
                    let layer = image_layer(&container.id, number);
                    self.images.unmount(&layer).await
                }
                _ => Ok(()),
            };
            outcome = outcome.and(released);
        }
        outcome
    }

    /// The writable layers over images that are mounted into it.
    pub(super) async fn discard_image_mounts(&self, container: &Container) -> Result<()> {
        let mounts = container.read(|r| r.mounts.clone());
        for (number, _) in mounts.iter().enumerate().filter(|(_, m)| m.kind == "image") {
            let layer = image_layer(&container.id, number);
            self.images.discard(&layer).await?;
        }
        Ok(())
    }

    /// A container that still runs keeps its volumes mounted.
    pub(super) fn adopt_sources(&self, container: &Container) {
        for mount in container.read(|r| r.mounts.clone()) {
            if mount.kind != "volume" {
                continue;
            }
            if let Err(error) = self.volumes.mount(&mount.name, &container.id) {
                tracing::warn!(id = container.id, %error, "a volume of a running container");
            }
        }
    }

    /// An event of a volume.
    pub fn tell_volume(&self, action: &str, name: &str, more: &[(&str, &str)]) {
        let more = more.iter().copied().chain([("driver", "local")]);
        let attributes = more.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        self.events.publish("volume", action, name, attributes);
    }

    fn tell_mounted(&self, container: &str, mount: &MountRecord) {
        let writable = if mount.rw { "true" } else { "false" };
        let attributes = [
            ("container", container),
            ("destination", &mount.destination),
            ("propagation", &mount.propagation),
            ("read/write", writable),
        ];
        self.tell_volume("mount", &mount.name, &attributes);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::internal)?
}

/// The name of the writable layer over an image that is mounted into a container.
fn image_layer(container: &str, number: usize) -> String {
    format!("{container}-image-{number}")
}

/// The image's folder at the place of a volume, if it has one.
fn shown_by_image(
    rootfs: &Path,
    destination: &str,
) -> std::io::Result<Option<std::os::fd::OwnedFd>> {
    let root = rooted::open_root(rootfs)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    match rooted::open(root.as_fd(), Path::new(destination), flags) {
        Ok(folder) => Ok(Some(folder)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

fn fill(
    volumes: &dyn super::parts::Volumes,
    mount: &MountRecord,
    user: &str,
    from: &std::os::fd::OwnedFd,
) -> Result<()> {
    let failed = |e: Error| {
        Error::new(
            e.kind,
            format!("filling volume {}: {}", mount.name, e.message),
        )
    };
    if mount.subpath.is_empty() {
        let mut copy = |to: &Path| rooted::copy_directory(from, to);
        return volumes.fill(&mount.name, user, &mut copy).map_err(failed);
    }
    // What is not there is complained about when it starts.
    let Ok(inside) = within(Path::new(&mount.source), &mount.subpath) else {
        return Ok(());
    };
    let to = rooted::path_of(&inside);
    let empty = fs::read_dir(&to).is_ok_and(|mut entries| entries.next().is_none());
    if empty {
        rooted::copy_directory(from, &to).map_err(|e| failed(e.into()))?;
    }
    Ok(())
}

/// A path in a volume or image that does not lead out of it, whatever links say.
fn within(source: &Path, subpath: &str) -> Result<std::os::fd::OwnedFd> {
    let root = rooted::open_root(source)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root.as_fd(), subpath, flags, Mode::empty(), resolve).map_err(|errno| {
        let base = source.display();
        Error::invalid(match errno {
            rustix::io::Errno::XDEV => format!(
                "path concatenation escapes the base directory, base: \"{base}\", subpath: \"{subpath}\""
            ),
            errno => format!(
                "cannot access path {base}/{subpath}: {}",
                std::io::Error::from(errno)
            ),
        })
    })
}

/// Checks a mount's source, or makes it, just before the start.
pub(super) fn ready(mount: &MountRecord, source: PathBuf) -> Result<MountSpec> {
    match mount.kind.as_str() {
        "bind" => {
            match fs::metadata(&source) {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && mount.make_source => {
                    fs::create_dir_all(&source).map_err(|e| {
                        Error::message(format!(
                            "error while creating mount source path '{}': {e}",
                            mount.source
                        ))
                    })?
                }
                Err(_) => {
                    return Err(Error::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        mount.source
                    )));
                }
            }
            check_propagation(&source, &mount.propagation)?;
        }
        // It is opened again when it is mounted: until then others may change what is there.
        "volume" | "image" if !mount.subpath.is_empty() => {
            drop(within(&source, &mount.subpath)?);
        }
        _ => {}
    }
    Ok(MountSpec {
        record: mount.clone(),
        source,
    })
}

/// Mounts spread from or to the host only where the host's own mount does.
fn check_propagation(source: &Path, propagation: &str) -> Result<()> {
    let wanted = propagation.trim_start_matches('r');
    if !matches!(wanted, "shared" | "slave") {
        return Ok(());
    }
    let source = fs::canonicalize(source)?;
    let text = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let (point, spreads) = spreading(&text, &source);
    let refuse = |what: &str| {
        Err(Error::message(format!(
            "path {} is mounted on {} but it is not a {what} mount",
            source.display(),
            point.display()
        )))
    };
    match (wanted, spreads) {
        ("shared", Spreads::No | Spreads::Slave) => refuse("shared"),
        ("slave", Spreads::No) => refuse("shared or slave"),
        _ => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spreads {
    No,
    Slave,
    Shared,
}

/// The mount that a path lies on, by `mountinfo`, and how mounts below it spread.
fn spreading(mountinfo: &str, path: &Path) -> (PathBuf, Spreads) {
    let mut best = (PathBuf::from("/"), Spreads::No);
    for line in mountinfo.lines() {
        let mut fields = line.split(' ').skip(4);
        let point = PathBuf::from(fields.next().unwrap_or_default().replace("\\040", " "));
        if !path.starts_with(&point) || point.as_os_str().len() < best.0.as_os_str().len() {
            continue;
        }
        let optional: Vec<&str> = fields.skip(1).take_while(|f| *f != "-").collect();
        let has = |name: &str| optional.iter().any(|f| f.starts_with(name));
        let spreads = match (has("shared:"), has("master:")) {
            (true, _) => Spreads::Shared,
            (_, true) => Spreads::Slave,
            _ => Spreads::No,
        };
        best = (point, spreads);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_mounts_spread() {
        let text = "1 0 0:1 / / rw shared:1 - ext4 /dev/x rw\n\
            2 1 0:2 / /srv rw master:3 - tmpfs t rw\n\
            3 2 0:2 / /srv/own rw - tmpfs t rw\n";
        for (path, point, spreads) in [
            ("/etc", "/", Spreads::Shared),
            ("/srv/x", "/srv", Spreads::Slave),
            ("/srv/own/x", "/srv/own", Spreads::No),
            ("/srvx", "/", Spreads::Shared),
        ] {
            let found = spreading(text, Path::new(path));
            assert_eq!(found, (PathBuf::from(point), spreads), "{path}");
        }
    }

    #[test]
    fn no_path_out_of_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("v/a")).unwrap();
        fs::write(dir.path().join("v/a/f"), "").unwrap();
        for (name, to) in [("good", "a"), ("up", "../.."), ("absolute", "/etc")] {
            std::os::unix::fs::symlink(to, dir.path().join("v").join(name)).unwrap();
        }
        let volume = dir.path().join("v");
        for good in ["a", "a/f", "good/f", "a/../good"] {
            assert!(within(&volume, good).is_ok(), "{good}");
        }
        for (bad, words) in [
            ("up", "escapes the base directory"),
            ("absolute", "escapes the base directory"),
            ("nothing", "cannot access path"),
        ] {
            let error = within(&volume, bad).unwrap_err().message;
            assert!(error.contains(words), "{error}");
        }
    }
}
