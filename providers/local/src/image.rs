//! The machines' image: one layer, made in memory, of the init, folders, links into `/usr`, and what programs need of `/etc`.
//!
//! Of `/etc` only what is the same on every computer of its kind is taken: how libraries are found, alternatives, names of
//! services, certificate authorities. Nothing that is anybody's own.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use windlass_engine_api::{Client, RequestBody};
use windlass_provider::{ErrorKind, ProviderError, Result};

use crate::failure;

/// Repository of the images; the tag is the layer's digest.
const REPOSITORY: &str = "windlass/machine";
/// Path of the init in the image.
const INIT: &str = "init";
/// Files and folders of `/etc` that programs in `/usr` need.
const ETC: [&str; 16] = [
    "alternatives",
    "bash.bashrc",
    "debian_version",
    "gai.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/tls/certs",
    "protocols",
    "redhat-release",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
];
/// Larger files are not what programs need to run.
const LARGEST: u64 = 4 << 20;
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n";
const PROFILE: &str = r#"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
[ -z "$BASH" ] || PS1='\u@\h:\w\$ '
"#;

/// Folders with programs or libraries that are links into `/usr` on most computers, and folders of their own on others.
pub const SYSTEM: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// The name of the image with this init, loaded into the engine unless it is there.
pub async fn ensure(client: &Client, init: &Path) -> Result<String> {
    let init = fs::read(init).map_err(failure::of_host("cannot read the machines' init"))?;
    let layer = tokio::task::spawn_blocking(move || layer(&init, Path::new("/")))
        .await
        .map_err(|error| failure::other(format!("the image could not be made: {error}")))?
        .map_err(failure::of_host("cannot make the machines' image"))?;
    let digest = hex::encode(Sha256::digest(&layer));
    let name = format!("{REPOSITORY}:{}", &digest[..12]);
    match client.inspect_image(&name).await {
        Ok(_) => return Ok(name),
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            return Err(failure::of_engine("cannot look for the machines' image")(
                error,
            ));
        }
    }
    let archive = archive(&layer, &digest, &name)
        .map_err(failure::of_host("cannot make the machines' image"))?;
    let load = async {
        let progress = client.load_image(RequestBody::Tar(archive.into())).await?;
        progress.finish().await
    };
    load.await
        .map_err(failure::of_engine("cannot load the machines' image"))?;
    Ok(name)
}

/// Whether machines can be made from this computer's `/usr`.
pub fn check_host() -> Result<()> {
    if Path::new("/usr").is_dir() && Path::new("/bin/sh").exists() {
        return Ok(());
    }
    Err(ProviderError::new(
        ErrorKind::Unsupported,
        "driver `local` shows the machines this computer's /usr, and there is no usual one here",
    )
    .with_hint("use --driver generic for a host that you reach by SSH"))
}

/// `docker save`'s format.
fn archive(layer: &[u8], digest: &str, name: &str) -> std::io::Result<Vec<u8>> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{INIT}")],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "StopSignal": "SIGTERM",
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let manifest = serde_json::json!([{
        "Config": config_name,
        "RepoTags": [name],
        "Layers": ["layer.tar"],
    }]);
    let mut builder = Builder::new(Vec::with_capacity(layer.len() + 16 * 1024));
    for (path, bytes) in [
        (config_name.as_str(), config.as_slice()),
        ("layer.tar", layer),
        ("manifest.json", &serde_json::to_vec(&manifest)?),
    ] {
        builder.append_data(
            &mut header(EntryType::Regular, 0o644, bytes.len()),
            path,
            bytes,
        )?;
    }
    builder.into_inner()
}

/// The files, always in the same order and without times, so that the same host gives the same image.
fn layer(init: &[u8], host: &Path) -> std::io::Result<Vec<u8>> {
    let mut layer = Layer {
        builder: Builder::new(Vec::with_capacity(init.len() + (1 << 20))),
        made: BTreeSet::new(),
    };
    layer.file(INIT, 0o755, init)?;
    for folder in [
        "dev", "etc", "home", "mnt", "opt", "proc", "run", "srv", "sys", "usr", "var",
    ] {
        layer.folder(folder, 0o755)?;
    }
    layer.folder("root", 0o700)?;
    layer.folder("tmp", 0o1777)?;
    for name in SYSTEM {
        match fs::read_link(host.join(name)) {
            Ok(target) => layer.link(name, &target)?,
            Err(_) if host.join(name).is_dir() => layer.folder(name, 0o755)?,
            Err(_) => {}
        }
    }
    layer.link("etc/os-release", Path::new("../usr/lib/os-release"))?;
    layer.link("etc/mtab", Path::new("../proc/self/mounts"))?;
    layer.file("etc/nsswitch.conf", 0o644, NSSWITCH.as_bytes())?;
    layer.file("etc/profile", 0o644, PROFILE.as_bytes())?;
    for name in ETC {
        layer.copy(&host.join("etc").join(name), Path::new("etc").join(name))?;
    }
    layer.builder.into_inner()
}

struct Layer {
    builder: Builder<Vec<u8>>,
    made: BTreeSet<PathBuf>,
}

impl Layer {
    fn folder(&mut self, path: &str, mode: u32) -> std::io::Result<()> {
        if !self.made.insert(path.into()) {
            return Ok(());
        }
        self.builder
            .append_data(&mut header(EntryType::Directory, mode, 0), path, &[][..])
    }

    fn parents(&mut self, path: &Path) -> std::io::Result<()> {
        let parents: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
        for parent in parents.iter().rev() {
            if let Some(text) = parent.to_str().filter(|text| !text.is_empty()) {
                self.folder(text, 0o755)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: impl AsRef<Path>, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
        self.parents(path.as_ref())?;
        self.builder.append_data(
            &mut header(EntryType::Regular, mode, bytes.len()),
            path,
            bytes,
        )
    }

    fn link(&mut self, path: impl AsRef<Path>, target: &Path) -> std::io::Result<()> {
        self.parents(path.as_ref())?;
        self.builder
            .append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)
    }

    /// Copies what everybody may read; what is missing or closed is left out.
    fn copy(&mut self, from: &Path, to: PathBuf) -> std::io::Result<()> {
        let Ok(found) = fs::symlink_metadata(from) else {
            return Ok(());
        };
        let mode = found.permissions().mode();
        if found.is_symlink() {
            let target = fs::read_link(from)?;
            return self.link(to, &target);
        }
        if mode & 0o004 == 0 {
            return Ok(());
        }
        if found.is_file() && found.len() <= LARGEST {
            return self.file(to, mode & 0o755, &fs::read(from)?);
        }
        if found.is_dir() {
            self.parents(&to.join("x"))?;
            let mut names: Vec<_> = fs::read_dir(from)?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<std::io::Result<_>>()?;
            names.sort();
            for name in names {
                self.copy(&from.join(&name), to.join(&name))?;
            }
        }
        Ok(())
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read as _;

    fn entries(bytes: &[u8]) -> BTreeMap<String, (EntryType, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let link = entry.link_name().unwrap();
            let content = link.map_or(bytes, |to| to.to_str().unwrap().as_bytes().to_vec());
            (path, (entry.header().entry_type(), content))
        });
        entries.collect()
    }

    fn host() -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        let write = |path: &str, mode: u32| {
            let path = host.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "content").unwrap();
            fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("etc/ld.so.cache", 0o644);
        write("etc/ssl/certs/ca.pem", 0o644);
        write("etc/ssl/certs/own.key", 0o600);
        write("etc/ssl/private/host.key", 0o600);
        write("etc/shadow", 0o640);
        write("etc/hostname", 0o644);
        write("root/.ssh/id_ed25519", 0o600);
        write("home/me/notes", 0o644);
        write("sbin/real", 0o755);
        fs::os::unix::fs::symlink("usr/bin", host.path().join("bin")).unwrap();
        host
    }

    #[test]
    fn the_layer_has_what_programs_need_and_no_secret() {
        let host = host();
        let layer = layer(b"elf", host.path()).unwrap();
        let found = entries(&layer);
        assert_eq!(found["init"].1, b"elf");
        assert_eq!(found["bin"], (EntryType::Symlink, b"usr/bin".to_vec()));
        assert_eq!(found["sbin"].0, EntryType::Directory, "to be mounted on");
        assert_eq!(found["etc/ld.so.cache"].1, b"content");
        assert!(found.contains_key("etc/ssl/certs/ca.pem"));
        for absent in [
            "shadow",
            "hostname",
            "private",
            "own.key",
            "id_ed25519",
            "notes",
            "real",
        ] {
            let hit = found.keys().find(|path| path.contains(absent));
            assert_eq!(hit, None, "{absent}");
        }
        assert_eq!(
            layer,
            super::layer(b"elf", host.path()).unwrap(),
            "the same again"
        );
    }

    #[test]
    fn the_archive_names_what_it_holds() {
        let archive = archive(b"layer", "00ff", "windlass/machine:x").unwrap();
        let found = entries(&archive);
        let manifest: serde_json::Value =
            serde_json::from_slice(&found["manifest.json"].1).unwrap();
        let config = manifest[0]["Config"].as_str().unwrap();
        let config: serde_json::Value = serde_json::from_slice(&found[config].1).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], "sha256:00ff");
        assert_eq!(config["config"]["Entrypoint"][0], "/init");
        assert_eq!(found["layer.tar"].1, b"layer");
    }
}
