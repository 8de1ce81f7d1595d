//! A root file system of busybox, a runtime, and containers that are taken away whatever happens.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fs_err as fs;
use windlass_engine_api::Source;
use windlassd::container::parts::{Attachment, Exit, ProcessSpec, RunSpec, Runtime as _};
use windlassd::runtime::LocalRuntime;

static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub runtime: LocalRuntime,
    made: Mutex<Vec<String>>,
}

/// It may be another build than the tests': `WINDLASS_TEST_SHIM`.
pub fn shim_program() -> PathBuf {
    let other = std::env::var_os("WINDLASS_TEST_SHIM");
    other
        .unwrap_or(env!("CARGO_BIN_EXE_windlassd").into())
        .into()
}

/// What a process wrote.
#[derive(Debug, Default)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("windlass-runtime-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let root = dir.path().join("root");
        for folder in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "true", "cat", "sleep", "ls", "id", "stty", "head", "tail", "kill", "ps",
            "mount", "hostname", "dd", "grep", "echo", "touch", "tr", "wc", "nproc", "unshare",
            "mknod", "env", "pwd", "tty", "yes", "date", "mkdir", "test", "ulimit", "chroot",
            "umount", "cut", "ip", "stat", "rm",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            root.join("etc/group"),
            "root:x:0:\nweb:x:33:\nlog:x:40:web\n",
        )
        .unwrap();
        let runtime = Self::open(dir.path());
        Self {
            dir,
            runtime,
            made: Mutex::default(),
        }
    }

    fn open(dir: &Path) -> LocalRuntime {
        LocalRuntime::open_with(&dir.join("run"), shim_program()).unwrap()
    }

    /// As after the engine's end and start.
    pub fn reopen(&mut self) {
        self.runtime = Self::open(self.dir.path());
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A container that runs `args`.
    pub fn spec(&self, args: &[&str]) -> RunSpec {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}{number:056x}", std::process::id());
        self.made.lock().unwrap().push(id.clone());
        let folder = self.dir.path().join("containers").join(&id);
        fs::create_dir_all(&folder).unwrap();
        RunSpec {
            log_path: folder.join("json.log"),
            id,
            folder,
            rootfs: self.root(),
            process: process(args),
            hostname: "boat".to_owned(),
            ..RunSpec::default()
        }
    }

    /// Created, attached, started.
    pub async fn run(&self, spec: &RunSpec) -> Attachment {
        self.runtime.create(spec).await.unwrap();
        let attachment = self.runtime.attach(&spec.id).await.unwrap();
        self.runtime.start(&spec.id).await.unwrap();
        attachment
    }

    pub async fn wait(&self, id: &str) -> Exit {
        within(self.runtime.wait(id)).await.unwrap()
    }

    /// Runs to its end; its output and end.
    pub async fn complete(&self, spec: &RunSpec) -> (Output, Exit) {
        let attachment = self.run(spec).await;
        let output = collect(attachment).await;
        let exit = self.wait(&spec.id).await;
        self.runtime.delete(&spec.id).await.unwrap();
        (output, exit)
    }

    /// The same for a shell's script.
    pub async fn script(&self, script: &str) -> (Output, Exit) {
        self.complete(&self.spec(&["sh", "-c", script])).await
    }

    /// Control groups of a container that are still there.
    pub fn groups(id: &str) -> Vec<PathBuf> {
        let trees = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let trees = trees.map(|t| t.path()).chain(["/sys/fs/cgroup".into()]);
        trees
            .map(|t| t.join("windlass").join(id))
            .filter(|p| p.exists())
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let (runtime, made) = (self.runtime.clone(), std::mem::take(&mut self.made));
        let cleanup = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            for id in made.into_inner().unwrap() {
                tokio.block_on(runtime.delete(&id)).ok();
            }
        });
        cleanup.join().ok();
    }
}

pub fn process(args: &[&str]) -> ProcessSpec {
    ProcessSpec {
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        ..ProcessSpec::default()
    }
}

/// All output to its end.
pub async fn collect(attachment: Attachment) -> Output {
    let Attachment { stdin, mut output } = attachment;
    drop(stdin);
    let mut all = Output::default();
    while let Some(frame) = within(output.recv()).await {
        let text = String::from_utf8_lossy(&frame.data);
        match frame.source {
            Source::Stderr => all.stderr.push_str(&text),
            _ => all.stdout.push_str(&text),
        }
    }
    all
}

/// Output until it has `words`.
pub async fn until(attachment: &mut Attachment, words: &str) -> String {
    let mut text = String::new();
    while !text.contains(words) {
        match within(attachment.output.recv()).await {
            Some(frame) => text.push_str(&String::from_utf8_lossy(&frame.data)),
            None => panic!("ended before {words:?}: {text:?}"),
        }
    }
    text
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("done within 60 s")
}

/// Polls a condition; the deadline is a failure.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), all)
        .await
        .is_err()
    {
        panic!("not within 30 s: {what}");
    }
}
