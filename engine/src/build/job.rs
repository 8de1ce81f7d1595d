//! A build: its stages side by side, each as soon as what it needs is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use windlass_engine_api::RegistryAuth;

use super::LocalBuilder;
use super::context::Source;
use super::options::Options;
use super::plan::Plan;
use super::report::{Report, stream};
use super::stage::{Failure, Stage};
use crate::container::error::{Error, Result};
use crate::container::parts::{Built, Images as _, Pull};
use crate::image::{Image, ImageConfig, Reference};

/// Build arguments that need no ARG.
pub const FREE_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A stage that is done.
pub struct Finished {
    /// Its configuration.
    pub config: ImageConfig,
    /// Its image; `None` is an empty tree.
    pub image: Option<String>,
}

/// A build.
pub struct Job {
    /// Images, processes, networks.
    pub builder: LocalBuilder,
    /// What was asked for.
    pub options: Options,
    /// Credentials by registry.
    pub auth: BTreeMap<String, RegistryAuth>,
    /// The client's files.
    pub context: Arc<Source>,
    /// For files of the build.
    pub scratch: std::path::PathBuf,
    /// Its stages.
    pub plan: Plan,
    /// To the client.
    pub report: Report,
    /// Images that steps are taken from.
    pub cache_sources: Vec<Image>,
    declared: Mutex<BTreeSet<String>>,
    wanted: Vec<watch::Sender<bool>>,
    done: Vec<watch::Sender<Option<Arc<Finished>>>>,
}

impl Job {
    /// Of a Dockerfile that was read.
    pub fn new(
        builder: LocalBuilder,
        options: Options,
        auth: BTreeMap<String, RegistryAuth>,
        folder: (&Path, Arc<Source>),
        plan: Plan,
        report: Report,
    ) -> Self {
        let cache_sources = options
            .cache_from
            .iter()
            .filter_map(|name| builder.images.store.resolve(name).ok())
            .collect();
        let count = plan.stages.len();
        Self {
            declared: Mutex::new(plan.declared.clone()),
            wanted: (0..count)
                .map(|stage| watch::Sender::new(plan.needed.contains(&stage)))
                .collect(),
            done: (0..count).map(|_| watch::Sender::new(None)).collect(),
            builder,
            options,
            auth,
            context: folder.1,
            scratch: folder.0.to_owned(),
            plan,
            report,
            cache_sources,
        }
    }

    /// Everything, to the names of the result.
    pub async fn run(&self) -> Result<Built, Failure> {
        for (number, global) in self.plan.globals.iter().enumerate() {
            let total = self.plan.total;
            let step = format!("Step {}/{total} : {}\n", number + 1, global.original);
            self.report.say(&step).await;
        }
        let target = self.plan.stages.len() - 1;
        let mut running: FuturesUnordered<_> =
            (0..=target).map(|index| self.stage(index)).collect();
        let id = loop {
            match running.next().await {
                Some((index, Ok(finished))) if index == target => break finished.image.clone(),
                Some((_, Ok(_))) => {}
                Some((index, Err(failure))) => {
                    self.report.fail(index).await;
                    return Err(failure);
                }
                None => break None,
            }
        };
        drop(running);
        match id {
            Some(id) => Ok(self.name(id).await?),
            None => {
                self.report.release_all().await;
                Err(Error::message("No image was generated. Is your Dockerfile empty?").into())
            }
        }
    }

    async fn stage(&self, index: usize) -> (usize, Result<Arc<Finished>, Failure>) {
        let mut wanted = self.wanted[index].subscribe();
        // The sender lives as long as the job.
        wanted.wait_for(|wanted| *wanted).await.ok();
        if self.plan.needed.contains(&index) {
            self.report.begin(index).await;
        }
        let outcome = Stage::build(self, index).await.map(Arc::new);
        if let Ok(finished) = &outcome {
            self.report.end(index).await;
            self.done[index].send_replace(Some(finished.clone()));
        }
        (index, outcome)
    }

    /// An earlier stage, as soon as it is done.
    pub async fn finished(&self, index: usize) -> Result<Arc<Finished>> {
        self.wanted[index].send_replace(true);
        let mut done = self.done[index].subscribe();
        let finished = done
            .wait_for(Option::is_some)
            .await
            .map_err(Error::internal)?;
        finished
            .clone()
            .ok_or_else(|| Error::message("a stage has no result"))
    }

    /// An ARG of a trigger takes build arguments, too.
    pub fn declare(&self, name: &str) {
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        declared.insert(name.to_owned());
    }

    async fn name(&self, id: String) -> Result<Built> {
        let unused = {
            let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
            let names = self.options.build_args.keys();
            let names: BTreeSet<&String> = names.chain(&self.options.bare_args).collect();
            let unused: Vec<&str> = names
                .into_iter()
                .filter(|name| !declared.contains(*name) && !FREE_ARGS.contains(&name.as_str()))
                .map(String::as_str)
                .collect();
            unused.join(" ")
        };
        if !unused.is_empty() {
            self.report
                .say(&format!(
                    "[Warning] One or more build-args [{unused}] were not consumed\n"
                ))
                .await;
        }
        self.report
            .say(&format!("Successfully built {}\n", short(&id)))
            .await;
        self.builder.cache.mark_result(&id)?;
        let mut names: Vec<String> = Vec::new();
        for name in &self.options.names {
            let shown = name.familiar();
            if names.contains(&shown) {
                continue;
            }
            let store = &self.builder.images.store;
            let there = store.resolve(&name.to_string());
            if !there.is_ok_and(|image| image.id == id) {
                store.tag(&id, name)?;
            }
            self.report
                .say(&format!("Successfully tagged {shown}\n"))
                .await;
            names.push(shown);
        }
        if self.options.quiet {
            self.report.tell(stream(&format!("{id}\n"))).await;
        }
        Ok(Built { id, names })
    }

    /// An image, pulled when it is not here; what the pull says is the stage's.
    pub async fn base(&self, stage: usize, name: &str, platform: Option<&str>) -> Result<Image> {
        let store = &self.builder.images.store;
        let fits = |image: &Image| {
            let Some(platform) = platform else {
                return true;
            };
            let mut parts = platform.split('/');
            parts.next() == Some(image.config.os.as_str())
                && parts.next() == Some(image.config.architecture.as_str())
        };
        match store.resolve(name) {
            Ok(image) if !self.options.pull && fits(&image) => return Ok(image),
            Ok(image) if image.id.trim_start_matches("sha256:").starts_with(name) => {
                return Ok(image);
            }
            Err(error) if error.status() != 404 => return Err(error.into()),
            _ => {}
        }
        let reference = Reference::parse(name)?;
        let wanted = Pull {
            auth: self.auth_for(&reference),
            // With its tag: a bare name would mean all tags.
            reference: reference.to_string(),
            platform: platform.map(str::to_owned),
        };
        let (sender, mut receiver) = mpsc::channel(64);
        let mut pull = self.builder.images.pull(wanted, sender);
        loop {
            tokio::select! {
                biased;
                Some(line) = receiver.recv() => self.report.line(stage, line).await,
                done = &mut pull => {
                    while let Ok(line) = receiver.try_recv() {
                        self.report.line(stage, line).await;
                    }
                    done?;
                    break;
                }
            }
        }
        Ok(store.resolve(name)?)
    }

    fn auth_for(&self, reference: &Reference) -> Option<RegistryAuth> {
        let keys = match reference.registry.as_str() {
            "docker.io" => vec![
                "https://index.docker.io/v1/".to_owned(),
                "docker.io".to_owned(),
                "index.docker.io".to_owned(),
            ],
            other => vec![other.to_owned(), format!("https://{other}")],
        };
        keys.iter().find_map(|key| self.auth.get(key)).cloned()
    }
}

/// Twelve digits.
pub fn short(id: &str) -> &str {
    let hex = id.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}
