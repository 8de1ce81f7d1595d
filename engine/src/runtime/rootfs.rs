//! Builds what a container sees of files, from inside its new mount namespace, and makes that its root.
//!
//! No path leads out of the container's root while this runs on the host's side: targets are opened in it, never named.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::cgroup::Group;
use super::sys::{self, Recursive};
use super::task::{Device, Isolation, MountPlan, Namespace};
use crate::container::rooted;

const NOTHING: Option<&str> = None;

/// Mounts everything and makes it the root. `group` is the container's control group.
pub fn enter(isolation: &Isolation, group: &Group) -> Result<()> {
    let trees = take_trees(isolation)?;
    let root = prepare(isolation)?;
    let old = nix::sys::stat::umask(Mode::empty());
    mark(root.as_fd());
    for wanted in &isolation.mounts {
        if let Some((_, tree)) = trees.iter().find(|(at, _)| *at == wanted.target) {
            sys::move_mount(tree.as_fd(), target(root.as_fd(), wanted)?.as_fd())
                .with_context(|| format!("mount at {}", wanted.target))?;
            continue;
        }
        mount_one(root.as_fd(), wanted, isolation, group)
            .with_context(|| format!("mount {} at {}", wanted.source, wanted.target))?;
        if wanted.target == "/dev" && wanted.kind == "tmpfs" {
            devices(root.as_fd(), isolation)?;
        }
    }
    nix::sys::stat::umask(old);
    pivot(&isolation.rootfs)
}

/// Copies of other containers' mounts, by where they go: only from within their namespace can they be taken.
fn take_trees(isolation: &Isolation) -> Result<Vec<(&str, OwnedFd)>> {
    let mut trees = Vec::new();
    for wanted in isolation.mounts.iter().filter(|m| m.kind == "tree") {
        let own = fs_err::File::open("/proc/self/ns/mnt")?;
        let other = fs_err::File::open(&wanted.source)?;
        setns(other.file(), CloneFlags::CLONE_NEWNS).context("visit the other container")?;
        let path = std::ffi::CString::new(wanted.data.as_str())?;
        let tree = sys::detached_mount(&path);
        setns(own.file(), CloneFlags::CLONE_NEWNS).context("come back")?;
        let tree = tree.with_context(|| format!("take {} of the other container", wanted.data))?;
        trees.push((wanted.target.as_str(), tree));
    }
    Ok(trees)
}

/// The new root as a mount that nothing is shared with.
fn prepare(isolation: &Isolation) -> Result<OwnedFd> {
    let shared = MsFlags::MS_SHARED.bits();
    if !isolation.mounts.iter().any(|m| m.propagation & shared != 0) {
        let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(NOTHING, "/", NOTHING, flags, NOTHING).context("leave the host's mounts")?;
    }
    let rootfs = isolation.rootfs.as_path();
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(rootfs), rootfs, NOTHING, bind, NOTHING)
        .with_context(|| format!("bind the root file system {}", rootfs.display()))?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(NOTHING, rootfs, NOTHING, private, NOTHING).context("make the root private")?;
    Ok(rooted::open_root(rootfs)?)
}

/// `/.dockerenv`, by which programs tell that they run in a container. A root that takes no files goes without.
fn mark(root: BorrowedFd<'_>) {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(openat(
        root,
        ".dockerenv",
        flags,
        Mode::from_raw_mode(0o755),
    ));
}

/// A place inside as a path: it is one for as long as this lives.
struct Point {
    path: PathBuf,
    _open: OwnedFd,
}

impl std::ops::Deref for Point {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

fn point(open: OwnedFd) -> Point {
    Point {
        path: rooted::path_of(&open),
        _open: open,
    }
}

fn place(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    Ok(rooted::open(root, Path::new(path), OFlag::O_PATH)?)
}

/// What a bind shows. A path within a volume is not named: another container may put a link in its place.
fn shown(wanted: &MountPlan) -> Result<Point> {
    let source = Path::new(&wanted.source);
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let source = rustix::fs::open(source, flags, rustix::fs::Mode::empty())
        .with_context(|| source.display().to_string())?;
    if wanted.data.is_empty() {
        return Ok(point(source));
    }
    let inside = rooted::open(source.as_fd(), Path::new(&wanted.data), OFlag::O_PATH)?;
    Ok(point(inside))
}

/// The mount point, made when it is missing.
fn target(root: BorrowedFd<'_>, wanted: &MountPlan) -> Result<OwnedFd> {
    let path = Path::new(&wanted.target);
    if let Ok(found) = rooted::open(root, path, OFlag::O_PATH) {
        return Ok(found);
    }
    let is_file = wanted.kind == "bind" && !fs_err::metadata(&*shown(wanted)?)?.is_dir();
    if !is_file {
        rooted::make_directories(root, path)?;
        return place(root, &wanted.target);
    }
    rooted::make_directories(root, path.parent().unwrap_or(Path::new("/")))?;
    let inside = path.strip_prefix("/").unwrap_or(path);
    let flags =
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::openat2(
        root,
        inside,
        flags,
        rustix::fs::Mode::from_raw_mode(0o644),
        rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_MAGICLINKS,
    )?;
    place(root, &wanted.target)
}

fn mount_one(
    root: BorrowedFd<'_>,
    wanted: &MountPlan,
    isolation: &Isolation,
    group: &Group,
) -> Result<()> {
    let former = rooted::open(root, Path::new(&wanted.target), OFlag::O_PATH);
    let at = point(target(root, wanted)?);
    if matches!(wanted.kind.as_str(), "bind" | "tmpfs") {
        spare_proc(wanted, &at)?;
    }
    match wanted.kind.as_str() {
        "bind" => bind(root, wanted, &at),
        "cgroup" => cgroups(root, wanted, isolation, group),
        "tmpfs" if !wanted.data.contains("mode=") => {
            // Like the folder that it hides: `/tmp` stays everybody's.
            let mode = former
                .ok()
                .and_then(|folder| std::fs::metadata(rooted::path_of(&folder)).ok())
                .map(|metadata| format!("mode={:o}", metadata.mode() & 0o7777));
            let words = [mode.as_deref(), Some(wanted.data.as_str())];
            let words: Vec<&str> = words
                .into_iter()
                .flatten()
                .filter(|w| !w.is_empty())
                .collect();
            let flags = MsFlags::from_bits_truncate(wanted.flags);
            mount(
                Some("tmpfs"),
                &*at,
                Some("tmpfs"),
                flags,
                Some(words.join(",").as_str()),
            )?;
            spread(root, wanted)
        }
        kind => {
            let flags = MsFlags::from_bits_truncate(wanted.flags);
            let data = Some(wanted.data.as_str()).filter(|d| !d.is_empty());
            mount(Some(wanted.source.as_str()), &*at, Some(kind), flags, data)?;
            spread(root, wanted)
        }
    }
}

/// The files of `/proc` that may be replaced, as runc has them: those that lxcfs makes anew.
const REPLACEABLE: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Refuses what would hide the kernel's own view of the container's processes, or what protects it.
fn spare_proc(wanted: &MountPlan, at: &Path) -> Result<()> {
    let is_proc = |path: &Path| -> Result<bool> {
        Ok(rustix::fs::statfs(path)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
    };
    let normal: PathBuf = Path::new(&wanted.target).components().collect();
    // The root of a procfs has this number; another place for `/proc` itself need not be one yet.
    let is_top = normal == Path::new("/proc") || fs_err::metadata(at)?.ino() == 1;
    if !is_proc(at)? && normal != Path::new("/proc") {
        return Ok(());
    }
    if is_top {
        if wanted.kind == "bind" && is_proc(&shown(wanted)?)? {
            return Ok(());
        }
        anyhow::bail!("{normal:?} cannot be mounted because it is not of type proc");
    }
    if let Ok(inside) = normal.strip_prefix("/proc")
        && REPLACEABLE.iter().any(|file| inside == Path::new(file))
    {
        return Ok(());
    }
    anyhow::bail!("{normal:?} cannot be mounted because it is inside /proc")
}

fn bind(root: BorrowedFd<'_>, wanted: &MountPlan, at: &Path) -> Result<()> {
    let flags = MsFlags::from_bits_truncate(wanted.flags);
    let recursive = flags & MsFlags::MS_REC;
    mount(
        Some(&*shown(wanted)?),
        at,
        NOTHING,
        MsFlags::MS_BIND | recursive,
        NOTHING,
    )?;
    // The target's former descriptor means what lies below the mount; open it again to mean the mount.
    let mounted = place(root, &wanted.target)?;
    if flags.contains(MsFlags::MS_RDONLY) {
        let depth = if recursive.is_empty() || wanted.read_only_top {
            Recursive::No
        } else {
            Recursive::Yes
        };
        read_only(&mounted, depth)?;
    }
    spread(root, wanted)
}

/// What is mounted within it, is it seen elsewhere.
fn spread(root: BorrowedFd<'_>, wanted: &MountPlan) -> Result<()> {
    if wanted.propagation != 0 {
        let kind = MsFlags::from_bits_truncate(wanted.propagation);
        let mounted = place(root, &wanted.target)?;
        mount(NOTHING, &rooted::path_of(&mounted), NOTHING, kind, NOTHING)?;
    }
    Ok(())
}

/// By the new call, or by a remount on kernels before 5.12.
fn read_only(mounted: &OwnedFd, depth: Recursive) -> Result<()> {
    if sys::make_read_only(mounted.as_fd(), depth).is_ok() {
        return Ok(());
    }
    let path = rooted::path_of(mounted);
    let kept = nix::sys::statvfs::statvfs(&path)?.flags().bits()
        & (libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let flags = flags | MsFlags::from_bits_truncate(kept as _);
    mount(NOTHING, &path, NOTHING, flags, NOTHING)?;
    Ok(())
}

/// v2 as it is; of v1 every tree in a small folder of its own.
fn cgroups(
    root: BorrowedFd<'_>,
    wanted: &MountPlan,
    isolation: &Isolation,
    group: &Group,
) -> Result<()> {
    let flags = MsFlags::from_bits_truncate(wanted.flags);
    let at = |path: &str| -> Result<Point> { Ok(point(place(root, path)?)) };
    let base = wanted.target.as_str();
    if group.is_v2() {
        mount(Some("cgroup"), &*at(base)?, Some("cgroup2"), flags, NOTHING)?;
        return Ok(());
    }
    let open = flags - MsFlags::MS_RDONLY;
    mount(
        Some("tmpfs"),
        &*at(base)?,
        Some("tmpfs"),
        open,
        Some("mode=755"),
    )?;
    for hierarchy in &group.hierarchies().0 {
        let name = hierarchy.mountpoint.file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let path = format!("{base}/{name}");
        rooted::make_directories(root, Path::new(&path))?;
        if isolation.cgroup == Namespace::Host {
            let source = group.folder(hierarchy).display().to_string();
            let plan = MountPlan {
                source,
                target: path,
                flags: wanted.flags | MsFlags::MS_BIND.bits(),
                ..MountPlan::default()
            };
            bind(root, &plan, &at(&plan.target)?)?;
            continue;
        }
        let (kind, data) = match hierarchy.options.as_str() {
            "" => ("cgroup2", None),
            options if options.starts_with("name=") => ("cgroup", Some(format!("none,{options}"))),
            options => ("cgroup", Some(options.to_owned())),
        };
        mount(
            Some("cgroup"),
            &*at(&path)?,
            Some(kind),
            flags,
            data.as_deref(),
        )?;
        for part in name.split(',').filter(|part| *part != name) {
            symlink(name.as_ref(), at(base)?.join(part)).ok();
        }
    }
    if flags.contains(MsFlags::MS_RDONLY) {
        read_only(&place(root, base)?, Recursive::No)?;
    }
    Ok(())
}

/// Device files and the links beside them.
fn devices(root: BorrowedFd<'_>, isolation: &Isolation) -> Result<()> {
    let dev = point(place(root, "/dev")?);
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
        ("ptmx", "pts/ptmx"),
    ] {
        if link == "core" && !Path::new(to).exists() {
            continue;
        }
        match symlink(to, dev.join(link)) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("make /dev/{link}"));
            }
            _ => {}
        }
    }
    for device in &isolation.devices {
        make_device(root, device).with_context(|| format!("make {}", device.path))?;
    }
    if isolation.all_devices {
        copy_devices(root, Path::new("/dev"))?;
    }
    Ok(())
}

fn make_device(root: BorrowedFd<'_>, device: &Device) -> Result<()> {
    let path = Path::new(&device.path);
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().context("a device needs a name")?;
    let folder = rooted::make_directories(root, parent)?;
    let path = rooted::path_of(&folder).join(name);
    let kind = SFlag::from_bits_truncate(device.mode & libc::S_IFMT);
    let mode = Mode::from_bits_truncate(device.mode & 0o7777);
    let number = makedev(
        libc::major(device.rdev).into(),
        libc::minor(device.rdev).into(),
    );
    match mknod(&path, kind, mode, number) {
        Err(nix::Error::EEXIST) => return Ok(()),
        done => done?,
    }
    chown(&path, Some(device.owner.0), Some(device.owner.1))?;
    Ok(())
}

/// Every device file of the host that the container does not have yet.
fn copy_devices(root: BorrowedFd<'_>, folder: &Path) -> Result<()> {
    const OWN: [&str; 9] = [
        "pts",
        "shm",
        "fd",
        "mqueue",
        "console",
        "hugepages",
        "ptmx",
        "tty",
        "core",
    ];
    for entry in fs_err::read_dir(folder)?.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if folder == Path::new("/dev") && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            copy_devices(root, &path)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            let device = Device {
                path: path.to_string_lossy().into_owned(),
                mode: metadata.mode(),
                rdev: metadata.rdev(),
                owner: (metadata.uid(), metadata.gid()),
            };
            make_device(root, &device)?;
        }
    }
    Ok(())
}

fn pivot(rootfs: &Path) -> Result<()> {
    let former = rooted::open_root(Path::new("/"))?;
    nix::unistd::chdir(rootfs)?;
    nix::unistd::pivot_root(".", ".").context("change the root file system")?;
    // By its descriptor: `.` is the new root, whose mounts may well be shared with the host.
    nix::unistd::fchdir(former.as_raw_fd())?;
    // The former root now lies over the new one; nothing that happens to it may reach the host.
    let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(NOTHING, ".", NOTHING, flags, NOTHING)?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// After [`enter`]: hides and protects paths, and the root itself.
pub fn protect(isolation: &Isolation) -> Result<()> {
    for path in &isolation.readonly {
        let path = Path::new(path);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        match mount(Some(path), path, NOTHING, flags, NOTHING) {
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => continue,
            done => done.with_context(|| format!("protect {}", path.display()))?,
        }
        read_only(&open_path(path)?, Recursive::Yes)?;
    }
    for path in &isolation.masked {
        mask(Path::new(path)).with_context(|| format!("hide {path}"))?;
    }
    if isolation.readonly_rootfs {
        read_only(&open_path(Path::new("/"))?, Recursive::No)?;
    }
    Ok(())
}

fn open_path(path: &Path) -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

fn mask(path: &Path) -> Result<()> {
    let Ok(metadata) = std::fs::metadata(path) else {
        return Ok(());
    };
    if metadata.is_dir() {
        let data = Some("size=0k");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, data)?;
    } else {
        mount(Some("/dev/null"), path, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    }
    Ok(())
}

/// Puts the container's terminal at `/dev/console`.
pub fn console(number: u32) -> Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = nix::fcntl::open("/dev/console", flags, Mode::from_bits_truncate(0o600));
    if let Ok(fd) = fd {
        nix::unistd::close(fd)?;
    }
    let terminal = format!("/dev/pts/{number}");
    mount(
        Some(terminal.as_str()),
        "/dev/console",
        NOTHING,
        MsFlags::MS_BIND,
        NOTHING,
    )
    .context("mount the console")
}
