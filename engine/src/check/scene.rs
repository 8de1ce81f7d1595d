//! What there is to judge by: the containers' records, the shims that run, what is mounted.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Engine;
use crate::container::record::{FILE, Record};
use crate::runtime::SHIM;
use crate::volume::mounted;

/// One look.
#[derive(Debug)]
pub struct Scene {
    /// Durable state, as the kernel names it.
    pub root: PathBuf,
    /// State until the next boot.
    pub run: PathBuf,
    /// Whether an engine works with it.
    pub engine: Engine,
    /// By id.
    pub containers: BTreeMap<String, Record>,
    /// Folders without a readable record, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// The folder that a shim was started for → its process.
    pub shims: BTreeMap<PathBuf, i32>,
    /// Below both folders.
    pub mounts: Vec<PathBuf>,
}

impl Scene {
    /// Looks.
    pub fn read(root: &Path, run: &Path, engine: Engine) -> anyhow::Result<Self> {
        let mut scene = Self {
            root: root.to_owned(),
            run: run.to_owned(),
            engine,
            containers: BTreeMap::new(),
            unreadable: Vec::new(),
            shims: shims(&run.join(SHIM)),
            mounts: mounted::points_below(root)?,
        };
        scene.mounts.extend(mounted::points_below(run)?);
        for folder in entries(&root.join("containers"))? {
            match Record::load(&folder) {
                Ok(record) => drop(scene.containers.insert(record.id.clone(), record)),
                Err(_) if !folder.exists() => {}
                Err(error) if folder.join(FILE).exists() => {
                    scene.unreadable.push((folder, format!("{error:#}")));
                }
                Err(_) => scene.unreadable.push((folder, String::new())),
            }
        }
        Ok(scene)
    }

    /// Whether a shim holds the container (or the build step) of this id.
    pub fn runs(&self, id: &str) -> bool {
        self.shims.contains_key(&self.run.join(SHIM).join(id))
    }

    /// Whether a build that an engine does at this moment may own it.
    pub fn is_being_built(&self, id: &str) -> bool {
        self.engine == Engine::Runs && self.root.join("build").join(id).exists()
    }
}

/// What lies in a folder; none is an empty one.
pub fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// A path's last part as text.
pub fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The shims that were started for folders below this one: that is their argument.
fn shims(below: &Path) -> BTreeMap<PathBuf, i32> {
    let mut found = BTreeMap::new();
    for process in entries(Path::new("/proc")).unwrap_or_default() {
        let Ok(pid) = name(&process).parse::<i32>() else {
            continue;
        };
        let Ok(line) = std::fs::read(process.join("cmdline")) else {
            continue;
        };
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        if let [b"windlass-shim", verb, folder, ..] = words[..] {
            let folder = PathBuf::from(std::ffi::OsStr::from_bytes(folder));
            if verb == SHIM.as_bytes() && folder.starts_with(below) {
                // The container's first process looks like its shim until its program is executed: the older one counts.
                let former: &mut i32 = found.entry(folder).or_insert(pid);
                *former = pid.min(*former);
            }
        }
    }
    found
}
