//! `docker update`: limits of a container, live where it runs, and its restart policy.

use serde::Deserialize;
use windlass_engine_api::types::HostConfig;

use super::Engine;
use super::error::{Error, Result};
use super::record::Status;
use super::resources::{self, For, Machine};
use super::validate;

/// What is to change, in the words of a host configuration; zeros, empty texts and what is missing stay as they are.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Change(HostConfig);

impl Change {
    /// For clients that do not know of the limit, and send zero.
    #[must_use]
    pub fn without_pids_limit(mut self) -> Self {
        self.0.pids_limit = None;
        self
    }

    /// The host configuration after it; what cannot be changed together is refused (409).
    fn apply(&self, host: &mut HostConfig) -> Result<()> {
        let new = &self.0;
        let refuse = |what: &str, why: &str| {
            Err(Error::conflict(format!(
                "Conflicting options: {what} cannot be updated as {why} has already been set"
            )))
        };
        if new.nano_cpus > 0 && host.cpu_period != 0 {
            return refuse("Nano CPUs", "CPU Period");
        }
        if new.nano_cpus > 0 && host.cpu_quota != 0 {
            return refuse("Nano CPUs", "CPU Quota");
        }
        if new.cpu_quota != 0 && host.nano_cpus > 0 {
            return refuse("CPU Quota", "NanoCPUs");
        }
        if new.cpu_period != 0 && host.nano_cpus > 0 {
            return refuse("CPU Period", "NanoCPUs");
        }
        if new.memory != 0 && new.memory_swap == 0 && new.memory > host.memory_swap {
            return Err(Error::conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        if !new.restart_policy.name.is_empty() {
            if host.auto_remove && new.restart_policy.name != "no" {
                return Err(Error::conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            host.restart_policy.clone_from(&new.restart_policy);
        }
        let number = |old: &mut i64, new: i64| {
            if new != 0 {
                *old = new;
            }
        };
        number(&mut host.cpu_shares, new.cpu_shares);
        number(&mut host.nano_cpus, new.nano_cpus);
        number(&mut host.cpu_period, new.cpu_period);
        number(&mut host.cpu_quota, new.cpu_quota);
        number(&mut host.memory, new.memory);
        number(&mut host.memory_swap, new.memory_swap);
        number(&mut host.memory_reservation, new.memory_reservation);
        if new.blkio_weight != 0 {
            host.blkio_weight = new.blkio_weight;
        }
        for (old, new) in [
            (&mut host.cpuset_cpus, &new.cpuset_cpus),
            (&mut host.cpuset_mems, &new.cpuset_mems),
        ] {
            if !new.is_empty() {
                old.clone_from(new);
            }
        }
        if let Some(pids) = new.pids_limit {
            host.pids_limit = Some(pids.max(0));
        }
        Ok(())
    }
}

impl Engine {
    /// Changes limits and the restart policy; the answer is warnings.
    pub async fn update(&self, id: &str, mut change: Change) -> Result<Vec<String>> {
        let machine = Machine::look(self.settings.cpus);
        let warnings = resources::check(&mut change.0, &machine, For::Update)?;
        if !change.0.restart_policy.name.is_empty() {
            validate::restart(&change.0.restart_policy)?;
        }
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        let refuse = |why: &str| format!("Cannot update container {}: {why}", container.id);
        let status = container.status();
        if matches!(status, Status::Removing | Status::Dead) {
            return Err(Error::conflict(refuse(
                "container is marked for removal and cannot be \"update\"",
            )));
        }
        let mut host = container.read(|r| r.host_config.clone());
        change
            .apply(&mut host)
            .map_err(|e| Error::new(e.kind, refuse(&e.message)))?;
        if status.has_process() {
            // Not limited any more, which for a new container is nothing to say.
            let pids = host.pids_limit.map(|n| if n == 0 { -1 } else { n });
            let limits = HostConfig {
                pids_limit: pids,
                ..host.clone()
            };
            let limited = self.runtime.update(&container.id, &limits).await;
            limited.map_err(|e| Error::new(e.kind, refuse(&e.message)))?;
        }
        container.update(|r| r.host_config = host);
        container.persist()?;
        self.tell(&container, "update");
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let mut host = HostConfig {
            memory: 1 << 28,
            memory_swap: 1 << 29,
            cpu_shares: 7,
            ..HostConfig::default()
        };
        let change: Change = windlass_engine_api::from_slice(
            br#"{"PidsLimit":0,"CpusetCpus":"0","Memory":0,"RestartPolicy":{"Name":"always"}}"#,
        )
        .unwrap();
        change.apply(&mut host).unwrap();
        assert_eq!((host.memory, host.cpu_shares), (1 << 28, 7));
        assert_eq!((host.pids_limit, host.cpuset_cpus.as_str()), (Some(0), "0"));
        assert_eq!(host.restart_policy.name, "always");
        let change: Change = windlass_engine_api::from_slice(br#"{"Memory":1073741824}"#).unwrap();
        let error = change.apply(&mut host).unwrap_err();
        assert!(error.message.contains("memoryswap at the same time"));
        host.nano_cpus = 5;
        let change: Change = windlass_engine_api::from_slice(br#"{"CpuQuota":5000}"#).unwrap();
        assert!(change.apply(&mut host).is_err());
    }
}
