//! The device files of a container and what it may do with them.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use windlass_engine_api::types::{DeviceMapping, HostConfig};

use super::task::{Device, DeviceRule};
use crate::container::error::{Error, Result};

/// What a container has.
#[derive(Debug)]
pub struct Devices {
    /// Files.
    pub files: Vec<Device>,
    /// `None`: it may do everything.
    pub rules: Option<Vec<DeviceRule>>,
}

impl Devices {
    /// Docker's default devices become this user's; those of the host stay whose they are.
    pub fn give_own(&mut self, root: (u32, u32)) {
        for file in self.files.iter_mut().take(DEFAULTS) {
            file.owner = root;
        }
    }
}

/// Devices that every container has.
const DEFAULTS: usize = 6;

/// Docker's defaults and `--device`, `--device-cgroup-rule`, `--privileged`.
pub fn plan(host: &HostConfig) -> Result<Devices> {
    let character = |path: &str, major, minor| Device {
        path: path.to_owned(),
        mode: libc::S_IFCHR | 0o666,
        rdev: libc::makedev(major, minor),
        owner: (0, 0),
    };
    let mut files = vec![
        character("/dev/null", 1, 3),
        character("/dev/zero", 1, 5),
        character("/dev/full", 1, 7),
        character("/dev/random", 1, 8),
        character("/dev/urandom", 1, 9),
        character("/dev/tty", 5, 0),
    ];
    let rule = |kind, major, minor, access: &str| DeviceRule {
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    let mut rules = vec![
        rule('c', None, None, "m"),
        rule('b', None, None, "m"),
        rule('c', Some(5), Some(1), "rwm"),
        rule('c', Some(5), Some(2), "rwm"),
        rule('c', Some(136), None, "rwm"),
        // For tunnels, where the device is given.
        rule('c', Some(10), Some(200), "rwm"),
    ];
    for mapping in &host.devices {
        let from = files.len();
        let target = match mapping.path_in_container.as_str() {
            "" => &mapping.path_on_host,
            other => other,
        };
        add(
            Path::new(&mapping.path_on_host),
            target,
            mapping,
            &mut files,
        )?;
        if files.len() == from {
            return Err(Error::invalid(format!(
                "error gathering device information while adding custom device \"{}\": not a device node",
                mapping.path_on_host
            )));
        }
    }
    for file in &files {
        let kind = if file.mode & libc::S_IFMT == libc::S_IFBLK {
            'b'
        } else {
            'c'
        };
        let (major, minor) = (libc::major(file.rdev), libc::minor(file.rdev));
        let mapping = host.devices.iter().find(|m| covers(m, &file.path));
        let access = mapping.map_or("rwm", |m| match m.cgroup_permissions.as_str() {
            "" => "rwm",
            other => other,
        });
        rules.push(rule(kind, Some(major), Some(minor), access));
    }
    for text in &host.device_cgroup_rules {
        rules.push(parse(text)?);
    }
    Ok(Devices {
        files,
        rules: (!host.privileged).then_some(rules),
    })
}

/// As C says it, in lower case.
fn plain(error: &std::io::Error) -> String {
    let errno = error.raw_os_error().map(nix::errno::Errno::from_raw);
    errno.map_or_else(|| error.to_string(), |e| e.desc().to_lowercase())
}

fn covers(mapping: &DeviceMapping, path: &str) -> bool {
    let target = match mapping.path_in_container.as_str() {
        "" => &mapping.path_on_host,
        other => other,
    };
    Path::new(path).starts_with(target)
}

/// A device, or all devices in a folder.
fn add(path: &Path, target: &str, mapping: &DeviceMapping, files: &mut Vec<Device>) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(|e| {
        Error::invalid(format!(
            "error gathering device information while adding custom device \"{}\": {}",
            mapping.path_on_host,
            plain(&e)
        ))
    })?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        for entry in fs_err::read_dir(path)?.flatten() {
            let name = entry.file_name();
            let target = format!("{target}/{}", name.to_string_lossy());
            if !entry.file_type().is_ok_and(|t| t.is_symlink()) {
                add(&entry.path(), &target, mapping, files)?;
            }
        }
    } else if kind.is_char_device() || kind.is_block_device() {
        files.push(Device {
            path: target.to_owned(),
            mode: metadata.mode(),
            rdev: metadata.rdev(),
            owner: (metadata.uid(), metadata.gid()),
        });
    }
    Ok(())
}

/// `c 1:3 mr`, `b *:* rwm`, `a *:* rwm`.
fn parse(text: &str) -> Result<DeviceRule> {
    let bad = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words[..] else {
        return Err(bad());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |n: &str| match n {
        "*" => Ok(None),
        n => n.parse().map(Some).map_err(|_| bad()),
    };
    if access.is_empty() || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(bad());
    }
    Ok(DeviceRule {
        kind: kind.chars().next().unwrap_or('a'),
        major: number(major)?,
        minor: number(minor)?,
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let mapping = DeviceMapping {
            path_on_host: "/dev/null".to_owned(),
            path_in_container: "/dev/nil".to_owned(),
            cgroup_permissions: "r".to_owned(),
        };
        let host = HostConfig {
            devices: vec![mapping],
            device_cgroup_rules: vec!["c 42:* rw".to_owned()],
            ..HostConfig::default()
        };
        let devices = plan(&host).unwrap();
        assert_eq!(devices.files.last().unwrap().path, "/dev/nil");
        let rules = devices.rules.unwrap();
        assert!(
            rules
                .iter()
                .any(|r| r.major == Some(42) && r.minor.is_none())
        );
        assert!(rules.iter().any(|r| r.major == Some(1) && r.access == "r"));
        for bad in ["x 1:1 r", "c 1 r", "c 1:1 q", "c 1:y r", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let gone = HostConfig {
            devices: vec![DeviceMapping {
                path_on_host: "/dev/windlass-none".to_owned(),
                ..DeviceMapping::default()
            }],
            ..HostConfig::default()
        };
        assert!(plan(&gone).is_err());
    }
}
