//! What a bare root file system needs to be a machine. Doing it again changes nothing, since a machine boots many times.
//!
//! The engine has made `/proc`, `/sys`, `/dev` and the files of the network; the image has brought `/usr`, its links and
//! the parts of `/etc` that programs need.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, umask};

use crate::arguments::Server;
use crate::cgroup;

/// Where the provider mounts the machine's keys.
const KEYS: &str = "/etc/windlass-machine";
/// What the machine keeps for itself; on its volume.
const STATE: &str = "/var/lib/windlass-machine";

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
kmem:x:15:
sudo:x:27:
www-data:x:33:
shadow:x:42:
utmp:x:43:
video:x:44:
staff:x:50:
users:x:100:
nogroup:x:65534:
";
/// `*` is no password at all: nobody logs in by one.
const SHADOW: &str = "\
root:*:19000:0:99999:7:::
daemon:*:19000:0:99999:7:::
bin:*:19000:0:99999:7:::
sys:*:19000:0:99999:7:::
mail:*:19000:0:99999:7:::
www-data:*:19000:0:99999:7:::
nobody:*:19000:0:99999:7:::
";

/// Makes the machine; the answer is where its SSH server listens.
pub fn prepare() -> Result<Server> {
    umask(Mode::from_bits_truncate(0o022));
    mounts().context("mount what is missing")?;
    cgroup::prepare().context("set up the control groups")?;
    folders().context("make folders")?;
    accounts().context("make accounts")?;
    let keys = Path::new(KEYS);
    let given = keys.join("host_key");
    Ok(Server {
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 22)),
        authorized_keys: keys.join("authorized_keys"),
        host_key: if given.exists() {
            given
        } else {
            Path::new(STATE).join("host_key")
        },
    })
}

fn mounts() -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let quiet = safe | MsFlags::MS_NOEXEC;
    mount_missing("proc", "/proc", quiet, "")?;
    mount_missing("sysfs", "/sys", quiet, "")?;
    mount_missing("tmpfs", "/run", safe, "mode=755")?;
    mount_missing("tmpfs", "/dev/shm", safe, "mode=1777")?;
    mount_missing(
        "devpts",
        "/dev/pts",
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    if !Path::new("/dev/ptmx").exists() {
        fs::os::unix::fs::symlink("pts/ptmx", "/dev/ptmx")?;
    }
    // `/usr` is the host's, read-only; what is installed by hand goes to the machine's own volume.
    let local = Path::new(STATE).join("usr-local");
    for name in ["bin", "sbin", "lib", "etc", "share"] {
        fs::create_dir_all(local.join(name))?;
    }
    if !is_mounted("/usr/local")? {
        mount(
            Some(&local),
            "/usr/local",
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .context("/usr/local")?;
    }
    Ok(())
}

fn mount_missing(kind: &str, target: &str, flags: MsFlags, options: &str) -> Result<()> {
    // Without /proc nothing can be asked, and nothing is mounted either.
    if Path::new("/proc/self").exists() && is_mounted(target)? {
        return Ok(());
    }
    fs::create_dir_all(target)?;
    mount(Some(kind), target, Some(kind), flags, Some(options)).with_context(|| target.to_owned())
}

/// Whether something is mounted exactly there.
pub fn is_mounted(target: &str) -> Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(target)))
}

fn folders() -> Result<()> {
    let folders = [
        ("/root", 0o700),
        ("/home", 0o755),
        ("/mnt", 0o755),
        ("/opt", 0o755),
        ("/srv", 0o755),
        ("/tmp", 0o1777),
        ("/var/tmp", 0o1777),
        ("/var/cache", 0o755),
        ("/var/lib", 0o755),
        ("/var/log", 0o755),
        ("/var/spool", 0o755),
        ("/run/lock", 0o1777),
    ];
    for (path, mode) in folders {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    for (link, to) in [("/var/run", "/run"), ("/var/lock", "/run/lock")] {
        if fs::symlink_metadata(link).is_err() {
            fs::os::unix::fs::symlink(to, link)?;
        }
    }
    Ok(())
}

fn accounts() -> Result<()> {
    let bash = Path::new("/bin/bash").exists();
    let passwd = match bash {
        true => PASSWD.to_owned(),
        false => PASSWD.replace("/bin/bash", "/bin/sh"),
    };
    write_missing("/etc/passwd", &passwd, 0o644)?;
    write_missing("/etc/group", GROUP, 0o644)?;
    write_missing("/etc/shadow", SHADOW, 0o600)?;
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    write_missing("/etc/machine-id", &id.replace('-', ""), 0o444)
}

fn write_missing(path: &str, text: &str, mode: u32) -> Result<()> {
    if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    let new = format!("{path}.new");
    fs::write(&new, text)?;
    fs::set_permissions(&new, Permissions::from_mode(mode))?;
    fs::rename(&new, path)?;
    Ok(())
}
