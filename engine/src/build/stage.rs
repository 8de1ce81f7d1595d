//! The run of a stage: variables, the cache, one instruction after the other, each an image of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_engine_api::types::Progress;

use super::commit::{Done, commit};
use super::dockerfile::{Instruction, parse};
use super::expand::Lexer;
use super::job::{FREE_ARGS, Finished, Job, short};
use super::report::stream;
use super::run::Workshop;
use super::tree::Tree;
use super::{config, plan};
use crate::container::error::{Error, Result};
use crate::image::{Image, ImageConfig, ImageMeta, Platform};

/// Why a build ended.
pub enum Failure {
    /// A command of the Dockerfile failed.
    Command {
        /// For the client.
        message: String,
        /// Its exit code.
        code: i64,
    },
    /// Anything else.
    Other(Error),
}

impl<T: Into<Error>> From<T> for Failure {
    fn from(error: T) -> Self {
        Self::Other(error.into())
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage, up to the instruction that was done last.
pub(super) struct Stage<'a> {
    pub(super) job: &'a Job,
    pub(super) index: usize,
    pub(super) config: ImageConfig,
    /// The image so far; `None` for scratch.
    pub(super) image: Option<String>,
    /// Values of ARGs.
    args: BTreeMap<String, String>,
    command_set: bool,
    /// Once a step was not found, those after it are not looked for.
    cached: bool,
}

/// What a step did.
pub(super) struct Step {
    /// What the cache finds it by.
    pub key: String,
    /// For the history.
    pub shown: String,
    /// Where it worked.
    pub workshop: Option<Arc<Workshop>>,
    /// Where something was mounted meanwhile.
    pub mounted: Vec<String>,
}

/// Runs work that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::internal)?
}

impl<'a> Stage<'a> {
    /// Builds the whole stage.
    pub(super) async fn build(job: &'a Job, index: usize) -> Result<Finished, Failure> {
        let mut this = Self {
            job,
            index,
            config: ImageConfig::default(),
            image: None,
            args: BTreeMap::new(),
            command_set: false,
            cached: !job.options.no_cache,
        };
        let planned = &job.plan.stages[index];
        let (mut number, total) = (planned.first, job.plan.total);
        this.say(&format!(
            "Step {number}/{total} : {}\n",
            planned.from.original
        ))
        .await;
        this.from().await?;
        this.say_image().await;
        for instruction in &planned.steps {
            number += 1;
            this.say(&format!(
                "Step {number}/{total} : {}\n",
                instruction.original
            ))
            .await;
            this.step(instruction).await?;
            this.say_image().await;
        }
        this.say_id().await;
        Ok(Finished {
            config: this.config,
            image: this.image,
        })
    }

    async fn say_image(&self) {
        let id = self.image.as_deref().map(short).unwrap_or_default();
        self.say(&format!(" ---> {id}\n")).await;
    }

    /// What a program reads the stage's image from; the last one of a build is its result.
    async fn say_id(&self) {
        let Some(id) = self.image.as_deref().filter(|_| !self.job.options.quiet) else {
            return;
        };
        let line = Progress {
            aux: Some(serde_json::json!({ "ID": id })),
            ..Progress::default()
        };
        self.job.report.line(self.index, line).await;
    }

    async fn from(&mut self) -> Result<(), Failure> {
        let planned = &self.job.plan.stages[self.index];
        if let Some(earlier) = self.job.plan.base_stage(self.index) {
            let finished = self.job.finished(earlier).await?;
            (self.config, self.image) = (finished.config.clone(), finished.image.clone());
        } else if planned.base == "scratch" {
            let host = Platform::host();
            self.config = ImageConfig {
                architecture: host.architecture,
                os: host.os,
                ..ImageConfig::default()
            };
        } else {
            let platform = planned.platform.as_deref();
            let platform = platform.or(self.job.options.platform.as_deref());
            let image = self.job.base(self.index, &planned.base, platform).await?;
            self.take_over(&image);
        }
        let env = &mut self.config.config.env;
        if !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.push(PATH.to_owned());
        }
        self.triggers().await
    }

    async fn triggers(&mut self) -> Result<(), Failure> {
        let triggers = std::mem::take(&mut self.config.config.on_build);
        let count = triggers.len();
        if count > 0 {
            let plural = if count > 1 { "s" } else { "" };
            self.say(&format!("# Executing {count} build trigger{plural}\n"))
                .await;
        }
        for trigger in triggers {
            let parsed = parse(&trigger)?;
            let [instruction] = &parsed[..] else {
                return Err(Error::invalid("onbuild trigger should be a single expression").into());
            };
            self.step(instruction).await?;
        }
        Ok(())
    }

    async fn step(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        match instruction.keyword.as_str() {
            "ARG" => self.arg(instruction).await,
            "RUN" => self.run_command(instruction).await,
            "COPY" | "ADD" => self
                .copy(instruction)
                .await
                .map_err(|failure| match failure {
                    // What is wrong with the line itself is said without the keyword.
                    Failure::Other(error)
                        if !error.message.starts_with("invalid from flag value ")
                            && !error.message.starts_with("failed to process ") =>
                    {
                        let message = format!("{} failed: {}", instruction.keyword, error.message);
                        Failure::Other(Error::new(error.kind, message))
                    }
                    other => other,
                }),
            _ => self.configure(instruction).await,
        }
    }

    async fn arg(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        let mut shown = "ARG".to_owned();
        let platforms = plan::platforms(self.job.options.platform.as_deref());
        for word in instruction.words() {
            let word = self.expand(instruction, &word)?;
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (word.as_str(), None),
            };
            if name.is_empty() {
                return Err(instruction.error("ARG names can not be blank").into());
            }
            self.job.declare(name);
            let given = self.job.options.build_args.get(name).cloned();
            let global = || self.job.plan.values.get(name).cloned();
            let value = given.or_else(|| default.clone()).or_else(global);
            let value = value.or_else(|| platforms.get(name).cloned());
            self.args
                .extend(value.map(|value| (name.to_owned(), value)));
            shown += &match default {
                Some(default) => format!(" {name}={default}"),
                None => format!(" {name}"),
            };
        }
        self.record(shown, None).await
    }

    /// An instruction that changes the configuration; WORKDIR makes its folder, too.
    async fn configure(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        let mut config = self.config.clone();
        let mut command_set = self.command_set;
        let applied = {
            let lexer = Lexer {
                escape: instruction.escape,
                lookup: &|name| self.value(name),
            };
            config::apply(&mut config, &mut command_set, instruction, &lexer)?
        };
        let shown = applied.ok_or_else(|| instruction.error("unknown instruction"))?;
        let before = self.image_of()?;
        (self.config, self.command_set) = (config, command_set);
        let folder = (instruction.keyword == "WORKDIR").then_some(before);
        self.record(shown, folder).await
    }

    /// A volume cannot take a file's place.
    async fn no_files_at_volumes(&self, image: &Image) -> Result<()> {
        let (builder, image) = (self.job.builder.clone(), image.clone());
        let volumes: Vec<String> = self.config.config.volumes.keys().cloned().collect();
        blocking(move || {
            let workshop = Workshop::open(&builder, &image)?;
            let tree = Tree::open(&workshop.rootfs, (0, 0))?;
            let file = volumes.iter().map(Path::new);
            let file = file
                .filter(|path| tree.exists(path) && !tree.is_folder(path))
                .map(|path| {
                    format!(
                        "cannot mount volume over existing file, file exists {}",
                        path.display()
                    )
                })
                .next();
            file.map_or(Ok(()), |message| Err(Error::message(message)))
        })
        .await
    }

    /// A step that no process runs for. With the image before it, the working directory is made.
    async fn record(&mut self, shown: String, folder: Option<Image>) -> Result<(), Failure> {
        let space = if folder.is_some() { "" } else { " " };
        let volumes = shown.starts_with("VOLUME ");
        let shown = format!("/bin/sh -c #(nop) {space}{shown}");
        if self.found(&shown, &shown).await? {
            return Ok(());
        }
        if volumes {
            self.no_files_at_volumes(&self.image_of()?).await?;
        }
        let id = hex::encode(rand::random::<[u8; 6]>());
        self.say(&format!(" ---> Running in {id}\n")).await;
        let mut workshop = None;
        if let Some(image) = folder {
            let (builder, path) = (
                self.job.builder.clone(),
                self.config.config.working_dir.clone(),
            );
            let opened = blocking(move || {
                let workshop = Workshop::open(&builder, &image)?;
                let root = crate::container::rooted::open_root(&workshop.rootfs)?;
                use std::os::fd::AsFd as _;
                crate::container::rooted::make_directories(root.as_fd(), Path::new(&path))?;
                Ok(workshop)
            });
            workshop = Some(Arc::new(opened.await?));
        }
        self.say_removed(&id).await;
        self.finish(Step {
            key: shown.clone(),
            shown,
            workshop,
            mounted: Vec::new(),
        })
        .await
    }

    pub(super) async fn say_removed(&self, id: &str) {
        if self.job.options.remove || self.job.options.force_remove {
            let id = short(id);
            self.say(&format!(" ---> Removed intermediate container {id}\n"))
                .await;
        }
    }

    /// Makes the step's image.
    pub(super) async fn finish(&mut self, step: Step) -> Result<(), Failure> {
        let store = &self.job.builder.images.store;
        let parent = self.image.clone();
        let layers = match &parent {
            Some(id) => store.layer_dirs(&store.resolve(id)?),
            None => Vec::new(),
        };
        let images = self.job.builder.images.clone();
        let cache = self.job.builder.cache.clone();
        let config = self.config.clone();
        let id = blocking(move || {
            let upper: Option<PathBuf> = step
                .workshop
                .as_ref()
                .map(|workshop| workshop.close())
                .transpose()?;
            let id = commit(
                &images,
                Done {
                    parent: parent.as_deref(),
                    config,
                    key: step.key.clone(),
                    shown: step.shown,
                    upper,
                    layers,
                    mounted: step.mounted,
                },
            )?;
            cache.remember_step(parent.as_deref(), &step.key, &id)?;
            Ok(id)
        })
        .await?;
        self.take_over(&store.resolve(&id)?);
        Ok(())
    }

    /// Looks for an image that the same step made on the same image before.
    pub(super) async fn found(&mut self, key: &str, shown: &str) -> Result<bool> {
        if !self.cached {
            return Ok(false);
        }
        let image = match self.job.options.cache_from.is_empty() {
            true => self.found_here(key),
            false => self.found_in_sources(shown)?,
        };
        let Some(image) = image else {
            self.cached = false;
            return Ok(false);
        };
        self.take_over(&image);
        self.say(" ---> Using cache\n").await;
        Ok(true)
    }

    fn found_here(&self, key: &str) -> Option<Image> {
        let builder = &self.job.builder;
        let id = builder.cache.step(self.image.as_deref(), key)?;
        let image = builder.images.store.resolve(&id).ok()?;
        (image.id == id && image.meta.parent == self.image).then_some(image)
    }

    /// An image given by `--cache-from` that went the same way and one step further.
    fn found_in_sources(&self, shown: &str) -> Result<Option<Image>> {
        let (past, layers) = (&self.config.history, &self.config.rootfs.diff_ids);
        for source in &self.job.cache_sources {
            let (history, all) = (&source.config.history, &source.config.rootfs.diff_ids);
            let same = history.len() > past.len()
                && history.iter().zip(past).all(|(a, b)| {
                    (&a.created_by, &a.created, a.empty_layer)
                        == (&b.created_by, &b.created, b.empty_layer)
                })
                && all.starts_with(layers);
            let Some(next) = history.get(past.len()).filter(|_| same) else {
                continue;
            };
            if next.created_by.as_deref() != Some(shown) {
                continue;
            }
            if let Some(image) = self.on_the_way_to(source, past.len() + 1) {
                return Ok(Some(image));
            }
            let mut config = self.config.clone();
            config.created.clone_from(&next.created);
            config.history.push(next.clone());
            if next.empty_layer != Some(true) {
                let Some(layer) = all.get(layers.len()) else {
                    continue;
                };
                config.rootfs.diff_ids.push(layer.clone());
            }
            config.rootfs.kind = "layers".into();
            let meta = ImageMeta {
                parent: self.image.clone(),
                build_step: Some(shown.to_owned()),
                ..ImageMeta::default()
            };
            let bytes = serde_json::to_vec(&config).map_err(std::io::Error::from)?;
            let store = &self.job.builder.images.store;
            return Ok(Some(store.resolve(&store.add(&bytes, &meta)?)?));
        }
        Ok(None)
    }

    /// The image itself, or the one of those it was made from, that has so many lines of history.
    fn on_the_way_to(&self, image: &Image, lines: usize) -> Option<Image> {
        let store = &self.job.builder.images.store;
        let mut image = image.clone();
        while image.config.history.len() > lines {
            image = store.resolve(image.meta.parent.as_deref()?).ok()?;
        }
        (image.config.history.len() == lines).then_some(image)
    }

    /// What the stage has so far, to be mounted.
    pub(super) fn image_of(&self) -> Result<Image> {
        image_or_scratch(self.job, self.image.as_deref())
    }

    fn take_over(&mut self, image: &Image) {
        self.config = image.config.clone();
        self.image = Some(image.id.clone());
    }

    /// The value of a variable: ENV outweighs ARG.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        config::value_of(&self.config.config.env, name).or_else(|| self.args.get(name).cloned())
    }

    /// A word with its variables.
    pub(super) fn expand(&self, instruction: &Instruction, word: &str) -> Result<String> {
        let lexer = Lexer {
            escape: instruction.escape,
            lookup: &|name| self.value(name),
        };
        lexer.single(word).map_err(|error| {
            Error::invalid(format!("failed to process {word:?}: {}", error.message))
        })
    }

    /// `NAME=value` of the ARGs that a command sees, and of those that need none.
    pub(super) fn args_of_commands(&self) -> (Vec<String>, Vec<String>) {
        let in_env = |name: &str| config::value_of(&self.config.config.env, name).is_some();
        let line = |(name, value): (&String, &String)| format!("{name}={value}");
        let declared = self.args.iter().filter(|(name, _)| !in_env(name));
        let given = &self.job.options.build_args;
        let free = given.iter().filter(|(name, _)| {
            FREE_ARGS.contains(&name.as_str()) && !in_env(name) && !self.args.contains_key(*name)
        });
        (declared.map(line).collect(), free.map(line).collect())
    }

    pub(super) async fn say(&self, text: &str) {
        self.job.report.line(self.index, stream(text)).await;
    }
}

/// An image of the store, or an empty one.
pub(super) fn image_or_scratch(job: &Job, id: Option<&str>) -> Result<Image> {
    match id {
        Some(id) => Ok(job.builder.images.store.resolve(id)?),
        None => Ok(Image {
            id: "scratch".into(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: 0,
            config: ImageConfig::default(),
            meta: ImageMeta::default(),
        }),
    }
}
