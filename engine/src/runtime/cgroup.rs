//! Control groups of v1, of v2, and of v1 with an empty v2 beside it: making, joining, killing, freezing, removing.
//!
//! Deliberately absent: limits (see `limits`), systemd's way of making them.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;

const ROOT: &str = "/sys/fs/cgroup";
/// v2 controllers that containers want.
const CONTROLLERS: [&str; 6] = ["cpu", "memory", "pids", "io", "cpuset", "hugetlb"];
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// One tree of control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Mount options that name it, for v1: `cpu,cpuacct` or `name=systemd`; empty for v2.
    pub options: String,
}

impl Hierarchy {
    /// Whether it is v2's.
    pub fn is_unified(&self) -> bool {
        self.options.is_empty()
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|o| o == controller)
    }
}

/// All trees of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies(pub Vec<Hierarchy>);

impl Hierarchies {
    /// Looks at what is mounted.
    pub fn discover() -> Result<Self> {
        let found = Self::parse(&fs::read_to_string("/proc/self/mountinfo")?);
        if found.0.is_empty() {
            return Err(Error::other(format!(
                "no control groups are mounted below {ROOT}"
            )));
        }
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Self {
        let mut all: BTreeMap<String, Hierarchy> = BTreeMap::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mountpoint = left.split(' ').nth(4).unwrap_or_default();
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            if !mountpoint.starts_with(ROOT) || !matches!(kind, "cgroup" | "cgroup2") {
                continue;
            }
            let options = match kind {
                "cgroup2" => String::new(),
                _ => named(right.nth(1).unwrap_or_default()),
            };
            all.entry(options.clone()).or_insert(Hierarchy {
                mountpoint: mountpoint.into(),
                options,
            });
        }
        Self(all.into_values().collect())
    }

    /// Whether v2 has the controllers.
    pub fn is_v2(&self) -> bool {
        self.0.iter().all(Hierarchy::is_unified)
    }
}

/// The options that name a v1 hierarchy.
fn named(options: &str) -> String {
    let ours = |o: &&str| {
        !matches!(
            *o,
            "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode"
        ) && !o.starts_with("release_agent=")
    };
    options
        .split(',')
        .filter(ours)
        .collect::<Vec<_>>()
        .join(",")
}

/// A container's group in every tree.
#[derive(Debug, Clone)]
pub struct Group {
    path: String,
    hierarchies: Hierarchies,
}

impl Group {
    /// By its path below the trees' roots; it need not exist.
    pub fn at(path: &str) -> Result<Self> {
        Ok(Self {
            path: path.trim_matches('/').to_owned(),
            hierarchies: Hierarchies::discover()?,
        })
    }

    /// The trees.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Whether limits go to v2.
    pub fn is_v2(&self) -> bool {
        self.hierarchies.is_v2()
    }

    /// Its folder in this tree.
    pub fn folder(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mountpoint.join(&self.path)
    }

    /// Its folder in v2's tree.
    pub fn unified(&self) -> Option<PathBuf> {
        let mut all = self.hierarchies.0.iter();
        all.find(|h| h.is_unified()).map(|h| self.folder(h))
    }

    /// Where v2's tree begins.
    pub fn unified_root(&self) -> Option<&Path> {
        let mut all = self.hierarchies.0.iter();
        all.find(|h| h.is_unified()).map(|h| h.mountpoint.as_path())
    }

    /// On v1: moves the calling process out of the systemd service that it was started in, whose end would be its own.
    pub fn shelter_from_systemd(&self) {
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let is_in_service = text
            .lines()
            .any(|l| l.contains(":name=systemd:") && !l.ends_with(":name=systemd:/"));
        let mut all = self.hierarchies.0.iter();
        if let Some(tree) = all
            .find(|h| h.has("name=systemd"))
            .filter(|_| is_in_service)
        {
            let folder = self.folder(tree);
            // Where that fails the service's own settings must keep its processes; nothing else depends on it.
            std::fs::create_dir_all(&folder).ok();
            std::fs::write(folder.join("cgroup.procs"), "0").ok();
        }
    }

    /// Its folder with this controller: v1's, or v2's when that has the controllers.
    pub fn controller(&self, name: &str) -> Option<PathBuf> {
        if self.is_v2() {
            return self.unified();
        }
        let mut all = self.hierarchies.0.iter();
        all.find(|h| h.has(name)).map(|h| self.folder(h))
    }

    /// Makes it, with its parents.
    pub fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies.0 {
            let mut folder = hierarchy.mountpoint.clone();
            for part in self.path.split('/') {
                if self.is_v2() {
                    delegate(&folder, folder == hierarchy.mountpoint)?;
                }
                let parent = folder.clone();
                folder.push(part);
                match std::fs::create_dir(&folder) {
                    Ok(()) if hierarchy.has("cpuset") => copy_cpuset(&parent, &folder)?,
                    Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                        return Err(Error::new(
                            e.kind(),
                            format!("make control group {}: {e}", folder.display()),
                        ));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Puts the calling process into it, in v1's trees; `clone3` has put it into v2's.
    pub fn join_v1(&self) -> Result<()> {
        for hierarchy in self.hierarchies.0.iter().filter(|h| !h.is_unified()) {
            fs::write(self.folder(hierarchy).join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// How often the kernel has killed in it for memory.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.is_v2() {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = self
            .controller("memory")
            .and_then(|f| std::fs::read_to_string(f.join(file)).ok());
        text.unwrap_or_default()
            .lines()
            .find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok())
            .unwrap_or_default()
    }

    /// Begins to freeze or thaw.
    pub fn set_frozen(&self, frozen: Frozen) -> Result<()> {
        let (v1, v2) = match frozen {
            Frozen::Yes => ("FROZEN", "1"),
            Frozen::No => ("THAWED", "0"),
        };
        match self.freezer()? {
            Freezer::V2(folder) => fs::write(folder.join("cgroup.freeze"), v2),
            Freezer::V1(folder) => fs::write(folder.join("freezer.state"), v1),
        }
    }

    /// Whether all of it is frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        Ok(match self.freezer()? {
            Freezer::V2(folder) => fs::read_to_string(folder.join("cgroup.events"))?
                .lines()
                .any(|l| l == "frozen 1"),
            Freezer::V1(folder) => {
                fs::read_to_string(folder.join("freezer.state"))?.trim() == "FROZEN"
            }
        })
    }

    fn freezer(&self) -> Result<Freezer> {
        if let Some(folder) = self.controller("freezer").filter(|_| !self.is_v2()) {
            return Ok(Freezer::V1(folder));
        }
        self.unified()
            .map(Freezer::V2)
            .ok_or_else(|| Error::other("no freezer is mounted"))
    }

    /// Kills every process in it and below it, once.
    pub fn kill(&self) {
        if self.set_frozen(Frozen::No).is_err() {
            tracing::debug!(group = self.path, "nothing to thaw");
        }
        if let Some(folder) = self.unified() {
            std::fs::write(folder.join("cgroup.kill"), "1").ok();
        }
        for hierarchy in &self.hierarchies.0 {
            kill_below(&self.folder(hierarchy));
        }
    }

    /// Kills and removes it, waiting until that is done.
    pub fn destroy(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        let mut pause = Duration::from_micros(200);
        loop {
            let left = self.remove();
            let Some(left) = left else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(Error::other(format!(
                    "processes of {} do not end: they hang in the kernel",
                    left.display()
                )));
            }
            self.kill();
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Removes what is empty; the answer is a folder that is still there.
    fn remove(&self) -> Option<PathBuf> {
        let mut left = None;
        for folder in self.hierarchies.0.iter().map(|h| self.folder(h)) {
            if !remove_tree(&folder) {
                left = Some(folder);
            }
        }
        left
    }
}

/// Whether processes are to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// Hold them.
    Yes,
    /// Let them go on.
    No,
}

enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
}

fn kill_below(folder: &Path) {
    for pid in members(folder) {
        if pid != nix::unistd::getpid() {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
    children(folder).for_each(|child| kill_below(&child));
}

fn members(folder: &Path) -> Vec<nix::unistd::Pid> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process outside of our process namespace; it must never reach kill(2).
    text.lines()
        .filter_map(|l| l.parse().ok())
        .filter(|pid| *pid > 0)
        .map(nix::unistd::Pid::from_raw)
        .collect()
}

/// Whether it is gone.
fn remove_tree(folder: &Path) -> bool {
    let gone = |e: &Error| e.kind() == std::io::ErrorKind::NotFound;
    match std::fs::remove_dir(folder) {
        Ok(()) => return true,
        Err(e) if gone(&e) => return true,
        Err(_) => {}
    }
    children(folder).for_each(|child| {
        remove_tree(&child);
    });
    match std::fs::remove_dir(folder) {
        Ok(()) => true,
        Err(e) => gone(&e),
    }
}

/// A v1 cpuset without processors takes no process.
fn copy_cpuset(parent: &Path, folder: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(folder.join(file))?.trim().is_empty() {
            fs::write(folder.join(file), fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Gives a v2 group's children the controllers.
fn delegate(folder: &Path, is_root: bool) -> Result<()> {
    let there = fs::read_to_string(folder.join("cgroup.controllers"))?;
    let given = fs::read_to_string(folder.join("cgroup.subtree_control"))?;
    let has = |text: &str, name: &str| text.split_whitespace().any(|w| w == name);
    let missing = CONTROLLERS.map(|name| (name, has(&there, name) && !has(&given, name)));
    if missing.iter().all(|(_, is_missing)| !is_missing) {
        return Ok(());
    }
    // Only the host's own root has no type, and may have processes beside children.
    if is_root && folder.join("cgroup.type").exists() {
        make_room(folder)?;
    }
    for (name, _) in missing.iter().filter(|(_, is_missing)| *is_missing) {
        let control = folder.join("cgroup.subtree_control");
        if let Err(error) = std::fs::write(&control, format!("+{name}")) {
            tracing::debug!(%error, name, folder = %folder.display(), "controller not delegated");
        }
    }
    Ok(())
}

/// In a container the root of v2 is a group like others: one with processes must give no
/// controllers (some would make it a threaded one), so they move below it first.
fn make_room(root: &Path) -> Result<()> {
    let leaf = root.join("init");
    fs::create_dir_all(&leaf)?;
    for _ in 0..10 {
        let pids = members(root);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            std::fs::write(leaf.join("cgroup.procs"), pid.to_string()).ok();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_both_versions() {
        let v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
            50 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n";
        let found = Hierarchies::parse(v1);
        let names: Vec<&str> = found.0.iter().map(|h| h.options.as_str()).collect();
        assert_eq!(names, ["", "cpu,cpuacct", "name=systemd"]);
        assert!(!found.is_v2() && found.0[1].has("cpu") && !found.0[1].has("cpuset"));
        let v2 = Hierarchies::parse("3 2 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert!(v2.is_v2());
    }
}
