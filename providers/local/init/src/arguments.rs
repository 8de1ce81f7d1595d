//! What the program is used for.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Use {
    /// Be the first process of a machine.
    Boot,
    /// Serve SSH, and nothing else.
    Serve(Server),
    /// Start a program in the background and print its process number.
    Detach(Vec<OsString>),
}

/// Where the SSH server listens, and its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address and port.
    pub address: SocketAddr,
    /// OpenSSH public keys that may log in, one a line; read at each login.
    pub authorized_keys: PathBuf,
    /// OpenSSH private key; made when it is missing.
    pub host_key: PathBuf,
}

/// Without arguments it boots, which only PID 1 may: a machine's server listens on every address of its network namespace.
pub fn parse(arguments: Vec<OsString>, pid: u32) -> Result<Use> {
    let mut rest = arguments.into_iter();
    let Some(first) = rest.next() else {
        if pid != 1 {
            bail!("this is the first process of a local machine, and not for use by hand");
        }
        return Ok(Use::Boot);
    };
    match first.to_str() {
        Some("serve") => serve(rest).map(Use::Serve),
        Some("detach") => {
            let command: Vec<OsString> = rest.collect();
            if command.is_empty() {
                bail!("detach needs a program");
            }
            Ok(Use::Detach(command))
        }
        _ => bail!("`{}` is not understood", first.to_string_lossy()),
    }
}

fn serve(mut rest: impl Iterator<Item = OsString>) -> Result<Server> {
    let (mut address, mut keys, mut host_key) = (None, None, None);
    while let Some(flag) = rest.next() {
        let value = rest
            .next()
            .with_context(|| format!("`{}` needs a value", flag.to_string_lossy()))?;
        match flag.to_str() {
            Some("--address") => {
                let text = value.to_string_lossy().into_owned();
                address = Some(
                    text.parse()
                        .with_context(|| format!("--address `{text}`"))?,
                );
            }
            Some("--authorized-keys") => keys = Some(value.into()),
            Some("--host-key") => host_key = Some(value.into()),
            _ => bail!("`{}` is not understood", flag.to_string_lossy()),
        }
    }
    Ok(Server {
        address: address.context("--address is missing")?,
        authorized_keys: keys.context("--authorized-keys is missing")?,
        host_key: host_key.context("--host-key is missing")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn uses() {
        assert_eq!(parse(Vec::new(), 1).unwrap(), Use::Boot);
        assert!(parse(Vec::new(), 7).is_err(), "only PID 1 boots");
        let Use::Serve(server) = parse(
            words("serve --address 127.0.0.1:2222 --authorized-keys /a --host-key /h"),
            7,
        )
        .unwrap() else {
            panic!("serve")
        };
        assert_eq!(server.address.port(), 2222);
        assert_eq!(
            parse(words("detach a b"), 7).unwrap(),
            Use::Detach(words("a b"))
        );
        for bad in [
            "detach",
            "serve",
            "serve --address",
            "serve --address x",
            "fly",
        ] {
            assert!(parse(words(bad), 7).is_err(), "{bad}");
        }
    }
}
