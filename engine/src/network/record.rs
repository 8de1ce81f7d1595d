//! What is kept about a network, in a file each; and how the API shows it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use windlass_engine_api::types::{Ipam, IpamConfig, NetworkInspect, StringMap};

use super::subnet::Subnet;

/// A network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// 64 hex digits.
    pub id: String,
    /// Its name; `bridge` is the default network.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// The interface.
    pub bridge: String,
    /// Its addresses.
    pub subnet: String,
    /// The host's own address in it.
    pub gateway: Ipv4Addr,
    /// No way out and none in.
    #[serde(default)]
    pub internal: bool,
    /// As asked for; nothing depends on it.
    #[serde(default)]
    pub attachable: bool,
    /// The user's.
    #[serde(default)]
    pub labels: StringMap,
}

impl Record {
    /// Whether it is the default network, where names are not resolved.
    pub fn is_default(&self) -> bool {
        self.name == "bridge"
    }

    /// The addresses as a value; a record is only written with valid ones.
    pub fn range(&self) -> Subnet {
        Subnet::parse(&self.subnet).unwrap_or_else(|| Subnet::around(self.gateway, 32))
    }

    /// As the API shows it.
    pub fn to_wire(&self) -> NetworkInspect {
        let pool = IpamConfig {
            subnet: self.subnet.clone(),
            gateway: self.gateway.to_string(),
            ..IpamConfig::default()
        };
        let options = [(
            "com.docker.network.bridge.name".to_owned(),
            self.bridge.clone(),
        )];
        NetworkInspect {
            name: self.name.clone(),
            id: self.id.clone(),
            created: self.created.clone(),
            scope: "local".to_owned(),
            driver: "bridge".to_owned(),
            enable_ipv4: true,
            ipam: Ipam {
                driver: "default".to_owned(),
                options: None,
                config: vec![pool],
            },
            internal: self.internal,
            attachable: self.attachable,
            options: options.into(),
            labels: self.labels.clone(),
            ..NetworkInspect::default()
        }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.json", self.id))
    }

    /// Puts it safely on disk.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        use std::io::Write as _;
        let path = self.path(folder);
        let new = path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        fs::File::open(folder)?.sync_all()
    }

    /// Takes it off the disk.
    pub fn forget(&self, folder: &Path) -> std::io::Result<()> {
        match fs::remove_file(self.path(folder)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => fs::File::open(folder)?.sync_all(),
        }
    }
}

/// All records of a folder; one that cannot be read is reported and left alone.
pub fn load(folder: &Path) -> std::io::Result<Vec<Record>> {
    fs::create_dir_all(folder)?;
    let mut records = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        match serde_json::from_slice::<Record>(&fs::read(&path)?) {
            Ok(record) => records.push(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a network's record is unreadable");
            }
        }
    }
    Ok(records)
}

/// `host` and `none`: they have nothing but a name.
pub fn without_bridge(name: &str, created: &str) -> NetworkInspect {
    use sha2::Digest as _;
    let driver = if name == "none" { "null" } else { name };
    NetworkInspect {
        name: name.to_owned(),
        id: hex::encode(sha2::Sha256::digest(format!("windlass network {name}"))),
        created: created.to_owned(),
        scope: "local".to_owned(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            ..Ipam::default()
        },
        ..NetworkInspect::default()
    }
}
