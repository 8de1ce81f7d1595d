//! Control groups of the machine's own, for the engine that will run in it.
//!
//! The machine gets a cgroup namespace, so that what it sees as the root is the group that its limits are set on, and the
//! host's hierarchies are mounted anew in it: all of version 1, or version 2 with the first process moved into a leaf,
//! since a group with processes may not hand controllers on.

use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const ROOT: &str = "/sys/fs/cgroup";

/// Sets everything up. To be called before there are threads.
pub fn prepare() -> Result<()> {
    let groups = parse(&fs::read_to_string("/proc/self/cgroup")?);
    if groups.iter().any(|group| group.path != "/") {
        unshare(CloneFlags::CLONE_NEWCGROUP).context("leave the host's cgroup namespace")?;
    }
    unmount_all()?;
    if groups.iter().all(|group| group.is_unified()) {
        mount_unified(ROOT)?;
        return move_to_leaf();
    }
    mount(Some("cgroup"), ROOT, Some("tmpfs"), FLAGS, Some("mode=755")).context(ROOT)?;
    groups.iter().try_for_each(mount_hierarchy)?;
    mount(
        None::<&str>,
        ROOT,
        None::<&str>,
        MsFlags::MS_REMOUNT | FLAGS | MsFlags::MS_RDONLY,
        Some("mode=755"),
    )
    .context(ROOT)
}

const FLAGS: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// A line of `/proc/self/cgroup`.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    /// Comma-separated; `name=…` without controllers; empty for version 2.
    controllers: String,
    path: String,
}

impl Group {
    fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

fn parse(text: &str) -> Vec<Group> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some(Group {
                controllers: parts.next()?.to_owned(),
                path: parts.next()?.to_owned(),
            })
        })
        .collect()
}

fn unmount_all() -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let below = |path: &str| path == ROOT || path.starts_with("/sys/fs/cgroup/");
    let mounted = table.lines().filter_map(|line| line.split(' ').nth(4));
    // The last mounted first: it may lie on an earlier one.
    let mounted: Vec<&str> = mounted.filter(|path| below(path)).collect();
    for path in mounted.into_iter().rev() {
        umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmount {path}"))?;
    }
    Ok(())
}

fn mount_hierarchy(group: &Group) -> Result<()> {
    if group.is_unified() {
        let target = format!("{ROOT}/unified");
        fs::create_dir_all(&target)?;
        return mount_unified(&target);
    }
    let named = group.controllers.strip_prefix("name=");
    let folder = Path::new(ROOT).join(named.unwrap_or(&group.controllers));
    let options = match named {
        Some(_) => format!("none,{}", group.controllers),
        None => group.controllers.clone(),
    };
    fs::create_dir_all(&folder)?;
    mount(
        Some("cgroup"),
        &folder,
        Some("cgroup"),
        FLAGS,
        Some(options.as_str()),
    )
    .with_context(|| folder.display().to_string())?;
    if named.is_none() && group.controllers.contains(',') {
        for controller in group.controllers.split(',') {
            let link = Path::new(ROOT).join(controller);
            fs::os::unix::fs::symlink(&group.controllers, link)?;
        }
    }
    Ok(())
}

fn mount_unified(target: &str) -> Result<()> {
    mount(
        Some("cgroup2"),
        target,
        Some("cgroup2"),
        FLAGS,
        None::<&str>,
    )
    .with_context(|| target.to_owned())
}

/// Version 2: moves this process, which is alone yet, out of the root, and hands the controllers on.
fn move_to_leaf() -> Result<()> {
    let root = Path::new(ROOT);
    let leaf = root.join("init");
    fs::create_dir_all(&leaf)?;
    for pid in fs::read_to_string(root.join("cgroup.procs"))?.lines() {
        fs::write(leaf.join("cgroup.procs"), pid)?;
    }
    for controller in fs::read_to_string(root.join("cgroup.controllers"))?.split_whitespace() {
        // One that cannot be handed on (a realtime process on the host, for one) is no reason to have no machine.
        let _ = fs::write(
            root.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc() {
        let groups = parse("12:cpu,cpuacct:/windlass/a:b\n1:name=systemd:/\n0::/\n");
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[0].controllers, "cpu,cpuacct");
        assert_eq!(groups[0].path, "/windlass/a:b");
        assert_eq!(groups[1].controllers, "name=systemd");
        assert!(groups[2].is_unified());
    }
}
