//! Ports of machines that only one replica can have.

use std::collections::BTreeMap;

use windlass_compose::model::Service;
use windlass_machine::MachineName;

use crate::error::PlanError;

/// Fixed ports of machines, and who has them.
#[derive(Default)]
pub(super) struct Ports(BTreeMap<(MachineName, u16, String), Vec<Holder>>);

/// An address (`None`: all of them), and who has the port there.
type Holder = (Option<String>, String);

/// A port that must be free on the machine: number, protocol, address.
pub(super) type Fixed = (u16, String, Option<String>);

impl Ports {
    /// Who has it already.
    fn holder(&self, machine: &MachineName, fixed: &Fixed) -> Option<&str> {
        let (port, protocol, ip) = fixed;
        let key = (machine.clone(), *port, protocol.clone());
        self.0.get(&key)?.iter().find_map(|(other, who)| {
            let apart = matches!((ip, other), (Some(a), Some(b)) if a != b);
            (!apart).then_some(who.as_str())
        })
    }

    pub(super) fn take(
        &mut self,
        machine: &MachineName,
        fixed: &[Fixed],
        who: &str,
    ) -> Result<(), PlanError> {
        for f in fixed {
            if let Some(first) = self.holder(machine, f) {
                return Err(PlanError::PortTaken {
                    port: f.0,
                    machine: machine.clone(),
                    first: first.to_owned(),
                    second: who.to_owned(),
                });
            }
        }
        for (port, protocol, ip) in fixed {
            self.0
                .entry((machine.clone(), *port, protocol.clone()))
                .or_default()
                .push((ip.clone(), who.to_owned()));
        }
        Ok(())
    }

    pub(super) fn is_free(&self, machine: &MachineName, fixed: &[Fixed]) -> bool {
        fixed.iter().all(|f| self.holder(machine, f).is_none())
    }
}

/// The ports that a replica needs for itself on its machine.
pub(super) fn fixed_ports(service: &Service) -> Vec<Fixed> {
    let mut fixed: Vec<Fixed> = service
        .ports
        .iter()
        .filter_map(|p| {
            let ip = p.host_ip.clone().filter(|ip| ip != "0.0.0.0" && ip != "::");
            p.published.map(|port| (port, p.protocol.clone(), ip))
        })
        .collect();
    if service.network_mode.as_deref() == Some("host") {
        fixed.extend(
            service
                .ingress
                .iter()
                .map(|i| (i.port, "tcp".to_owned(), None)),
        );
    }
    fixed
}
