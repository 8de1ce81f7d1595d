//! Installations over a real OpenSSH server, with everything below a temporary folder and a script as the engine.

mod engine;
#[path = "../../../ssh/tests/sshd/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of sessions")]
mod harness;
mod sudo;

use std::path::{Path, PathBuf};

use windlass_install::{
    Error, Init, Installed, Layout, Progress, Restored, RootAccess, Running, install_at, probe_at,
};
use windlass_ssh::Session;

use harness::Sshd;

/// A host whose engine is gone when the test is.
struct Host {
    server: Sshd,
    prefix: PathBuf,
}

impl Host {
    fn start() -> Self {
        Self::start_with("")
    }

    fn start_with(variables: &str) -> Self {
        let server = Sshd::start_with("", variables);
        let prefix = server.folder.path().join("host");
        fs_err::create_dir(&prefix).unwrap();
        Self { server, prefix }
    }

    fn layout(&self) -> Layout {
        Layout::below(self.prefix.to_str().unwrap())
    }

    fn engine_pid(&self) -> Option<u32> {
        let file = self.prefix.join("run/windlass/windlassd.pid");
        let text = fs_err::read_to_string(file).ok()?;
        let pid: u32 = text.trim().parse().ok()?;
        is_alive(pid).then_some(pid)
    }

    async fn install(&self, session: &Session, program: &str) -> Result<Installed, Error> {
        self.install_sized(session, program, 0)
            .await
            .map(|(installed, _)| installed)
    }

    async fn install_sized(
        &self,
        session: &Session,
        program: &str,
        size: usize,
    ) -> Result<(Installed, Vec<Progress>), Error> {
        let folder = tempfile::tempdir().unwrap();
        let binaries = engine::binaries(folder.path(), program, size);
        let mut steps = Vec::new();
        let mut note = |step| steps.push(step);
        let installed = install_at(session, &binaries, &self.layout(), &mut note).await?;
        Ok((installed, steps))
    }
}

/// One that has ended and was not waited for yet has no command line any more.
fn is_alive(pid: u32) -> bool {
    fs_err::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(pid) = self.engine_pid() {
            harness::kill(pid);
        }
    }
}

#[tokio::test]
async fn a_fresh_host_then_no_change_then_an_upgrade() {
    let host = Host::start();
    let session = host.server.session().await;
    let (first, steps) = host
        .install_sized(&session, &engine::working("1.0"), 200_000)
        .await
        .unwrap();
    assert!(first.changed);
    assert_eq!(first.version, "1.0");
    assert!(
        first.uploaded_bytes > 0 && first.uploaded_bytes < 200_000,
        "{first:?}"
    );
    assert!(matches!(steps.first(), Some(Progress::Probing)));
    assert!(matches!(steps.last(), Some(Progress::Waiting)));
    let all_sent = |s: &Progress| matches!(s, Progress::Uploading { sent, total } if sent == total);
    assert!(steps.iter().any(all_sent), "{steps:?}");
    let pid = host.engine_pid().unwrap();

    let (again, steps) = host
        .install_sized(&session, &engine::working("1.0"), 200_000)
        .await
        .unwrap();
    assert_eq!(
        again,
        Installed {
            uploaded_bytes: 0,
            changed: false,
            ..first.clone()
        }
    );
    assert!(
        !steps
            .iter()
            .any(|s| matches!(s, Progress::Uploading { .. }))
    );
    assert_eq!(host.engine_pid(), Some(pid), "it was not restarted");

    let upgraded = host
        .install(&session, &engine::working("2.0"))
        .await
        .unwrap();
    assert_eq!(upgraded.version, "2.0");
    assert!(upgraded.changed && upgraded.digest != first.digest);
    assert_ne!(host.engine_pid(), Some(pid));
    assert!(!is_alive(pid), "the old engine has ended");
    let mut left: Vec<_> = fs_err::read_dir(host.prefix.join("usr/local/lib/windlass"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["windlassd", "windlassd.sha256"]);
}

#[tokio::test]
async fn an_engine_that_has_stopped_is_started_without_an_upload() {
    let host = Host::start();
    let session = host.server.session().await;
    host.install(&session, &engine::working("1.0"))
        .await
        .unwrap();
    harness::kill(host.engine_pid().unwrap());
    let again = host
        .install(&session, &engine::working("1.0"))
        .await
        .unwrap();
    assert_eq!(again.uploaded_bytes, 0);
    assert!(again.changed);
    assert!(host.engine_pid().is_some());
}

/// The first process of a local machine has the process file while it starts the engine again.
#[tokio::test]
async fn an_engine_that_is_just_being_started_is_waited_for() {
    let host = Host::start();
    let session = host.server.session().await;
    let program = engine::working("1.0");
    host.install(&session, &program).await.unwrap();
    let pid = host.engine_pid().unwrap();
    let file = host.prefix.join("run/windlass/windlassd.pid");
    let taken = file.with_extension("pid.init");
    fs_err::rename(&file, &taken).unwrap();
    let give_back = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        fs_err::rename(&taken, &file).unwrap();
    };
    let (again, ()) = tokio::join!(host.install(&session, &program), give_back);
    assert!(!again.unwrap().changed);
    assert_eq!(host.engine_pid(), Some(pid));

    // One that an interrupted installation has kept is found by the next.
    fs_err::rename(&file, file.with_extension("pid.install")).unwrap();
    let upgraded = host.install(&session, &engine::working("2.0")).await;
    assert_eq!(upgraded.unwrap().version, "2.0");
    assert!(!is_alive(pid), "the old engine has ended");
    assert!(host.engine_pid().is_some());
}

#[tokio::test]
async fn a_broken_engine_is_taken_back() {
    let host = Host::start();
    let session = host.server.session().await;
    let first = host
        .install(&session, &engine::working("1.0"))
        .await
        .unwrap();
    let error = host.install(&session, &engine::broken()).await.unwrap_err();
    let Error::Silent {
        last_words,
        restored,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*restored, Restored::Yes);
    assert_eq!(
        last_words,
        "cannot open /var/lib/windlass: the moon is full"
    );
    let probe = probe_at(&session, &host.layout()).await.unwrap();
    let engine = probe.engine.unwrap();
    assert_eq!(engine.digest.as_ref(), Some(&first.digest));
    assert_eq!(engine.running, Running::Yes);
    assert_eq!(engine.version, "1.0");
    let again = host
        .install(&session, &engine::working("1.0"))
        .await
        .unwrap();
    assert!(!again.changed, "everything is as it was");
}

#[tokio::test]
async fn a_broken_first_engine_is_one_clear_error_and_does_not_stay() {
    let host = Host::start();
    let session = host.server.session().await;
    let error = host.install(&session, &engine::broken()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("there is no other engine") && text.contains("the moon is full"),
        "{text}"
    );
    assert_eq!(host.engine_pid(), None);
    let fixed = host
        .install(&session, &engine::working("1.1"))
        .await
        .unwrap();
    assert_eq!(fixed.version, "1.1");
}

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, options: &str) -> Self {
        nix::mount::mount(
            Some("tmpfs"),
            at,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options),
        )
        .unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_seen_before_anything_is_sent() {
    let host = Host::start();
    let session = host.server.session().await;
    let disk = SmallDisk::mount(&host.prefix, "size=4m");
    let outcome = host
        .install_sized(&session, &engine::working("1.0"), 6_000_000)
        .await;
    let left = fs_err::read_dir(&host.prefix).unwrap().count();
    drop(disk);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("8 MB are needed"), "{error}");
    assert_eq!(left, 0, "nothing was written");
}

#[tokio::test]
async fn a_disk_that_fills_up_during_the_upload_keeps_the_old_engine() {
    let host = Host::start();
    let session = host.server.session().await;
    host.install(&session, &engine::working("1.0"))
        .await
        .unwrap();
    // Room enough by `df`, but no more files: what a disk does that fills up after we have looked.
    let folder = host.prefix.join("usr/local/lib/windlass");
    let program = fs_err::read(folder.join("windlassd")).unwrap();
    let disk = SmallDisk::mount(&folder, "size=64m,nr_inodes=2");
    fs_err::write(folder.join("windlassd"), &program).unwrap();
    let outcome = host.install(&session, &engine::working("2.0")).await;
    let kept = fs_err::read(folder.join("windlassd")).unwrap();
    drop(disk);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(kept, program);
    assert!(host.engine_pid().is_some(), "the old engine still runs");
}

#[tokio::test]
async fn a_host_without_gzip_gets_the_plain_program() {
    let tools = tempfile::tempdir().unwrap();
    for name in [
        "sh", "cat", "mktemp", "mv", "ln", "cp", "rm", "mkdir", "chmod", "find", "wc", "tr", "cut",
        "sync", "uname", "id", "df", "awk", "grep", "head", "tail", "date", "sleep", "setsid",
        "test", "env", "readlink", "timeout",
    ] {
        let which = std::process::Command::new("which")
            .arg(name)
            .output()
            .unwrap();
        let path = String::from_utf8(which.stdout).unwrap();
        std::os::unix::fs::symlink(path.trim(), tools.path().join(name)).unwrap();
    }
    let host = Host::start_with(&format!("PATH={}", tools.path().display()));
    let session = host.server.session().await;
    let probe = probe_at(&session, &host.layout()).await.unwrap();
    assert!(!probe.has_gzip, "{probe:?}");
    let (installed, _) = host
        .install_sized(&session, &engine::working("1.0"), 100_000)
        .await
        .unwrap();
    assert!(installed.uploaded_bytes >= 100_000, "{installed:?}");
    assert_eq!(installed.version, "1.0");
    // Nor is there a sha256sum: the digest that was written down serves.
    let (again, _) = host
        .install_sized(&session, &engine::working("1.0"), 100_000)
        .await
        .unwrap();
    assert!(!again.changed, "{again:?}");
    let error = host.install(&session, &engine::broken()).await.unwrap_err();
    assert!(matches!(error, Error::DoesNotRun { .. }), "{error}");
    let (again, _) = host
        .install_sized(&session, &engine::working("1.0"), 100_000)
        .await
        .unwrap();
    assert_eq!(again.version, "1.0");
}

#[tokio::test]
async fn this_computer_is_seen_as_it_is() {
    let host = Host::start();
    let session = host.server.session().await;
    let probe = probe_at(&session, &host.layout()).await.unwrap();
    assert_eq!(probe.system, "Linux");
    assert_eq!(probe.machine, std::env::consts::ARCH);
    assert_eq!(probe.root_access, RootAccess::Root);
    assert_eq!(probe.init, Init::None);
    assert_eq!(probe.engine, None);
    assert!(probe.has_gzip && probe.namespaces.len() == 5);
    assert!(probe.free_binary_bytes.unwrap() > 1_000_000);
}
