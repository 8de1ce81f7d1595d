//! The entry: a project brought up or down over the machines and the store.
//!
//! Deliberately absent: how progress looks, where credentials come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use time::OffsetDateTime;
use windlass_compose::model::Project;
use windlass_engine_api::Client;
use windlass_machine::Store;

use crate::apply::{EngineExecutor, EngineWorld, converge};
use crate::error::{DeployError, Result};
use crate::hosts::Hosts;
use crate::images::{BuildContext, Credentials};
use crate::ingress::IngressImages;
use crate::observe::{Observed, Question, observe};
use crate::plan::{Note, Plan, Settings, Volumes, plan, plan_down};
use crate::report::Reporter;
use crate::views::{self, LogTarget, Ps};

/// When images are pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Where they are not there.
    #[default]
    Missing,
    /// Before everything else, so that a moved tag is noticed.
    Always,
}

/// How a project is brought up.
#[derive(Clone)]
pub struct UpOptions {
    /// What relative build contexts are relative to.
    pub folder: PathBuf,
    /// When images are pulled.
    pub pull: Pull,
    /// Logins of registries.
    pub credentials: Credentials,
    /// How long another windlass may hold the project before this one gives up.
    pub lock_wait: Duration,
}

impl UpOptions {
    /// Missing images are pulled without login; another windlass may take a minute.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            pull: Pull::default(),
            credentials: Credentials::default(),
            lock_wait: Duration::from_secs(60),
        }
    }
}

/// What has been done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps that were done; 0: everything was as declared.
    pub steps: usize,
    /// What is left as it is.
    pub notes: Vec<Note>,
    /// The release that was noted; `None` when nothing was changed, and for `down`.
    pub release: Option<u64>,
}

/// The time of day.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> OffsetDateTime;
}

/// The computer's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// Brings projects up and down.
#[derive(Clone)]
pub struct Deployer {
    hosts: Arc<dyn Hosts>,
    store: Arc<dyn Store>,
    reporter: Arc<dyn Reporter>,
    clock: Arc<dyn Clock>,
}

/// What was found out before planning.
struct Prepared {
    settings: Settings,
    contexts: BTreeMap<String, BuildContext>,
}

impl Deployer {
    /// With the computer's clock.
    pub fn new(hosts: Arc<dyn Hosts>, store: Arc<dyn Store>, reporter: Arc<dyn Reporter>) -> Self {
        Self {
            hosts,
            store,
            reporter,
            clock: Arc::new(SystemClock),
        }
    }

    /// With another clock.
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// What `up` would do. Changes nothing.
    pub async fn plan_up(&self, project: &Project, options: &UpOptions) -> Result<Plan> {
        let prepared = self.prepare(project, options).await?;
        let ingress = IngressImages::default();
        let observed = observe(self.hosts.as_ref(), &question(project, &prepared)).await?;
        let mut settings = prepared.settings;
        settings.ingress_images = ingress
            .references(self.hosts.as_ref(), project, &observed)
            .await?;
        Ok(plan(project, &observed, &settings)?)
    }

    /// Plans and applies until everything is as declared, and notes the release.
    pub async fn up(&self, project: &Project, options: &UpOptions) -> Result<Outcome> {
        let _lock = self.lock(&project.name, options.lock_wait).await?;
        let prepared = self.prepare(project, options).await?;
        let world = EngineWorld {
            hosts: self.hosts.clone(),
            question: question(project, &prepared),
            project: Some(project),
            ingress: IngressImages::default(),
            executor: EngineExecutor::new(self.hosts.clone(), Arc::new(project.clone()))
                .with_contexts(prepared.contexts)
                .with_credentials(options.credentials.clone()),
            silent: OnceLock::new(),
        };
        let settings = prepared.settings;
        let decide = |observed: &Observed, applied: usize| {
            let mut settings = settings.clone();
            settings.ingress_images = world.ingress.known();
            settings.pull_always &= applied == 0;
            plan(project, observed, &settings)
        };
        let (steps, notes) = converge(&world, self.reporter.as_ref(), &decide).await?;
        let release = self.note_release(project, steps, &notes).await?;
        complete(notes.clone())?;
        Ok(Outcome {
            steps,
            notes,
            release,
        })
    }

    /// What `down` would do. Changes nothing.
    pub async fn plan_down(&self, project: &str, volumes: Volumes) -> Result<Plan> {
        let observed = observe(self.hosts.as_ref(), &Question::about(project)).await?;
        Ok(plan_down(project, &observed, volumes))
    }

    /// Removes what `up` made: replicas, ingress, networks, volumes if asked, and the project's machines.
    pub async fn down(
        &self,
        project: &str,
        volumes: Volumes,
        lock_wait: Duration,
    ) -> Result<Outcome> {
        let _lock = self.lock(project, lock_wait).await?;
        let declared = Project {
            name: project.to_owned(),
            ..Project::default()
        };
        let world = EngineWorld {
            hosts: self.hosts.clone(),
            question: Question::about(project),
            project: None,
            ingress: IngressImages::default(),
            executor: EngineExecutor::new(self.hosts.clone(), Arc::new(declared)),
            silent: OnceLock::new(),
        };
        let decide = |observed: &Observed, _| Ok(plan_down(project, observed, volumes));
        let (steps, notes) = converge(&world, self.reporter.as_ref(), &decide).await?;
        self.store.forget_counts(project).await?;
        complete(notes.clone())?;
        Ok(Outcome {
            steps,
            notes,
            release: None,
        })
    }

    /// The project's containers.
    pub async fn ps(&self, project: &str) -> Result<Ps> {
        let observed = observe(self.hosts.as_ref(), &Question::about(project)).await?;
        Ok(views::ps(&observed))
    }

    /// Where the logs of `services` (all, when empty) come from, by service and number. `web.2` names one replica.
    pub async fn log_targets(&self, project: &str, services: &[String]) -> Result<Vec<LogTarget>> {
        let ps = self.ps(project).await?;
        let known: BTreeSet<&str> = ps.replicas.iter().map(|r| r.service.as_str()).collect();
        let unknown = services.iter().find(|s| {
            !ps.replicas
                .iter()
                .any(|r| r.service == **s || r.name == **s)
        });
        if let Some(service) = unknown {
            return Err(DeployError::NoService {
                project: project.to_owned(),
                service: service.clone(),
                known: known.into_iter().collect::<Vec<_>>().join(", "),
            });
        }
        let mut targets = Vec::new();
        for replica in ps.replicas {
            let asked = |s: &String| *s == replica.service || *s == replica.name;
            if !services.is_empty() && !services.iter().any(asked) {
                continue;
            }
            let dial = self
                .hosts
                .engine(&replica.machine)
                .await
                .map_err(DeployError::List)?;
            targets.push(LogTarget {
                name: replica.name,
                machine: replica.machine,
                client: Client::new(dial),
                container: replica.container,
            });
        }
        Ok(targets)
    }

    /// The machines that a fleet shall have: as decided by [`Deployer::set_count`], brought between `min` and `max`; else `min`.
    pub async fn count(&self, project: &Project, fleet: &str) -> Result<u32> {
        let stored = self.store.count(&project.name, fleet).await?;
        let (min, max) = project.fleets.get(fleet).map_or((0, 0), |f| (f.min, f.max));
        Ok(stored.unwrap_or(min).clamp(min, max.max(min)))
    }

    /// Makes a fleet's count durable; the next `up` brings it about.
    pub async fn set_count(&self, project: &str, fleet: &str, count: u32) -> Result<()> {
        Ok(self.store.set_count(project, fleet, count).await?)
    }

    async fn lock(&self, project: &str, wait: Duration) -> Result<windlass_machine::Lock> {
        Ok(self.store.lock(&format!("project.{project}"), wait).await?)
    }

    async fn prepare(&self, project: &Project, options: &UpOptions) -> Result<Prepared> {
        let mut settings = Settings {
            pull_always: options.pull == Pull::Always,
            release: release_label(project)?,
            ..Settings::default()
        };
        if let Some(last) = self
            .store
            .releases(&project.name, 1)
            .await?
            .into_iter()
            .next()
        {
            // One that a former windlass wrote and this one cannot read says nothing.
            settings.formerly = serde_json::from_value(last.declared).ok();
        }
        for fleet in project.fleets.keys() {
            settings
                .scale
                .insert(fleet.clone(), self.count(project, fleet).await?);
        }
        let mut contexts = BTreeMap::new();
        for (name, service) in &project.services {
            let Some(build) = &service.build else {
                continue;
            };
            let context = BuildContext::read(&options.folder, build)
                .await
                .map_err(|source| DeployError::Context {
                    service: name.clone(),
                    source,
                })?;
            settings.builds.insert(
                name.clone(),
                format!("{}-{name}:{}", project.name, context.short_digest()),
            );
            contexts.insert(name.clone(), context);
        }
        Ok(Prepared { settings, contexts })
    }

    /// A release is noted when something was done, or when what is declared has changed.
    async fn note_release(
        &self,
        project: &Project,
        steps: usize,
        notes: &[Note],
    ) -> Result<Option<u64>> {
        let held = notes.iter().any(|n| !matches!(n, Note::Unseen { .. }));
        let declared =
            serde_json::to_value(without_values(project)).map_err(DeployError::Release)?;
        let last = self.store.releases(&project.name, 1).await?;
        if held || (steps == 0 && last.first().is_some_and(|r| r.declared == declared)) {
            return Ok(None);
        }
        let release = self
            .store
            .add_release(&project.name, &declared, self.clock.now())
            .await?;
        Ok(Some(release.id))
    }
}

/// The store keeps no secret in clear text: of the environment and build arguments it gets digests.
fn without_values(project: &Project) -> Project {
    let mut project = project.clone();
    for service in project.services.values_mut() {
        for value in service.environment.values_mut() {
            *value = crate::spec::digest(value.as_bytes());
        }
        for value in service.build.iter_mut().flat_map(|b| b.args.values_mut()) {
            *value = crate::spec::digest(value.as_bytes());
        }
    }
    project
}

fn release_label(project: &Project) -> Result<String> {
    let text = serde_json::to_vec(project).map_err(DeployError::Release)?;
    Ok(crate::spec::digest(&text)[..12].to_owned())
}

fn question(project: &Project, prepared: &Prepared) -> Question {
    let mut question = Question::about(&project.name);
    for (name, service) in &project.services {
        let built = prepared.settings.builds.get(name);
        question
            .images
            .insert(built.unwrap_or(&service.image).clone());
    }
    question
}

/// What was left as it is is an error in the end, so that nobody takes it for done.
fn complete(notes: Vec<Note>) -> Result<()> {
    let list = |pick: fn(&Note) -> Option<String>| {
        let found: Vec<String> = notes.iter().filter_map(pick).collect();
        (!found.is_empty()).then(|| found.join("; "))
    };
    let unreachable = list(|n| match n {
        Note::Unreachable { machine, reason } => Some(format!("machine {machine} ({reason})")),
        _ => None,
    });
    if let Some(machines) = unreachable {
        return Err(DeployError::Unreachable { machines });
    }
    let held = list(|n| matches!(n, Note::HeldBack { .. }).then(|| n.to_string()));
    held.map_or(Ok(()), |notes| Err(DeployError::HeldBack { notes }))
}
