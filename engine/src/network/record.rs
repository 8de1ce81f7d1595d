//! What is kept about a network, in a file each; and how the API shows it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use windlass_engine_api::types::{ConfigReference, Ipam, IpamConfig, NetworkInspect, StringMap};

use super::options::{self, Options};
use super::subnet::{Family, Subnet};

/// What makes a network's interfaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the host.
    #[default]
    Bridge,
    /// Interfaces beside one of the host, each with a hardware address.
    Macvlan,
    /// Interfaces beside one of the host, with its hardware address.
    Ipvlan,
}

impl Driver {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

/// A network's addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of them.
    pub subnet: Subnet,
    /// Where containers get theirs from, if not from all.
    #[serde(default)]
    pub range: Option<Subnet>,
    /// The way out; on a bridge the host's own address.
    pub gateway: IpAddr,
    /// Addresses that others use.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// Asked for: only then may a container choose its address.
    #[serde(default)]
    pub configured: bool,
}

impl Pool {
    /// With its first address as the gateway.
    pub fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            range: None,
            gateway: subnet.at(1),
            auxiliary: BTreeMap::new(),
            configured: false,
        }
    }

    fn to_wire(&self) -> IpamConfig {
        IpamConfig {
            subnet: self.subnet.to_string(),
            ip_range: self.range.map(|r| r.to_string()).unwrap_or_default(),
            gateway: self.gateway.to_string(),
            auxiliary_addresses: self
                .auxiliary
                .iter()
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect(),
        }
    }
}

/// A network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// 64 hex digits.
    pub id: String,
    /// Its name; `bridge` is the default network.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Of what kind it is.
    #[serde(default)]
    pub driver: Driver,
    /// The interface: the bridge, or that of the host which it is beside.
    pub bridge: String,
    /// Its addresses as older engines wrote them.
    #[serde(default, skip_serializing)]
    pub(super) subnet: Option<Subnet>,
    /// See [`Record::subnet`].
    #[serde(default, skip_serializing)]
    pub(super) gateway: Option<Ipv4Addr>,
    /// Its IPv4 addresses.
    #[serde(default)]
    pub v4: Option<Pool>,
    /// Its IPv6 addresses.
    #[serde(default)]
    pub v6: Option<Pool>,
    /// IPv6 addresses that were named, without IPv6 being switched on: they are shown, and nobody gets one.
    #[serde(default)]
    pub spare_v6: Option<Pool>,
    /// No way out and none in.
    #[serde(default)]
    pub internal: bool,
    /// As asked for; nothing depends on it.
    #[serde(default)]
    pub attachable: bool,
    /// It only lends its configuration to others.
    #[serde(default)]
    pub config_only: bool,
    /// Whose configuration it has.
    #[serde(default)]
    pub config_from: String,
    /// The driver's, as asked for.
    #[serde(default)]
    pub options: StringMap,
    /// Those of the address management.
    #[serde(default)]
    pub ipam_options: Option<StringMap>,
    /// The user's.
    #[serde(default)]
    pub labels: StringMap,
}

impl Record {
    /// Whether it is the default network, where names are not resolved.
    pub fn is_default(&self) -> bool {
        self.name == "bridge"
    }

    /// The addresses of a family.
    pub fn pool(&self, family: Family) -> Option<&Pool> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// All addresses.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.v4.iter().chain(&self.v6)
    }

    /// What its options say; a record is only written with valid ones.
    pub fn settings(&self) -> Options {
        options::read(&self.options).unwrap_or_default()
    }

    /// Whether its interface is a bridge that the engine makes.
    pub fn has_bridge(&self) -> bool {
        self.driver == Driver::Bridge && !self.config_only
    }

    /// As the API shows it.
    pub fn to_wire(&self) -> NetworkInspect {
        let options = if self.is_default() {
            options::of_default(&self.bridge)
        } else {
            self.options.clone()
        };
        NetworkInspect {
            name: self.name.clone(),
            id: self.id.clone(),
            created: self.created.clone(),
            scope: "local".to_owned(),
            driver: if self.config_only {
                "null".to_owned()
            } else {
                self.driver.as_str().to_owned()
            },
            enable_ipv4: self.v4.is_some() || self.config_only,
            enable_ipv6: self.v6.is_some(),
            ipam: Ipam {
                driver: "default".to_owned(),
                options: self.ipam_options.clone(),
                config: self
                    .pools()
                    .chain(&self.spare_v6)
                    .map(Pool::to_wire)
                    .collect(),
            },
            internal: self.internal,
            attachable: self.attachable,
            config_from: ConfigReference {
                network: self.config_from.clone(),
            },
            config_only: self.config_only,
            options,
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

    /// An older engine's record as it is written now.
    fn renewed(mut self) -> Self {
        if let (None, Some(subnet)) = (&self.v4, self.subnet.take()) {
            let mut pool = Pool::new(subnet);
            pool.gateway = self.gateway.map_or(pool.gateway, IpAddr::V4);
            self.v4 = Some(pool);
        }
        self
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
            Ok(record) => records.push(record.renewed()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_engines_record_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let older = r#"{"id":"ab","name":"back","created":"","bridge":"wl-ab","subnet":"10.1.0.0/16","gateway":"10.1.0.9"}"#;
        fs::write(folder.path().join("ab.json"), older).unwrap();
        fs::write(folder.path().join("cd.json"), "{").unwrap();
        let records = load(folder.path()).unwrap();
        let pool = records[0].v4.as_ref().unwrap();
        assert_eq!(pool.subnet.to_string(), "10.1.0.0/16");
        assert_eq!(pool.gateway.to_string(), "10.1.0.9");
        records[0].save(folder.path()).unwrap();
        assert_eq!(load(folder.path()).unwrap()[0].v4.as_ref(), Some(pool));
        records[0].forget(folder.path()).unwrap();
        assert!(load(folder.path()).unwrap().is_empty());
    }
}
