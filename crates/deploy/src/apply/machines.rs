//! The world that is real: machines, their engines and proxies.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use windlass_compose::model::Project;
use windlass_machine::MachineName;

use super::{EngineExecutor, Executor, World};
use crate::error::{ActionError, Result};
use crate::hosts::Hosts;
use crate::ingress::IngressImages;
use crate::observe::{Observed, Question, observe};
use crate::plan::Action;

/// The machines and their engines.
pub(crate) struct EngineWorld<'a> {
    pub(crate) hosts: Arc<dyn Hosts>,
    pub(crate) question: Question,
    pub(crate) project: Option<&'a Project>,
    pub(crate) ingress: IngressImages,
    pub(crate) executor: EngineExecutor,
    /// What the first look found silent: each further one would wait for it again.
    pub(crate) silent: OnceLock<BTreeMap<MachineName, String>>,
}

#[async_trait]
impl Executor for EngineWorld<'_> {
    async fn execute(&self, action: &Action) -> Result<(), ActionError> {
        self.executor.execute(action).await
    }
}

#[async_trait]
impl World for EngineWorld<'_> {
    async fn observe(&self) -> Result<Observed> {
        let mut question = self.question.clone();
        question.silent = self.silent.get().cloned().unwrap_or_default();
        let observed = observe(self.hosts.as_ref(), &question).await?;
        self.silent.get_or_init(|| observed.silent());
        if let Some(project) = self.project {
            self.ingress
                .references(self.hosts.as_ref(), project, &observed)
                .await?;
        }
        Ok(observed)
    }

    fn executor(&self) -> &dyn Executor {
        self
    }
}
