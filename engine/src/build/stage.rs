//! The run of a build: stages, variables, the cache, what the client reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use windlass_engine_api::RegistryAuth;
use windlass_engine_api::types::Progress;

use super::commit::{Done, commit};
use super::context::Source;
use super::dockerfile::{Instruction, parse, words};
use super::options::Options;
use super::run::Workshop;
use super::{LocalBuilder, config, expand};
use crate::container::error::{Error, Result};
use crate::container::parts::{Images as _, ProcessSpec, ProgressSink, Pull};
use crate::image::{Image, ImageConfig, ImageMeta, Platform, Reference};

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

/// Variables that need no ARG to be given.
const FREE_ARGS: [&str; 10] = [
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
/// As in Docker's own images.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage, up to the instruction that was done last.
#[derive(Clone, Default)]
pub(super) struct Stage {
    name: Option<String>,
    pub(super) config: ImageConfig,
    /// The image so far; `None` for scratch.
    pub(super) image: Option<String>,
    args: BTreeMap<String, String>,
}

/// A build.
pub(super) struct Build<'a> {
    pub(super) builder: &'a LocalBuilder,
    options: Options,
    auth: BTreeMap<String, RegistryAuth>,
    pub(super) context: Source,
    progress: ProgressSink,
    /// ARGs before the first FROM.
    global: BTreeMap<String, String>,
    pub(super) done: Vec<Stage>,
    stage: Option<Stage>,
    /// Once a step was not found, those after it are not looked for.
    cached: bool,
}

impl<'a> Build<'a> {
    pub(super) fn new(
        builder: &'a LocalBuilder,
        options: Options,
        auth: BTreeMap<String, RegistryAuth>,
        context: &Path,
        progress: ProgressSink,
    ) -> Result<Self> {
        let context = Source::open(context)?;
        let cached = !options.no_cache;
        Ok(Self {
            builder,
            options,
            auth,
            context,
            progress,
            global: BTreeMap::new(),
            done: Vec::new(),
            stage: None,
            cached,
        })
    }

    /// Everything, to the names of the result.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let path = self.options.dockerfile.clone();
        let text = self.context.read(&path).map_err(|error| {
            Error::invalid(format!("failed to read dockerfile: open {path}: {error}"))
        })?;
        let instructions = parse(&text)?;
        let total = instructions.len() + usize::from(!self.options.labels.is_empty());
        for (number, instruction) in instructions.iter().enumerate() {
            if instruction.keyword == "FROM" && self.target_reached() {
                break;
            }
            self.say(&format!(
                "Step {}/{total} : {}\n",
                number + 1,
                instruction.shown()
            ))
            .await;
            self.step(instruction).await?;
        }
        if !self.options.target.is_empty() && !self.target_reached() {
            return Err(Error::invalid(format!(
                "failed to reach build target {} in Dockerfile",
                self.options.target
            ))
            .into());
        }
        self.add_labels(total).await?;
        let id = self.stage.as_ref().and_then(|stage| stage.image.clone());
        let id =
            id.ok_or_else(|| Error::invalid("No image was generated. Is your Dockerfile empty?"))?;
        let aux = Some(serde_json::json!({ "ID": id }));
        self.progress
            .send(Progress {
                aux,
                ..Progress::default()
            })
            .await
            .ok();
        self.say(&format!("Successfully built {}\n", short(&id)))
            .await;
        for name in self.options.names.clone() {
            self.builder.images.store.tag(&id, &name)?;
            self.say(&format!("Successfully tagged {}\n", name.familiar()))
                .await;
        }
        if self.options.quiet {
            let stream = format!("{id}\n");
            self.progress
                .send(Progress {
                    stream,
                    ..Progress::default()
                })
                .await
                .ok();
        }
        Ok(())
    }

    fn target_reached(&self) -> bool {
        let target = &self.options.target;
        let stage = self.stage.as_ref();
        !target.is_empty()
            && stage.is_some_and(|stage| {
                stage.name.as_deref() == Some(&target.to_lowercase())
                    || target.parse() == Ok(self.done.len())
            })
    }

    async fn add_labels(&mut self, total: usize) -> Result<(), Failure> {
        if self.options.labels.is_empty() {
            return Ok(());
        }
        let quoted = |text: &String| {
            format!(
                "\"{}\"",
                text.replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('$', "\\$")
            )
        };
        let pairs: Vec<String> = self
            .options
            .labels
            .iter()
            .map(|(k, v)| format!("{}={}", quoted(k), quoted(v)))
            .collect();
        let instruction = Instruction {
            line: 0,
            keyword: "LABEL".into(),
            flags: Vec::new(),
            text: pairs.join(" "),
        };
        self.say(&format!("Step {total}/{total} : {}\n", instruction.shown()))
            .await;
        self.step(&instruction).await
    }

    async fn step(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        match instruction.keyword.as_str() {
            "FROM" => return self.from(instruction).await,
            "ARG" => return self.arg(instruction).await,
            _ => {}
        }
        let Some(mut stage) = self.stage.take() else {
            return Err(instruction
                .error("no build stage in current context: the file must begin with FROM")
                .into());
        };
        let outcome = self.in_stage(&mut stage, instruction).await;
        self.stage = Some(stage);
        outcome
    }

    async fn in_stage(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), Failure> {
        let mut instruction = instruction.clone();
        if !matches!(
            instruction.keyword.as_str(),
            "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" | "ONBUILD" | "HEALTHCHECK" | "MAINTAINER"
        ) {
            instruction.text = stage.expand(&instruction.text)?;
            for (_, value) in &mut instruction.flags {
                *value = stage.expand(value)?;
            }
        }
        match instruction.keyword.as_str() {
            "RUN" => self.run_command(stage, &instruction).await,
            "COPY" | "ADD" => self.copy(stage, &instruction).await,
            _ => self.configure(stage, &instruction).await,
        }
    }

    /// An instruction that changes the configuration; WORKDIR makes its folder, too.
    async fn configure(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), Failure> {
        if instruction.keyword != "HEALTHCHECK" {
            instruction.only_flags(&[])?;
        }
        let before = stage.config.clone();
        config::apply(&mut stage.config, instruction)?;
        let key = instruction.shown();
        let shown = format!("/bin/sh -c #(nop)  {key}");
        if self.found(stage, &key).await? {
            return Ok(());
        }
        let workshop = match instruction.keyword.as_str() {
            "WORKDIR" => Some(self.make_workdir(stage, &before)?),
            _ => None,
        };
        self.finish(stage, key, shown, workshop.flatten()).await
    }

    fn make_workdir(&self, stage: &Stage, before: &ImageConfig) -> Result<Option<Workshop>> {
        use std::os::fd::AsFd as _;
        let image = self.image_of(&Stage {
            config: before.clone(),
            ..stage.clone()
        })?;
        let workshop = Workshop::open(self.builder, &image)?;
        let root = crate::container::rooted::open_root(&workshop.rootfs)?;
        crate::container::rooted::make_directories(
            root.as_fd(),
            Path::new(&stage.config.config.working_dir),
        )?;
        Ok(Some(workshop))
    }

    async fn run_command(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), Failure> {
        instruction.only_flags(&[])?;
        let args = config::command(&stage.config.config, instruction.arguments());
        let given = stage.args_of_commands(&self.options.build_args);
        let key = format!("RUN {} {}", given.join(" "), args.join("\u{1}"));
        if self.found(stage, &key).await? {
            return Ok(());
        }
        let workshop = Workshop::open(self.builder, &self.image_of(stage)?)?;
        self.say(&format!(" ---> Running in {}\n", short(&workshop.id)))
            .await;
        let run = &stage.config.config;
        let mut env = run.env.clone();
        env.extend(given);
        if !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.push(PATH.to_owned());
        }
        let process = ProcessSpec {
            args: args.clone(),
            env,
            cwd: run.working_dir.clone(),
            user: run.user.clone(),
            ..ProcessSpec::default()
        };
        workshop
            .run(process, &self.options.network, &self.progress)
            .await?;
        self.say(&format!(
            " ---> Removed intermediate container {}\n",
            short(&workshop.id)
        ))
        .await;
        self.finish(stage, key, args.join(" "), Some(workshop))
            .await
    }

    /// Makes the step's image and says so.
    pub(super) async fn finish(
        &mut self,
        stage: &mut Stage,
        key: String,
        shown: String,
        workshop: Option<Workshop>,
    ) -> Result<(), Failure> {
        let parent = stage.image.clone();
        let layers = match &parent {
            Some(id) => self
                .builder
                .images
                .store
                .layer_dirs(&self.builder.images.store.resolve(id)?),
            None => Vec::new(),
        };
        let upper: Option<PathBuf> = workshop.as_ref().map(Workshop::close).transpose()?;
        let (images, config) = (self.builder.images.clone(), stage.config.clone());
        let id = tokio::task::spawn_blocking(move || {
            commit(
                &images,
                Done {
                    parent: parent.as_deref(),
                    config,
                    key,
                    shown,
                    upper,
                    layers,
                },
            )
        })
        .await
        .map_err(Error::internal)??;
        drop(workshop);
        stage.take_over(&self.builder.images.store.resolve(&id)?);
        self.say(&format!(" ---> {}\n", short(&id))).await;
        Ok(())
    }

    /// Looks for an image that the same step made on the same image before.
    pub(super) async fn found(&mut self, stage: &mut Stage, key: &str) -> Result<bool> {
        if !self.cached {
            return Ok(false);
        }
        let same = |image: &Image| {
            image.meta.parent == stage.image && image.meta.build_step.as_deref() == Some(key)
        };
        let newest = self
            .builder
            .images
            .store
            .list()?
            .into_iter()
            .filter(same)
            .max_by_key(|image| image.config.created.clone());
        let Some(image) = newest else {
            self.cached = false;
            return Ok(false);
        };
        stage.take_over(&image);
        self.say(" ---> Using cache\n").await;
        self.say(&format!(" ---> {}\n", short(&image.id))).await;
        Ok(true)
    }

    /// What the stage has so far, to be mounted.
    pub(super) fn image_of(&self, stage: &Stage) -> Result<Image> {
        match &stage.image {
            Some(id) => Ok(self.builder.images.store.resolve(id)?),
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

    async fn arg(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        for word in words(&instruction.text) {
            let (name, default) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(n, d)| (n, Some(d)));
            let default = match (&self.stage, default) {
                (Some(stage), Some(text)) => Some(stage.expand(text)?),
                (None, Some(text)) => Some(expand::expand(text, &|name| {
                    self.global.get(name).cloned()
                })?),
                (_, None) => None,
            };
            let given = self.options.build_args.get(name).cloned().or(default);
            match &mut self.stage {
                Some(stage) => {
                    let value = given.or_else(|| self.global.get(name).cloned());
                    stage
                        .args
                        .extend(value.map(|value| (name.to_owned(), value)));
                }
                None => self
                    .global
                    .extend(given.map(|value| (name.to_owned(), value))),
            }
        }
        Ok(())
    }

    async fn from(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        instruction.only_flags(&["platform"])?;
        self.done.extend(self.stage.take());
        let global = |text: &str| expand::expand(text, &|name| self.global.get(name).cloned());
        let list = words(&global(&instruction.text)?);
        let (base, name) = match list.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [base] => (base.to_owned(), None),
            [base, word, name] if word.eq_ignore_ascii_case("as") => {
                (base.to_owned(), Some(name.to_lowercase()))
            }
            _ => {
                return Err(instruction
                    .error("requires either one or three arguments: FROM image [AS name]")
                    .into());
            }
        };
        let platform = instruction
            .flag("platform")
            .map(global)
            .transpose()?
            .or_else(|| self.options.platform.clone());
        let mut stage = Stage {
            name,
            ..Stage::default()
        };
        if base == "scratch" {
            let host = Platform::host();
            stage.config = ImageConfig {
                architecture: host.architecture,
                os: host.os,
                ..ImageConfig::default()
            };
        } else if let Some(earlier) = self
            .done
            .iter()
            .rev()
            .find(|stage| stage.name.as_deref() == Some(&base.to_lowercase()))
        {
            (stage.config, stage.image) = (earlier.config.clone(), earlier.image.clone());
        } else {
            stage.take_over(&self.base(&base, platform.as_deref()).await?);
        }
        if let Some(id) = &stage.image {
            self.say(&format!(" ---> {}\n", short(id))).await;
        } else {
            self.say(" ---> \n").await;
        }
        let triggers = std::mem::take(&mut stage.config.config.on_build);
        self.stage = Some(stage);
        for trigger in triggers {
            for instruction in parse(&trigger)? {
                self.say(&format!(
                    "# Executing build trigger : {}\n",
                    instruction.shown()
                ))
                .await;
                Box::pin(self.step(&instruction)).await?;
            }
        }
        Ok(())
    }

    /// An image of this host, pulled when it is not here.
    pub(super) async fn base(&self, name: &str, platform: Option<&str>) -> Result<Image> {
        let store = &self.builder.images.store;
        match store.resolve(name) {
            Ok(image) if !self.options.pull => return Ok(image),
            Err(error) if error.status() != 404 => return Err(error.into()),
            _ => {}
        }
        let reference = Reference::parse(name)?;
        let wanted_name = reference.to_string();
        let keys = [reference.registry.as_str(), "https://index.docker.io/v1/"];
        let keys = if reference.registry == "docker.io" {
            &keys[..]
        } else {
            &keys[..1]
        };
        let auth = keys.iter().find_map(|key| self.auth.get(*key)).cloned();
        let wanted = Pull {
            reference: wanted_name,
            auth,
            platform: platform.map(str::to_owned),
        };
        self.builder
            .images
            .pull(wanted, self.progress.clone())
            .await?;
        Ok(store.resolve(name)?)
    }

    pub(super) async fn say(&self, text: &str) {
        if !self.options.quiet {
            self.progress
                .send(Progress {
                    stream: text.to_owned(),
                    ..Progress::default()
                })
                .await
                .ok();
        }
    }
}

impl Stage {
    /// Whether `--from` means this one.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.as_deref() == Some(&name.to_lowercase())
    }

    fn take_over(&mut self, image: &Image) {
        self.config = image.config.clone();
        self.image = Some(image.id.clone());
    }

    /// ENV outweighs ARG.
    fn expand(&self, text: &str) -> Result<String> {
        expand::expand(text, &|name| {
            let of_env = self
                .config
                .config
                .env
                .iter()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            of_env
                .map(str::to_owned)
                .or_else(|| self.args.get(name).cloned())
        })
    }

    /// `NAME=value` of the ARGs that a command sees.
    fn args_of_commands(&self, given: &BTreeMap<String, String>) -> Vec<String> {
        let in_env = |name: &str| {
            self.config
                .config
                .env
                .iter()
                .any(|line| line.split('=').next() == Some(name))
        };
        let free = given
            .iter()
            .filter(|(name, _)| FREE_ARGS.contains(&name.as_str()));
        let all: BTreeMap<&String, &String> = self.args.iter().chain(free).collect();
        all.into_iter()
            .filter(|(name, _)| !in_env(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

/// Twelve digits.
pub(super) fn short(id: &str) -> &str {
    let hex = id.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}
