//! What is in the kernel for the networks: bridges, pairs, namespaces, and the rules that follow from the state.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::link::{self, Links, Switch};
use super::nft::Batch;
use super::record::Record;
use super::rule::Protocol;
use super::state::{self, State};
use super::subnet::Family;
use super::{conntrack, namespace, others, rules};
use crate::container::error::{Error, Result};

/// Between looks whether an interface is gone.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
];

/// Whether a container has rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishes {
    /// For its published ports.
    Ports,
    /// None.
    Nothing,
}

/// Changes it; copies are the same one.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Interfaces.
    pub links: Links,
    /// The name of the default bridge, by which an engine's rules are told from another's.
    engine: Arc<str>,
    /// Who holds it changes bridges and rules.
    one: Arc<tokio::sync::Mutex<()>>,
}

impl Kernel {
    /// For the engine with this default bridge.
    pub fn new(engine: String, links: Links) -> Self {
        Self {
            links,
            engine: engine.into(),
            one: Arc::default(),
        }
    }

    /// The bridge is there, with its rules.
    pub async fn ensure(&self, state: &Mutex<State>, record: &Record) -> Result<()> {
        if !record.has_bridge() {
            return Ok(());
        }
        let _one = self.one.lock().await;
        let bridge = state::bridge(record);
        for family in state::FAMILIES {
            if bridge.span(family).is_some() {
                self.forward(family).await?;
            }
        }
        let made = self.links.ensure_bridge(&bridge).await?;
        let unknown = locked(state).up.insert(record.id.clone());
        if made || unknown {
            self.replace(state).await?;
        }
        Ok(())
    }

    /// The host forwards packets; what it forwards only for us is restricted first, so that it is never open to others.
    async fn forward(&self, family: Family) -> Result<()> {
        if link::forwards(family)? {
            return Ok(());
        }
        let engine = self.engine.clone();
        let shut = tokio::task::spawn_blocking(move || others::shut(&engine, family));
        if let Err(error) = shut.await.map_err(Error::internal)? {
            tracing::warn!(
                error = format!("{error:#}"),
                "this host forwards packets from now on, and it could not be restricted to containers"
            );
        }
        link::forwarding(family, Switch::On)?;
        Ok(())
    }

    /// The state's rules, in place of the former ones.
    pub async fn rules(&self, state: &Mutex<State>) -> Result<()> {
        let _one = self.one.lock().await;
        self.replace(state).await
    }

    /// Takes back what was done in others' tables, and to the host for our sake.
    pub async fn clear_others(&self) -> Result<()> {
        let _one = self.one.lock().await;
        let engine = self.engine.clone();
        let cleared = tokio::task::spawn_blocking(move || others::clear(&engine));
        Ok(cleared.await.map_err(Error::internal)??)
    }

    async fn replace(&self, state: &Mutex<State>) -> Result<()> {
        let (bridges, published) = {
            let state = locked(state);
            (state.bridges(), state.published())
        };
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            let mut batch = Batch::default();
            rules::replace(&mut batch, &rules::table(&engine), &bridges, &published);
            others::pass(&mut batch, &engine, &bridges)?;
            batch.commit()?;
            // Another program's tables: what can be done is done, and the rest is told.
            if let Err(error) = others::pass_legacy(&engine, &bridges) {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "published ports may be cut off"
                );
            }
            Ok(())
        })
        .await
        .map_err(Error::internal)??;
        Ok(())
    }

    /// Packets to a container's published UDP ports go by the rules of now.
    pub async fn forget_flows(&self, state: &Mutex<State>, container: &str) -> Result<()> {
        let ports: Vec<u16> = {
            let state = locked(state);
            let ports = state.tenants.get(container).map(|t| &t.ports);
            let udp = ports.into_iter().flatten();
            udp.filter(|p| p.protocol == Protocol::Udp)
                .map(|p| p.host_port)
                .collect()
        };
        if ports.is_empty() {
            return Ok(());
        }
        tokio::task::spawn_blocking(move || conntrack::forget(&ports))
            .await
            .map_err(Error::internal)??;
        Ok(())
    }

    /// Everything of a container; nothing there is success.
    pub async fn take_back(
        &self,
        state: &Mutex<State>,
        netns: &Path,
        ends: Vec<String>,
        publishes: Publishes,
    ) -> Result<()> {
        if publishes == Publishes::Ports {
            self.rules(state).await?;
        }
        namespace::remove(netns)?;
        // With its namespace the kernel takes the pairs away, many at a time; one by one is slow, and keeps everybody else from
        // interfaces meanwhile. It is left to do where somebody else is still in the namespace.
        for end in ends {
            self.gone(&end).await?;
        }
        Ok(())
    }

    async fn gone(&self, end: &str) -> Result<()> {
        for pause in PAUSES {
            if self.links.find(end).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        Ok(self.links.remove(end).await?)
    }
}

fn locked(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name of the host's end of a pair: that of an endpoint, or (as older engines named it) of a container.
pub fn host_end(id: &str) -> String {
    let short: String = id.chars().take(12).collect();
    format!("{}{short}", link::PREFIX)
}
