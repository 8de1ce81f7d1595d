//! Where things lie on a host.

use windlass_ssh::Command;

/// Paths on a host; all below a prefix, which is empty except for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    prefix: String,
}

impl Layout {
    /// Everything below an absolute folder. Such an engine is started without an init system.
    pub fn below(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// Whether this is the host's own place, where its init system can be told about it.
    pub(crate) fn is_the_hosts(&self) -> bool {
        self.prefix.is_empty()
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The engine's program.
    pub fn binary(&self) -> String {
        self.at("/usr/local/lib/windlass/windlassd")
    }

    /// The program before it, until the new one has answered.
    pub(crate) fn old_binary(&self) -> String {
        self.at("/usr/local/lib/windlass/windlassd.old")
    }

    /// Images, containers, volumes.
    pub fn state(&self) -> String {
        self.at("/var/lib/windlass")
    }

    /// What does not outlive a reboot.
    pub fn run(&self) -> String {
        self.at("/run/windlass")
    }

    /// The engine's socket.
    pub fn socket(&self) -> String {
        self.at("/run/windlass/engine.sock")
    }

    /// The process, where no init system keeps it.
    pub(crate) fn pid_file(&self) -> String {
        self.at("/run/windlass/windlassd.pid")
    }

    /// The engine's words, where no journal takes them.
    pub fn log(&self) -> String {
        self.at("/var/log/windlass/windlassd.log")
    }

    /// How a login user who may not connect to the socket reaches it.
    pub fn bridge(&self) -> Command {
        Command::new([self.binary(), "dial".to_owned(), self.socket()])
            .as_root()
            .called("windlassd dial")
    }
}
