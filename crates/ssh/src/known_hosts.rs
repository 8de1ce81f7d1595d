//! Reading `known_hosts` files: plain, pattern and hashed names, `@revoked`. `@cert-authority` lines are passed over.

use std::path::Path;

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use sha1::Sha1;

use crate::glob;

/// The keys on file for one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownKeys {
    pub keys: Vec<PublicKey>,
    pub revoked: Vec<PublicKey>,
}

/// The name under which a host is filed: `host`, or `[host]:port`.
pub(crate) fn host_name(host: &str, port: u16) -> String {
    if port == 22 {
        host.to_owned()
    } else {
        format!("[{host}]:{port}")
    }
}

/// The keys of `name` in a file; a file that is not there knows nothing.
pub(crate) fn read(path: &Path, name: &str) -> std::io::Result<KnownKeys> {
    match fs_err::read_to_string(path) {
        Ok(text) => Ok(find(&text, name)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(KnownKeys::default()),
        Err(e) => Err(e),
    }
}

/// The keys of `name` in the text of a file. Lines that cannot be read are passed over, as OpenSSH does.
pub(crate) fn find(text: &str, name: &str) -> KnownKeys {
    let mut known = KnownKeys::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@'));
        let (Some(names), Some(_), Some(key)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if names.starts_with('#') || !is_named(names, name) {
            continue;
        }
        let Ok(key) = russh::keys::parse_public_key_base64(key) else {
            continue;
        };
        match marker {
            None => known.keys.push(key),
            Some("@revoked") => known.revoked.push(key),
            Some(_) => {}
        }
    }
    known
}

fn is_named(names: &str, name: &str) -> bool {
    if let Some(hashed) = names.strip_prefix("|1|") {
        return is_hash_of(hashed, name);
    }
    let lower = name.to_ascii_lowercase();
    let names = names.to_ascii_lowercase();
    glob::matches_list(names.split(','), &lower)
}

fn is_hash_of(hashed: &str, name: &str) -> bool {
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    let Some((salt, hash)) = hashed.split_once('|') else {
        return false;
    };
    let (Some(salt), Some(hash)) = (decode(salt), decode(hash)) else {
        return false;
    };
    let Ok(mac) = Hmac::<Sha1>::new_from_slice(&salt) else {
        return false;
    };
    mac.chain_update(name.to_ascii_lowercase())
        .verify_slice(&hash)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyPair;

    #[test]
    fn names_patterns_and_markers() {
        let one = KeyPair::generate("").unwrap().public;
        let two = KeyPair::generate("").unwrap().public;
        let text = format!(
            "# a comment here\n\nweb1,203.0.113.5 {one}\n[web1]:2222 {two}\n*.lan,!bad.lan  {two}\n\
             @revoked web3 {one}\n@cert-authority web3 {two}\nweb4 ssh-ed25519 nonsense\n"
        );
        let count = |name: &str| {
            let known = find(&text, name);
            (known.keys.len(), known.revoked.len())
        };
        assert_eq!(count("web1"), (1, 0));
        assert_eq!(count("WEB1"), (1, 0));
        assert_eq!(count("203.0.113.5"), (1, 0));
        assert_eq!(count("[web1]:2222"), (1, 0));
        assert_eq!(count("a.lan"), (1, 0));
        assert_eq!(count("bad.lan"), (0, 0));
        assert_eq!(count("web3"), (0, 1));
        assert_eq!(count("web4"), (0, 0));
        assert_eq!(count("web5"), (0, 0));
    }

    #[test]
    fn hashed_names_as_ssh_keygen_makes_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known_hosts");
        let key = KeyPair::generate("").unwrap().public;
        fs_err::write(&path, format!("[web1]:2222 {key}\n")).unwrap();
        let status = std::process::Command::new("ssh-keygen")
            .args(["-q", "-H", "-f"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        assert!(fs_err::read_to_string(&path).unwrap().starts_with("|1|"));
        assert_eq!(read(&path, "[web1]:2222").unwrap().keys.len(), 1);
        assert_eq!(read(&path, "web1").unwrap().keys.len(), 0);
    }
}
