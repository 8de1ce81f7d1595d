//! `windlassd check`: whether what an engine keeps fits together, on disk and in the kernel.
//!
//! It reads without the engine's help, so that it works with the engine stopped, crashed or running; what a running engine is
//! in the middle of passes, as only what is found again and again counts. Deliberately absent: the contents of layers
//! (their digest was checked when they came), and what belongs to other engines of the host.

mod kernel;
mod scene;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fs_err as fs;

use crate::container::removal::remove_dir_all;
use crate::volume::mounted;
use scene::Scene;

/// What to look at.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Folder of images, containers and volumes
    #[arg(long, default_value = "/var/lib/windlass")]
    pub root: PathBuf,
    /// Folder of what lasts until the next boot
    #[arg(long, default_value = "/run/windlass")]
    pub run: PathBuf,
    /// Takes away what is left over; the engine must not run
    #[arg(long)]
    pub repair: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A sentence.
    pub what: String,
    /// What would make it good.
    pub mend: Mend,
}

/// How a finding is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// Not by this program: something is lost.
    Nothing,
    /// Unmount, and remove the file or folder if it is of the run folder.
    Unmount(PathBuf),
    /// Remove with everything in it.
    RemoveFolder(PathBuf),
    /// Remove.
    RemoveFile(PathBuf),
    /// End a process.
    Kill(i32),
}

impl Finding {
    fn new(what: impl Into<String>, mend: Mend) -> Self {
        Self {
            what: what.into(),
            mend,
        }
    }
}

/// Whether an engine works with the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// It holds the lock.
    Runs,
    /// Nobody does.
    Stopped,
}

/// How often a running engine is looked at before a finding counts, and the time between.
const LOOKS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

/// Prints a line a finding; the exit code is 1 when there are any, 2 when it could not look.
pub fn main(options: &Options) -> ExitCode {
    match check(options) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                println!("{}", finding.what);
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("windlassd check: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn check(options: &Options) -> anyhow::Result<Vec<Finding>> {
    let root = fs::canonicalize(&options.root)?;
    let run = fs::canonicalize(&options.run).unwrap_or_else(|_| options.run.clone());
    let engine = engine(&root)?;
    if engine == Engine::Stopped {
        let mut findings = look(&root, &run, engine)?;
        if options.repair {
            for finding in &findings {
                repair(&finding.mend).with_context(|| format!("repair: {}", finding.what))?;
                println!("repaired: {}", finding.what);
            }
            findings = look(&root, &run, engine)?;
        }
        return Ok(findings);
    }
    anyhow::ensure!(
        !options.repair,
        "an engine works in {}: its own start repairs; stop it for --repair",
        root.display()
    );
    // Level-triggered: what the engine is in the middle of is over some looks later.
    let mut last = look(&root, &run, engine)?;
    for _ in 1..LOOKS {
        if last.is_empty() {
            break;
        }
        std::thread::sleep(BETWEEN);
        let now = look(&root, &run, engine)?;
        last.retain(|finding| now.contains(finding));
    }
    Ok(last)
}

fn engine(root: &Path) -> anyhow::Result<Engine> {
    let path = root.join("engine.lock");
    let file = match fs::File::open(&path) {
        Ok(file) => file.into_parts().0,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Engine::Stopped),
        Err(e) => return Err(e.into()),
    };
    let lock = nix::fcntl::FlockArg::LockSharedNonblock;
    Ok(match nix::fcntl::Flock::lock(file, lock) {
        Ok(_) => Engine::Stopped,
        Err(_) => Engine::Runs,
    })
}

fn look(root: &Path, run: &Path, engine: Engine) -> anyhow::Result<Vec<Finding>> {
    let scene = Scene::read(root, run, engine)?;
    let mut findings = Vec::new();
    store::images(&scene, &mut findings)?;
    store::containers(&scene, &mut findings)?;
    store::volumes(&scene, &mut findings)?;
    kernel::mounts(&scene, &mut findings)?;
    kernel::networks(&scene, &mut findings)?;
    kernel::processes(&scene, &mut findings);
    kernel::control_groups(&scene, &mut findings)?;
    // A thing that two looks found is one thing.
    let unique: BTreeMap<String, Finding> =
        findings.into_iter().map(|f| (f.what.clone(), f)).collect();
    Ok(unique.into_values().collect())
}

fn repair(mend: &Mend) -> anyhow::Result<()> {
    match mend {
        Mend::Nothing => {}
        Mend::Unmount(path) => {
            mounted::unmount_all(path)?;
            if fs::symlink_metadata(path).is_ok_and(|m| m.is_file()) {
                fs::remove_file(path)?;
            }
        }
        Mend::RemoveFolder(path) => {
            for below in mounted::points_below(path)?.iter().rev() {
                mounted::unmount_all(below)?;
            }
            match remove_dir_all(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Mend::RemoveFile(path) => match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        },
        Mend::Kill(pid) => {
            let pid = nix::unistd::Pid::from_raw(*pid);
            match nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL) {
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::Record;

    /// A root with one image of one layer, one container and one volume.
    fn sound() -> tempfile::TempDir {
        use sha2::Digest as _;
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join("root").join(path);
        let layer = "a".repeat(64);
        fs::create_dir_all(at(&format!("layers/{layer}/diff"))).unwrap();
        let info = format!(r#"{{"diff_id":"sha256:{layer}","size":0}}"#);
        fs::write(at(&format!("layers/{layer}/layer.json")), info).unwrap();
        let config = format!(r#"{{"rootfs":{{"diff_ids":["sha256:{layer}"]}}}}"#);
        let image = hex::encode(sha2::Sha256::digest(config.as_bytes()));
        fs::create_dir_all(at("images")).unwrap();
        fs::write(at(&format!("images/{image}.json")), config).unwrap();
        fs::write(at(&format!("images/{image}.meta.json")), "{}").unwrap();
        let names = format!(r#"{{"tags":{{"x:y":"sha256:{image}"}},"digests":{{}}}}"#);
        fs::write(at("repositories.json"), names).unwrap();
        let id = "c".repeat(64);
        let record = Record {
            id: id.clone(),
            image_id: format!("sha256:{image}"),
            ..Record::default()
        };
        fs::create_dir_all(at(&format!("containers/{id}"))).unwrap();
        record.save(&at(&format!("containers/{id}"))).unwrap();
        fs::create_dir_all(at("volumes/vol/_data")).unwrap();
        fs::write(at("volumes/vol/volume.json"), "{}").unwrap();
        fs::create_dir_all(dir.path().join("run")).unwrap();
        dir
    }

    fn found(dir: &Path) -> Vec<Finding> {
        let (root, run) = (dir.join("root"), dir.join("run"));
        look(&root, &run, engine(&root).unwrap()).unwrap()
    }

    #[test]
    fn what_is_left_over_is_found_and_taken_away() {
        let dir = sound();
        assert_eq!(found(dir.path()), []);
        let at = |path: &str| dir.path().join("root").join(path);
        let (other, id) = ("b".repeat(64), "d".repeat(64));
        for folder in [
            &format!("layers/{other}/diff"),
            "tmp/half",
            "build/step",
            &format!("containers/{id}"),
            &format!("rootfs/{id}/upper"),
            "volumes/.half/_data",
            "volumes/vol/_data.new",
            &format!("../run/shim/{id}"),
        ] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("images/x.json"), "no image").unwrap();
        let findings = found(dir.path());
        assert_eq!(findings.len(), 9, "{findings:#?}");
        for finding in &findings {
            repair(&finding.mend).unwrap();
        }
        assert_eq!(found(dir.path()), []);
    }

    #[test]
    fn what_is_lost_is_found_and_stays_lost() {
        let dir = sound();
        let at = |path: &str| dir.path().join("root").join(path);
        fs::remove_file(at(&format!("layers/{}/layer.json", "a".repeat(64)))).unwrap();
        fs::remove_file(at("volumes/vol/volume.json")).unwrap();
        let said: Vec<_> = found(dir.path()).into_iter().map(|f| f.what).collect();
        assert_eq!(said.len(), 2, "{said:#?}");
        let options = Options {
            root: dir.path().join("root"),
            run: dir.path().join("run"),
            repair: true,
        };
        let lock = fs::File::create(at("engine.lock")).unwrap().into_parts().0;
        let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
        let refused = check(&options).unwrap_err().to_string();
        assert!(refused.contains("stop it for --repair"), "{refused}");
        drop(lock);
        assert!(!check(&options).unwrap().is_empty());
    }
}
