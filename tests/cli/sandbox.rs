//! A user of their own for each test: home, state, and a working folder; nothing of the caller's environment.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Removed with everything in it when dropped.
pub struct Sandbox {
    folder: TempDir,
}

/// What a run left behind.
pub struct Ran {
    arguments: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("wl").tempdir().unwrap();
        for name in ["home", "work", "no-binaries"] {
            fs_err::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes a file of the working folder.
    pub fn write(&self, name: &str, text: &str) {
        fs_err::write(self.path("work").join(name), text).unwrap();
    }

    pub fn program() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_windlass"))
    }

    /// The program, not started yet. It finds no binaries for hosts, so that nothing is ever installed on this computer.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Self::program());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("WINDLASS_HOME", self.state())
            .env("WINDLASS_BINARIES", self.path("no-binaries"))
            .current_dir(self.path("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        self.ran(arguments, output)
    }

    pub fn ran(&self, arguments: &[&str], output: Output) -> Ran {
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(self.folder.path().to_str().unwrap(), "[SANDBOX]")
        };
        Ran {
            arguments: text(arguments.join(" ").into_bytes()),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The names that `ls -q` gives.
    pub fn names(&self) -> Vec<String> {
        let ran = self.run(&["ls", "-q"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout.lines().map(str::to_owned).collect()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self
            .code
            .map_or("killed".to_owned(), |code| code.to_string());
        writeln!(f, "$ windlass {}\n[exit code {code}]", self.arguments)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                writeln!(f, "--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Compares with the stored snapshot, without what changes from run to run.
macro_rules! snapshot {
    ($name:expr, $ran:expr) => {
        insta::with_settings!({
            snapshot_path => "snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
            filters => vec![
                (r"\d+\.\d s\b", "[TIME]"),
                (r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:[PORT]"),
                (r"--generic-ssh-port \d+", "--generic-ssh-port [PORT]"),
                (r"SHA256:[A-Za-z0-9+/]+", "SHA256:[FINGERPRINT]"),
                (r"process \d+", "process [PID]"),
            ],
        }, { insta::assert_snapshot!($name, $ran.to_string()) })
    };
}
pub(crate) use snapshot;
