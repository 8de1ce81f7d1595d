//! Making a container: everything is checked before anything is made.

use std::path::PathBuf;
use std::sync::Arc;

use fs_err as fs;
use windlass_engine_api::types::{ContainerConfig, CreateContainer, CreatedContainer, HostConfig};

use super::error::{Error, Result};
use super::mounts::{self, MountRecord};
use super::record::Record;
use super::registry::Container;
use super::resources::{self, For, Machine};
use super::{Engine, clock, log_options, merge, platform, prepare, removal, validate};
use crate::runtime::{MASKED, READONLY};

impl Engine {
    /// `docker create`.
    pub async fn create(
        &self,
        name: &str,
        spec: CreateContainer,
        platform: Option<&str>,
    ) -> Result<CreatedContainer> {
        let CreateContainer {
            mut config,
            host_config: mut host,
            networking_config: mut networking,
        } = spec;
        if config == ContainerConfig::default() {
            return Err(Error::invalid(
                "config cannot be empty in order to create a container",
            ));
        }
        if config.image.is_empty() {
            return Err(Error::invalid("no image given: Image must name one"));
        }
        validate::joined_network(&config, &host, &networking)?;
        let image = self.images.find(&config.image)?;
        log_options::fill(&mut host.log_config, &self.settings.log);
        let inspected = self.images.inspect(&image.id)?;
        let mut warnings = platform::check(&config.image, &inspected, platform)?;
        validate::environment(&config.env)?;
        merge::merge(&mut config, &image.config)?;
        validate::check(&config, &host)?;
        let machine = Machine::look(self.settings.cpus);
        warnings.extend(resources::check(&mut host, &machine, For::Creation)?);
        self.settled(&mut host)?;
        defaults(&mut host, &machine);
        validate::publish_from(&config.labels)?;
        self.check_joined(&host)?;
        self.check_remapped(&host)?;
        self.settle_networks(&host, &config.mac_address, &mut networking)?;
        self.check_links(&mut host)?;
        let inherited = self.volumes_from(&host)?;
        let mounts = mounts::resolve(&host, config.volumes.keys().cloned(), inherited)?;
        if host.network_mode == "host" && !host.port_bindings.is_empty() {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        for port in host.port_bindings.keys() {
            let (number, protocol) = validate::parse_port(port)?;
            config
                .exposed_ports
                .entry(format!("{number}/{protocol}"))
                .or_default();
        }

        let id = new_id();
        if config.hostname.is_empty() && (host.network_mode == "host" || host.uts_mode == "host") {
            config.hostname = prepare::hostname_of_host();
        }
        if config.hostname.is_empty() && !host.network_mode.starts_with("container:") {
            config.hostname = id[..12].to_owned();
        }
        let name = self.containers.reserve_name(name, &id)?;
        let record = Record {
            id: id.clone(),
            name: name.clone(),
            created: clock::now(),
            image_id: image.id,
            config,
            host_config: host,
            networking,
            networks_settled: true,
            mounts,
            ..Record::default()
        };
        let made = self.keep(record).await;
        if made.is_err() {
            self.containers.release_name(&name);
        }
        made?;
        Ok(CreatedContainer { id, warnings })
    }

    /// Makes the volumes and the folder, and enters it.
    async fn keep(&self, mut record: Record) -> Result<()> {
        let anonymous = self.make_volumes(&mut record).await?;
        let folder = self.settings.root.join("containers").join(&record.id);
        let id = record.id.clone();
        let entered = self.enter(record, folder.clone());
        if entered.is_err() {
            // Nothing of it stays.
            removal::remove_dir_all(&folder).ok();
            self.images.discard(&id).await.ok();
            for name in anonymous {
                self.volumes.remove(&name).ok();
            }
        }
        entered
    }

    fn enter(&self, record: Record, folder: PathBuf) -> Result<()> {
        fs::create_dir_all(&folder)?;
        let durable = !record.host_config.auto_remove;
        let container = Arc::new(Container::new(record, folder).with_spare(&self.settings.run));
        if durable {
            container.persist()?;
        } else {
            container.update(|_| ());
        }
        self.containers.insert(container.clone());
        self.tell(&container, "create");
        Ok(())
    }

    /// Containers whose namespaces are to be joined must be there; networks are looked for at the start.
    fn check_joined(&self, host: &HostConfig) -> Result<()> {
        for mode in [&host.ipc_mode, &host.pid_mode] {
            if let Some(other) = mode.strip_prefix("container:") {
                let found = self.containers.find(other);
                found.map_err(|e| Error::invalid(e.message))?;
            }
        }
        Ok(())
    }

    /// What cannot be had in a user namespace.
    pub(super) fn check_remapped(&self, host: &HostConfig) -> Result<()> {
        if self.remap_of(host).is_none() {
            return Ok(());
        }
        Err(Error::invalid(if host.privileged {
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode"
        } else if host.network_mode == "host" {
            "cannot share the host's network namespace when user namespaces are enabled"
        } else if host.pid_mode == "host" {
            "cannot share the host PID namespace when user namespaces are enabled"
        } else {
            return Ok(());
        }))
    }

    /// What the settings file says about containers that say nothing.
    fn settled(&self, host: &mut HostConfig) -> Result<()> {
        let config = &self.settings.config;
        for limit in config.ulimits() {
            if !host.ulimits.iter().any(|own| own.name == limit.name) {
                host.ulimits.push(limit);
            }
        }
        if host.shm_size == 0 {
            host.shm_size = config.shm_size()?.unwrap_or(0);
        }
        if config.init {
            host.init.get_or_insert(true);
        }
        Ok(())
    }

    /// `--volumes-from other[:ro]`.
    fn volumes_from(&self, host: &HostConfig) -> Result<Vec<MountRecord>> {
        let mut all = Vec::new();
        for spec in &host.volumes_from {
            let (reference, writable) = mounts::parse_volumes_from(spec)?;
            // Not found would tell the client to pull the image.
            let other = self
                .containers
                .find(reference)
                .map_err(|e| Error::invalid(e.message))?;
            let mounts = other.read(|r| r.mounts.clone()).into_iter();
            let shown = mounts.filter(|m| m.kind == "bind" || m.kind == "volume");
            all.extend(shown.map(|m| m.inherited(writable)));
        }
        Ok(all)
    }
}

/// What an unset value means, as `docker inspect` shows it.
fn defaults(host: &mut HostConfig, machine: &Machine) {
    let fill = |text: &mut String, default: &str| {
        if text.is_empty() {
            default.clone_into(text);
        }
    };
    fill(&mut host.restart_policy.name, "no");
    fill(&mut host.log_config.kind, "json-file");
    fill(&mut host.ipc_mode, "private");
    fill(&mut host.cgroupns_mode, "private");
    fill(&mut host.runtime, "runc");
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".to_owned();
    }
    if host.shm_size == 0 {
        host.shm_size = 64 * 1024 * 1024;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if !machine.is_v2 {
        host.oom_kill_disable.get_or_insert(false);
    }
    host.pids_limit = host.pids_limit.filter(|v| *v > 0);
    let open = host.privileged || host.pid_mode == "host" || host.ipc_mode == "host";
    if open && !host.security_opt.iter().any(|o| o.starts_with("label")) {
        host.security_opt.push("label=disable".to_owned());
    }
    if !host.privileged {
        let paths = |all: &[&str]| all.iter().map(|p| (*p).to_owned()).collect();
        host.masked_paths.get_or_insert_with(|| paths(&MASKED));
        host.readonly_paths.get_or_insert_with(|| paths(&READONLY));
    }
}

/// 64 random hex digits; one that is all digits in its short form would be taken for a number as a host name.
pub fn new_id() -> String {
    loop {
        let id = hex::encode(rand::random::<[u8; 32]>());
        if id[..12].parse::<u64>().is_err() {
            return id;
        }
    }
}
