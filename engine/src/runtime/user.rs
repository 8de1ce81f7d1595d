//! `user[:group]` → numbers, by the container's `/etc/passwd` and `/etc/group`. Pure but for reading the two.

use anyhow::{Result, bail};

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Of each of the two, in bytes.
const LARGEST: u64 = 16 << 20;

/// A regular file: the container may have put a FIFO there that nobody writes to, or a device without an end.
fn read(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut open = std::fs::OpenOptions::new();
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = open.read(true).custom_flags(flags).open(path)?;
    let mut content = Vec::new();
    if file.metadata()?.is_file() {
        file.take(LARGEST).read_to_end(&mut content)?;
    }
    Ok(content)
}

/// Looks it up where this process' root is.
pub fn find(user: &str, further: &[String]) -> Result<Identity> {
    let read = |path| read(path).unwrap_or_default();
    resolve(
        user,
        further,
        &String::from_utf8_lossy(&read("/etc/passwd")),
        &String::from_utf8_lossy(&read("/etc/group")),
    )
}

fn resolve(user: &str, further: &[String], passwd: &str, group: &str) -> Result<Identity> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, group),
        None => (user, ""),
    };
    let user = if user.is_empty() { "0" } else { user };
    let line = fields(passwd)
        .find(|f| f.first() == Some(&user))
        .or_else(|| fields(passwd).find(|f| f.get(2) == Some(&user)));
    let mut found = Identity {
        home: "/".to_owned(),
        ..Identity::default()
    };
    let mut name = "";
    match line {
        Some(line) => {
            name = line[0];
            found.uid = number(line.get(2))?;
            found.gid = number(line.get(3))?;
            if let Some(home) = line.get(5).filter(|h| !h.is_empty()) {
                found.home = (*home).to_owned();
            }
        }
        None => match user.parse::<i64>() {
            Ok(_) => found.uid = number(Some(&user))?,
            Err(_) => bail!("unable to find user {user}: no matching entries in passwd file"),
        },
    }
    if wanted_group.is_empty() {
        let member = |f: &Vec<&str>| {
            !name.is_empty() && f.get(3).is_some_and(|m| m.split(',').any(|m| m == name))
        };
        let ids = fields(group)
            .filter(member)
            .filter_map(|f| number(f.get(2)).ok());
        found.groups.extend(ids);
    } else {
        found.gid = group_id(wanted_group, group)?;
    }
    for name in further {
        found.groups.push(group_id(name, group)?);
    }
    // The first group is one of those that a process may be in, so that giving it up gains nothing.
    found.groups.insert(0, found.gid);
    let mut seen = std::collections::BTreeSet::new();
    found.groups.retain(|g| seen.insert(*g));
    Ok(found)
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|l| l.trim().split(':').collect::<Vec<_>>())
        .filter(|f| !f[0].is_empty() && !f[0].starts_with('#'))
}

/// The last one means "unchanged" to the kernel, which would be root.
const HIGHEST: u32 = i32::MAX as u32;

const OUT_OF_RANGE: &str = "uids and gids must be in range 0-2147483647";

fn number(field: Option<&&str>) -> Result<u32> {
    let text = field.copied().unwrap_or_default();
    match text.parse() {
        Ok(number) if number > HIGHEST => {
            bail!("{OUT_OF_RANGE}")
        }
        Ok(number) => Ok(number),
        Err(_) if text.parse::<i64>().is_ok() => bail!("{OUT_OF_RANGE}"),
        Err(_) => bail!("'{text}' in the container's passwd file is no number"),
    }
}

fn group_id(wanted: &str, group: &str) -> Result<u32> {
    let by_name = fields(group).find(|f| f[0] == wanted);
    let text = by_name.as_ref().and_then(|f| f.get(2)).unwrap_or(&wanted);
    match text.parse::<u32>() {
        Ok(_) => number(Some(text)),
        Err(_) => bail!("unable to find group {wanted}: no matching entries in group file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n# no\nodd:x:a:b\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlog:x:40:web,root\n7:x:70:\n";

    #[test]
    fn names_and_numbers() {
        let find = |user: &str, more: &[&str]| {
            let more: Vec<String> = more.iter().map(|s| (*s).to_owned()).collect();
            resolve(user, &more, PASSWD, GROUP)
        };
        let root = find("", &[]).unwrap();
        assert_eq!((root.uid, root.home.as_str()), (0, "/root"));
        let web = find("web", &["log", "99"]).unwrap();
        assert_eq!((web.uid, web.gid, web.groups), (33, 33, vec![33, 40, 99]));
        let mixed = find("33:log", &[]).unwrap();
        assert_eq!((mixed.uid, mixed.gid, mixed.groups), (33, 40, vec![40]));
        let unknown = find("1000", &[]).unwrap();
        assert_eq!(
            (unknown.uid, unknown.gid, unknown.home.as_str()),
            (1000, 0, "/")
        );
        assert_eq!(find("0:7", &[]).unwrap().gid, 70);
        let error = find("nobody", &[]).unwrap_err().to_string();
        assert!(error.contains("unable to find user nobody"), "{error}");
        assert!(find("web:none", &[]).is_err() && find("odd", &[]).is_err());
        for unchanged in ["4294967295", "0:4294967295"] {
            let error = find(unchanged, &[]).unwrap_err().to_string();
            assert!(error.contains("in range 0-2147483647"), "{error}");
        }
    }
}
