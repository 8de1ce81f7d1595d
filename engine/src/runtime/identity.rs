//! Who a process is and what it may do: user, groups, working directory, environment, capabilities, the filter of system calls.

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Gid, Uid};

use super::seccomp::{self, Filter};
use super::task::{Confinement, Process};
use super::user::{self, Identity};
use super::{child, sys};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is known once the container's files can be read.
#[derive(Debug)]
pub struct Prepared {
    /// Who.
    pub identity: Identity,
    /// With `PATH` and `HOME`; one value a name.
    pub env: Vec<String>,
    /// `PATH`.
    pub path: String,
}

/// What becomes of a working directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A new container makes it.
    Make,
    /// An exec does not.
    Refuse,
}

/// Looks up the user, goes to the working directory.
pub fn prepare(process: &Process, missing: Missing) -> Result<Prepared> {
    let identity = user::find(&process.user, &process.groups)?;
    child::give_stdio(identity.uid);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if missing == Missing::Make
        && let Err(nix::Error::ENOENT) = nix::unistd::chdir(process.cwd.as_str())
    {
        std::fs::create_dir_all(&process.cwd)
            .with_context(|| format!("make the working directory {}", process.cwd))?;
    }
    nix::unistd::chdir(process.cwd.as_str()).map_err(|e| {
        anyhow::anyhow!(
            "chdir to cwd (\"{}\") set in config.json failed: {}",
            process.cwd,
            e.desc().to_lowercase()
        )
    })?;
    // What cannot be reached from the root has no name.
    if !nix::unistd::getcwd().is_ok_and(|here| here.is_absolute()) {
        bail!(
            "the working directory {} leads out of the container",
            process.cwd
        );
    }
    let (env, path) = environment(&process.env, &identity.home);
    Ok(Prepared {
        identity,
        env,
        path,
    })
}

/// The last value of a name counts.
fn environment(wanted: &[String], home: &str) -> (Vec<String>, String) {
    fn name(variable: &str) -> &str {
        variable.split_once('=').map_or(variable, |(name, _)| name)
    }
    let mut env: Vec<String> = Vec::with_capacity(wanted.len() + 2);
    for variable in wanted {
        match env.iter_mut().find(|v| name(v) == name(variable)) {
            Some(former) => former.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    let find = |env: &[String], wanted: &str| {
        let found = env.iter().find(|v| name(v) == wanted);
        found.map(|v| v.split_once('=').map_or("", |(_, value)| value).to_owned())
    };
    if find(&env, "PATH").is_none() {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if find(&env, "HOME").is_none_or(|home| home.is_empty()) {
        env.retain(|v| name(v) != "HOME");
        env.push(format!("HOME={home}"));
    }
    let path = find(&env, "PATH").unwrap_or_default();
    (env, path)
}

/// Takes away what the process may not do, for good.
pub fn confine(
    confinement: &Confinement,
    filter: Option<&Filter>,
    identity: &Identity,
) -> Result<()> {
    let mut allowed = 0;
    for bit in 0..64 {
        // Not set here, not given: whatever is asked for, nobody gets more than the engine has.
        match sys::prctl(libc::PR_CAPBSET_READ, bit) {
            Ok(1) if confinement.capabilities & (1 << bit) != 0 => allowed |= 1 << bit,
            Ok(1) => {
                sys::prctl(libc::PR_CAPBSET_DROP, bit)
                    .with_context(|| format!("drop capability {bit}"))?;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    if let Some(name) = &confinement.apparmor {
        apparmor(name).with_context(|| format!("apply apparmor profile {name}"))?;
    }
    if confinement.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).context("set no_new_privs")?;
    }
    let install = |filter| seccomp::install(filter).context("install the filter of system calls");
    if let Some(filter) = filter.filter(|_| !confinement.no_new_privileges) {
        // Before the capability that it needs is gone; a filter must allow what follows.
        install(filter)?;
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).context("keep capabilities")?;
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    nix::unistd::setgroups(&groups).context("set groups")?;
    nix::unistd::setresgid(gid, gid, gid).context("set the group")?;
    nix::unistd::setresuid(uid, uid, uid).context("set the user")?;
    let kept = if identity.uid == 0 { allowed } else { 0 };
    sys::set_capabilities(kept).context("set capabilities")?;
    match filter.filter(|_| confinement.no_new_privileges) {
        Some(filter) => install(filter),
        None => Ok(()),
    }
}

/// The kernel changes to the profile at the execution.
fn apparmor(name: &str) -> std::io::Result<()> {
    let attributes = std::path::Path::new("/proc/self/attr");
    let own = attributes.join("apparmor/exec");
    // Kernels before 5.8 have one file for all security modules.
    let file = if own.exists() {
        own
    } else {
        attributes.join("exec")
    };
    fs_err::write(file, format!("exec {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments() {
        let wanted = ["A=1", "HOME=", "A=2=3"].map(str::to_owned);
        let (env, path) = environment(&wanted, "/root");
        assert_eq!(
            env,
            [
                "A=2=3".to_owned(),
                format!("PATH={DEFAULT_PATH}"),
                "HOME=/root".into()
            ]
        );
        assert_eq!(path, DEFAULT_PATH);
        let (env, path) = environment(&["PATH=/x".to_owned(), "HOME=/h".to_owned()], "/");
        assert_eq!((env.len(), path.as_str()), (2, "/x"));
    }
}
