//! User namespaces (`userns-remap`): which of the host's ids stand for a container's.
//!
//! Images and writable layers keep the container's own numbers on disk; mounts shift them. Deliberately absent: making the user
//! `dockremap`, which is the administrator's to do.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::runtime::user_namespace::Namespace;

/// The user of `"default"`.
const DEFAULT: &str = "dockremap";

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first one in the container.
    pub inside: u32,
    /// The first one on the host.
    pub outside: u32,
    /// How many.
    pub length: u32,
}

/// Users and groups of containers, and what they are on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maps {
    /// Users.
    pub users: Vec<Range>,
    /// Groups.
    pub groups: Vec<Range>,
}

fn outside(ranges: &[Range], id: u32) -> Option<u32> {
    let range = ranges
        .iter()
        .find(|r| id >= r.inside && id - r.inside < r.length)?;
    range.outside.checked_add(id - range.inside)
}

fn inside(ranges: &[Range], id: u32) -> Option<u32> {
    let range = ranges
        .iter()
        .find(|r| id >= r.outside && id - r.outside < r.length)?;
    range.inside.checked_add(id - range.outside)
}

/// What the kernel shows in place of an id that has none.
const NOBODY: u32 = 65534;

impl Maps {
    /// What a container's root is on the host.
    pub fn root(&self) -> (u32, u32) {
        self.outside((0, 0)).unwrap_or((NOBODY, NOBODY))
    }

    /// A container's user and group, as the host sees them.
    pub fn outside(&self, (user, group): (u32, u32)) -> Option<(u32, u32)> {
        Some((outside(&self.users, user)?, outside(&self.groups, group)?))
    }

    /// The host's user and group, as a container sees them.
    pub fn inside(&self, (user, group): (u32, u32)) -> (u32, u32) {
        (
            inside(&self.users, user).unwrap_or(NOBODY),
            inside(&self.groups, group).unwrap_or(NOBODY),
        )
    }

    /// Those of a running process; `None`: it sees the host's ids.
    pub fn of_process(pid: i32) -> Result<Option<Self>> {
        let Ok(own) = fs::read_to_string("/proc/self/uid_map") else {
            // A kernel without user namespaces.
            return Ok(None);
        };
        let read = |kind: &str| -> Result<Vec<Range>> {
            parse_map(&fs::read_to_string(format!("/proc/{pid}/{kind}_map"))?)
        };
        let maps = Self {
            users: read("uid")?,
            groups: read("gid")?,
        };
        let own = parse_map(&own)?;
        Ok(Some(maps).filter(|maps| maps.users != own))
    }

    /// As the kernel reads them.
    pub fn text(ranges: &[Range]) -> String {
        let lines = ranges
            .iter()
            .map(|r| format!("{} {} {}\n", r.inside, r.outside, r.length));
        lines.collect()
    }

    /// What the settings file's `userns-remap` means; `None`: nothing is shifted.
    pub fn find(wanted: &str) -> Result<Option<Self>> {
        Self::find_in(wanted, Path::new("/etc"))
    }

    fn find_in(wanted: &str, etc: &Path) -> Result<Option<Self>> {
        let read = |name: &str| fs::read_to_string(etc.join(name)).unwrap_or_default();
        let (user, group) = names(wanted, &read("passwd"), &read("group"))?;
        if user.name == "root" {
            tracing::warn!(
                "'userns-remap': root cannot be remapped with itself; user namespaces are off"
            );
            return Ok(None);
        }
        Ok(Some(Self {
            users: subordinate(&etc.join("subuid"), &user)?,
            groups: subordinate(&etc.join("subgid"), &group)?,
        }))
    }
}

fn parse_map(text: &str) -> Result<Vec<Range>> {
    let lines = text.lines().map(|line| {
        let numbers: Vec<u32> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [inside, outside, length] = numbers[..] else {
            bail!("'{line}' is no map of ids");
        };
        Ok(Range {
            inside,
            outside,
            length,
        })
    });
    lines.collect()
}

/// One line of `/etc/passwd` or `/etc/group`.
#[derive(Debug, Clone)]
struct Known {
    name: String,
    number: String,
    primary: String,
}

fn known(text: &str, wanted: &str) -> Option<Known> {
    let fields = text.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let is_number = wanted.parse::<u32>().is_ok();
    let mut found = fields.filter(|f| f.len() > 2 && f[if is_number { 2 } else { 0 }] == wanted);
    found.next().map(|f| Known {
        name: f[0].to_owned(),
        number: f[2].to_owned(),
        primary: f.get(3).copied().unwrap_or_default().to_owned(),
    })
}

/// `default`, `user`, `user:group`, by name or number.
fn names(wanted: &str, passwd: &str, group: &str) -> Result<(Known, Known)> {
    let (user, of_group) = match wanted.split_once(':') {
        Some((user, group)) if !group.contains(':') && !group.is_empty() => (user, Some(group)),
        Some(_) => bail!("'userns-remap': invalid user/group specification: \"{wanted}\""),
        None => (wanted, None),
    };
    let user = if user == "default" { DEFAULT } else { user };
    let found = known(passwd, user).with_context(|| {
        let how = if user == DEFAULT {
            " (`useradd --system dockremap` makes it)"
        } else {
            ""
        };
        format!("'userns-remap': there is no user \"{user}\" in /etc/passwd{how}")
    })?;
    let of_group = of_group.unwrap_or(&found.primary);
    let group = known(group, of_group).with_context(|| {
        format!("'userns-remap': there is no group \"{of_group}\" in /etc/group")
    })?;
    Ok((found, group))
}

/// All ranges of a user or group, joined from 0 on.
fn subordinate(file: &Path, of: &Known) -> Result<Vec<Range>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut ranges = Vec::new();
    let mut next = 0u32;
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [name, first, count] = fields[..] else {
            continue;
        };
        if name != of.name && name != of.number {
            continue;
        }
        let bad = || format!("'userns-remap': {}: bad line '{line}'", file.display());
        let outside: u32 = first.parse().with_context(bad)?;
        let length: u32 = count.parse().with_context(bad)?;
        let end = next.checked_add(length);
        let fits = length > 0 && outside > 0 && outside.checked_add(length).is_some();
        let Some(end) = end.filter(|_| fits) else {
            bail!("{}", bad());
        };
        ranges.push(Range {
            inside: next,
            outside,
            length,
        });
        next = end;
    }
    if ranges.is_empty() {
        bail!(
            "'userns-remap': {} has no range for \"{name}\"; add a line like {name}:100000:65536",
            file.display(),
            name = of.name,
        );
    }
    Ok(ranges)
}

/// What the engine needs to shift ids: the maps, and a user namespace that stands for them.
#[derive(Debug)]
pub struct Remap {
    /// The maps.
    pub maps: Maps,
    /// By it the kernel knows them.
    pub namespace: Namespace,
}

impl Remap {
    /// By the settings file.
    pub fn open(wanted: Option<&str>) -> Result<Option<Self>> {
        let Some(maps) = wanted
            .filter(|wanted| !wanted.is_empty())
            .map(Maps::find)
            .transpose()?
            .flatten()
        else {
            return Ok(None);
        };
        let namespace = Namespace::new(&maps).context("make a user namespace")?;
        Ok(Some(Self { maps, namespace }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined() {
        let etc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(etc.path().join(name), text).unwrap();
        write("passwd", "root:x:0:0::/:\nsail:x:1001:1002::/:\n");
        write("group", "root:x:0:\nsea:x:1002:\nhand:x:1003:\n");
        let find = |wanted: &str| Maps::find_in(wanted, etc.path());
        let error = find("sail").unwrap_err().to_string();
        assert!(
            error.contains("subuid has no range for \"sail\"; add a line like sail:100000:65536"),
            "{error}"
        );
        write("subuid", "sail:100000:1000\nother:1:2\n1001:300000:500\n");
        write("subgid", "sea:200000:70\nhand:5000:9\n");
        let maps = find("sail").unwrap().unwrap();
        assert_eq!(maps.users.len(), 2);
        assert_eq!(maps.root(), (100_000, 200_000));
        assert_eq!(maps.outside((1001, 69)), Some((300_001, 200_069)));
        assert_eq!(maps.outside((1500, 0)), None);
        assert_eq!(maps.inside((300_001, 0)), (1001, NOBODY));
        assert_eq!(Maps::text(&maps.users), "0 100000 1000\n1000 300000 500\n");
        assert_eq!(find("1001:1003").unwrap().unwrap().root(), (100_000, 5000));
        assert_eq!(find("root").unwrap(), None);
        for (wanted, words) in [
            ("default", "no user \"dockremap\""),
            ("nobody", "no user \"nobody\""),
            ("sail:no", "no group \"no\""),
            ("a:b:c", "invalid user/group specification"),
        ] {
            let error = find(wanted).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        for bad in [
            "sail:x:1\n",
            "sail:0:10\n",
            "sail:4294967295:10\n",
            "sail:5:0\n",
        ] {
            write("subuid", bad);
            assert!(find("sail").unwrap_err().to_string().contains("bad line"));
        }
    }
}
