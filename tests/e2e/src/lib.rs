//! What the end-to-end tests share: a VPS with a registry beside it, a page that is waited for, the `docker` client on a machine.
//!
//! The tests are ignored unless asked for: they need root, QEMU, and `WINDLASS_BINARIES` as `cargo xtask binaries` prints it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use windlass_fixtures::{Access, Cache, Registry, Vm, VmImage, Windlass, httpd, program};

/// The page of the image made by [`httpd`].
pub const PAGE: &str = "It works!";
/// The mistakes that a first answer may show before the server listens, at most so long.
const PAGE_LIMIT: Duration = Duration::from_secs(60);

/// A Debian VPS, a registry with `library/httpd:2.4` that it takes for a mirror of Docker Hub, and a user.
pub struct Vps {
    /// The host.
    pub vm: Vm,
    /// The registry.
    pub registry: Registry,
    /// The user's command line.
    pub windlass: Windlass,
}

impl Vps {
    /// Boots it. The engine's settings are there before the engine is.
    pub fn boot(access: Access<'_>) -> Result<Self> {
        let cache = Cache::standard();
        let registry = Registry::start(access)?;
        registry.push(&httpd::image(&cache)?, "library/httpd", "2.4")?;
        let vm = Vm::boot(&VmImage::prepare(&cache)?, &[80, 8080, 8081])?;
        let here = Vm::host_address(registry.address().port());
        let settings = serde_json::json!({
            "registry-mirrors": [format!("http://{here}")], "insecure-registries": [here],
        });
        vm.shell("mkdir -p /etc/windlass")?;
        vm.login("root")
            .write("/etc/windlass/engine.json", &settings.to_string())?;
        let mut windlass = Windlass::from_environment()?;
        // Nobody's own logins.
        windlass.set("DOCKER_CONFIG", windlass.home().join("docker"));
        Ok(Self {
            vm,
            registry,
            windlass,
        })
    }

    /// The arguments of `windlass create` for it.
    pub fn create(&self, name: &str, user: &str) -> Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> = [
            "create",
            "--driver",
            "generic",
            "--generic-ip-address",
            "127.0.0.1",
            "--generic-ssh-user",
            user,
            "--generic-ssh-port",
            &self.vm.port(22)?.to_string(),
            "--generic-ssh-key",
        ]
        .map(OsString::from)
        .into();
        arguments.push(self.vm.key().into());
        arguments.push(name.into());
        Ok(arguments)
    }

    /// What answers at a port of the host.
    pub fn page(&self, port: u16) -> Result<String> {
        page(&format!("http://127.0.0.1:{}/", self.vm.port(port)?))
    }

    /// The address of the registry as the host sees it.
    pub fn registry_for_host(&self) -> String {
        Vm::host_address(self.registry.address().port())
    }
}

/// Waits until `url` gives a page, and returns it.
pub fn page(url: &str) -> Result<String> {
    let (text, _) = program::wait_for(&format!("{url} answers"), PAGE_LIMIT, || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--max-time", "10", url]);
        let output = program::run(&mut curl, Duration::from_secs(15)).ok()?;
        output.status.success().then_some(output.stdout)
    })?;
    Ok(text)
}

/// The real `docker` client, by `windlass env`.
pub struct Docker {
    host: String,
    config: PathBuf,
}

impl Docker {
    /// For the engine of `machine`.
    pub fn on(windlass: &Windlass, machine: &str) -> Result<Self> {
        let printed = windlass.ok(&["env", "--shell", "sh", machine])?;
        let host = printed
            .lines()
            .find_map(|line| {
                line.strip_prefix("export DOCKER_HOST='")?
                    .strip_suffix('\'')
            })
            .with_context(|| format!("no DOCKER_HOST in: {printed}"))?;
        Ok(Self {
            host: host.to_owned(),
            config: windlass.home().join("docker"),
        })
    }

    /// Runs it; it must succeed. Its standard output without the last line end.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let mut docker = Command::new("docker");
        docker
            .args(arguments)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", &self.config);
        Ok(program::checked(&mut docker, Duration::from_secs(180))?
            .trim_end()
            .to_owned())
    }

    /// The process id of a container, on its host.
    pub fn pid(&self, container: &str) -> Result<u32> {
        Ok(self
            .ok(&["inspect", "--format", "{{.State.Pid}}", container])?
            .parse()?)
    }
}

/// The folder of the binaries for hosts, as the tests were given it.
pub fn binaries() -> Result<PathBuf> {
    let given = std::env::var_os("WINDLASS_BINARIES").context("WINDLASS_BINARIES is not set")?;
    Ok(given.into())
}

/// A copy of the binaries in which the engine is another one: the same program with bytes behind its end, which nothing reads.
pub fn newer_binaries(to: &Path) -> Result<()> {
    replace_engine(
        to,
        "gunzip -c \"$1\" > \"$2.raw\" && printf 'another build' >> \"$2.raw\" && gzip -nc \"$2.raw\" > \"$2\"",
    )
}

/// A copy of the binaries in which the engine is no program.
pub fn broken_binaries(to: &Path) -> Result<()> {
    replace_engine(to, "printf '\\177ELF and nothing more' | gzip -nc > \"$2\"")
}

fn replace_engine(to: &Path, script: &str) -> Result<()> {
    let from = binaries()?;
    let folder = to.join("x86_64");
    fs_err::create_dir_all(&folder)?;
    for entry in fs_err::read_dir(from.join("x86_64"))? {
        let entry = entry?;
        fs_err::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    let mut shell = Command::new("sh");
    shell
        .args(["-euc", script, "sh"])
        .arg(from.join("x86_64/windlassd.gz"))
        .arg(folder.join("windlassd.gz"));
    program::checked(&mut shell, Duration::from_secs(60)).map(drop)
}

/// Fails unless the message of a failed command has all of `parts`, and is a message and no dump.
pub fn tells(message: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(message.contains(part), "`{part}` is missing in:\n{message}");
    }
    ensure!(message.contains("error: "), "no `error: ` in:\n{message}");
    ensure!(!message.contains("panicked"), "a panic:\n{message}");
    Ok(())
}
