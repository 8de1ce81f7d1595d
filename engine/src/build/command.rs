//! RUN's command line, its here-documents and its mounts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::config;
use super::context::{Found, Source};
use super::dockerfile::{Arguments, Instruction};
use super::heredoc::Heredoc;
use super::mount::{self, Kind, Mount, Sharing};
use super::pattern::Excluded;
use super::run::{Command, Workshop, bind};
use super::stage::{Failure, Stage, Step, blocking};
use crate::container::MountRecord;
use crate::container::error::{Error, Result};
use crate::container::parts::{MountSpec, ProcessSpec};
use crate::container::rooted;
use crate::image::RunConfig;

/// Where a script of a here-document lies in the container.
const SCRIPTS: &str = "/dev/pipes";

/// What a step's mounts hold while it runs.
#[derive(Default)]
struct Held {
    mounts: Vec<MountSpec>,
    /// Trees of other stages and images.
    trees: Vec<Workshop>,
    shared: Vec<OwnedRwLockReadGuard<()>>,
    alone: Vec<OwnedRwLockWriteGuard<()>>,
}

/// A command line, and a script that it needs.
struct Line {
    args: Vec<String>,
    script: Option<(String, String)>,
}

impl Stage<'_> {
    pub(super) async fn run_command(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        if instruction
            .flag("security")
            .is_some_and(|value| value != "sandbox")
        {
            return Err(Error::not_implemented(
                "RUN --security=insecure: windlassd runs every step of a build confined",
            )
            .into());
        }
        let network = match instruction.flag("network") {
            None | Some("default") => self.job.options.network.clone(),
            Some(network @ ("none" | "host")) => network.to_owned(),
            Some(other) => {
                return Err(instruction
                    .error(&format!("invalid network mode \"{other}\""))
                    .into());
            }
        };
        let expand = |text: &str| self.expand(instruction, text);
        let mounts: Vec<Mount> = instruction
            .all_flags("mount")
            .map(|text| mount::parse(text, &expand).map_err(|e| instruction.error(&e.message)))
            .collect::<Result<_>>()?;
        let line = self.line(instruction);
        let (args, free) = self.args_of_commands();
        let mut shown = line.args.join(" ");
        if !args.is_empty() {
            shown = format!("|{} {} {shown}", args.len(), args.join(" "));
        }
        let mut key = format!(
            "{shown}\n{:?}\n{network}\n{:?}",
            line.script, instruction.flags
        );
        for mount in &mounts {
            key += &self.digest_of_mount(mount).await?;
        }
        if self.found(&key, &shown).await? {
            return Ok(());
        }
        let (builder, image) = (self.job.builder.clone(), self.image_of()?);
        let workshop = Arc::new(blocking(move || Workshop::open_to_run(&builder, &image)).await?);
        self.say(&format!(
            " ---> Running in {}\n",
            super::job::short(&workshop.id)
        ))
        .await;
        let mut held = Held::default();
        self.lock_caches(&mounts, &mut held).await;
        for mount in &mounts {
            self.hold(mount, &workshop, &mut held).await?;
        }
        if let Some((name, content)) = &line.script {
            held.mounts.push(script(&workshop, name, content)?);
        }
        let mounted: Vec<String> = held
            .mounts
            .iter()
            .map(|m| m.record.destination.clone())
            .collect();
        let run = &self.config.config;
        workshop.make_places(run.volumes.keys())?;
        let mut env = run.env.clone();
        env.extend(args.into_iter().chain(free));
        if config::value_of(&env, "HOSTNAME").is_none() {
            env.push(format!("HOSTNAME={}", super::job::short(&workshop.id)));
        }
        let command = Command {
            process: ProcessSpec {
                args: args_or_own(&line.args, run),
                env,
                cwd: run.working_dir.clone(),
                user: run.user.clone(),
                ..ProcessSpec::default()
            },
            network,
            host: self.job.options.host.clone(),
            mounts: std::mem::take(&mut held.mounts),
            shown: line.args.join(" "),
        };
        workshop.run(self, command).await?;
        drop(held);
        self.say_removed(&workshop.id).await;
        self.finish(Step {
            key,
            shown,
            workshop: Some(workshop),
            mounted,
        })
        .await
    }

    /// The command line; a single here-document is the script itself.
    fn line(&self, instruction: &Instruction) -> Line {
        let run = &self.config.config;
        let args = |text: String| config::shell_line(run, text);
        let text = match (instruction.arguments(), &instruction.documents[..]) {
            (Arguments::Exec(args), _) => return Line { args, script: None },
            (Arguments::Shell(text), []) => text,
            (Arguments::Shell(text), [document]) if text.split_whitespace().count() == 1 => {
                if document.content.starts_with("#!") {
                    let path = format!("{SCRIPTS}/{}", plain_name(document));
                    return Line {
                        args: vec![path.clone()],
                        script: Some((path, document.content.clone())),
                    };
                }
                return Line {
                    args: args(document.content.clone()),
                    script: None,
                };
            }
            (Arguments::Shell(mut text), documents) => {
                for document in documents {
                    text += &format!("\n{}{}", document.content, document.name);
                }
                text
            }
        };
        Line {
            args: args(text),
            script: None,
        }
    }

    /// What of a mount makes the result another one.
    async fn digest_of_mount(&self, mount: &Mount) -> Result<String> {
        if mount.kind != Kind::Bind {
            return Ok(String::new());
        }
        if let Some(from) = &mount.from {
            let image = self.other(from).await?;
            return Ok(image.config.rootfs.diff_ids.join(","));
        }
        let (context, path) = (self.job.context.clone(), PathBuf::from(&mount.source));
        blocking(move || {
            let item = Found {
                path: path.strip_prefix("/").unwrap_or(&path).to_owned(),
                folder: true,
                kept: PathBuf::new(),
            };
            context
                .digest(&item, &Excluded::default())
                .map_err(|error| missing(&path, error))
        })
        .await
    }

    async fn hold(&self, mount: &Mount, workshop: &Workshop, held: &mut Held) -> Result<()> {
        let target = config::joined(&self.config.config.working_dir, &mount.target);
        let (source, writable) = match mount.kind {
            Kind::Ssh => {
                return Err(Error::not_implemented(
                    "RUN --mount=type=ssh needs BuildKit's session with the client, which windlassd does not have",
                ));
            }
            Kind::Secret if mount.required => {
                return Err(Error::not_found(format!(
                    "secret {}: not found: a build without BuildKit's session cannot send secrets",
                    mount.id
                )));
            }
            Kind::Secret => return Ok(()),
            Kind::Tmpfs => {
                held.mounts.push(tmpfs(&target, mount.size));
                return Ok(());
            }
            Kind::Cache => {
                let source = self.cache_folder(mount, held).await?;
                (source, mount.read_only != Some(true))
            }
            Kind::Bind => {
                let writable = mount.read_only == Some(false);
                (self.bound(mount, workshop, held).await?, writable)
            }
        };
        held.mounts.push(bind(source, &target, writable));
        Ok(())
    }

    /// Waits for the caches that are waited for: each once and all in one order, so that no step waits for itself, nor two for each other.
    async fn lock_caches(&self, mounts: &[Mount], held: &mut Held) {
        for (name, alone) in cache_locks(mounts) {
            let lock = self.job.builder.cache.lock(name);
            match alone {
                true => held.alone.push(lock.write_owned().await),
                false => held.shared.push(lock.read_owned().await),
            }
        }
    }

    /// The folder of a cache; one of its own is found here, the others' locks are held.
    async fn cache_folder(&self, mount: &Mount, held: &mut Held) -> Result<PathBuf> {
        let cache = self.job.builder.cache.clone();
        let mut name = mount.id.clone();
        if mount.sharing == Sharing::Private {
            let mut lock: Arc<RwLock<()>> = cache.lock(&name);
            let mut number = 1;
            loop {
                match lock.clone().try_write_owned() {
                    Ok(guard) => break held.alone.push(guard),
                    Err(_) => {
                        number += 1;
                        name = format!("{}#{number}", mount.id);
                        lock = cache.lock(&name);
                    }
                }
            }
        }
        let (folder, new) = cache.mount(&name)?;
        if !new {
            return Ok(folder);
        }
        if let Some(from) = &mount.from {
            let (builder, image) = (self.job.builder.clone(), self.other(from).await?);
            let (to, source) = (folder.clone(), PathBuf::from(&mount.source));
            blocking(move || {
                let tree = Workshop::open_to_run(&builder, &image)?;
                let place = Source::open(&tree.rootfs)?
                    .place(&source)
                    .map_err(|error| missing(&source, error.into()))?;
                Ok(rooted::copy_directory(&rooted::open_root(&place)?, &to)?)
            })
            .await?;
        }
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(mount.mode.unwrap_or(0o755));
        fs_err::set_permissions(&folder, mode)?;
        let (uid, gid) = self.job.builder.outside(mount.owner);
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid))?;
        Ok(folder)
    }

    /// What a bind shows; what is written to it is lost with the step.
    async fn bound(&self, mount: &Mount, workshop: &Workshop, held: &mut Held) -> Result<PathBuf> {
        let source = PathBuf::from(&mount.source);
        if let Some(from) = &mount.from {
            let (builder, image) = (self.job.builder.clone(), self.other(from).await?);
            let tree = blocking(move || Workshop::open_to_run(&builder, &image)).await?;
            let place = Source::open(&tree.rootfs)?
                .place(&source)
                .map_err(|error| missing(&source, error.into()))?;
            held.trees.push(tree);
            return Ok(place);
        }
        let place = self
            .job
            .context
            .place(&source)
            .map_err(|error| missing(&source, error.into()))?;
        if mount.read_only != Some(false) {
            return Ok(place);
        }
        // Others see the context as it came.
        let copy = workshop
            .folder()
            .join(hex::encode(rand::random::<[u8; 8]>()));
        let to = copy.clone();
        blocking(move || {
            if place.is_dir() {
                fs_err::create_dir(&to)?;
                Ok(rooted::copy_directory(&rooted::open_root(&place)?, &to)?)
            } else {
                fs_err::copy(&place, &to)?;
                Ok(())
            }
        })
        .await?;
        Ok(copy)
    }
}

/// `RUN []` runs what the image itself would.
fn args_or_own(args: &[String], run: &RunConfig) -> Vec<String> {
    let own = || run.entrypoint.clone().filter(|line| !line.is_empty());
    match args {
        [] => own().or_else(|| run.cmd.clone()).unwrap_or_default(),
        args => args.to_vec(),
    }
}

fn missing(path: &std::path::Path, error: Error) -> Error {
    Error::invalid(format!(
        "failed to calculate checksum of \"{}\": not found: {}",
        path.display(),
        error.message
    ))
}

/// Caches by name, and whether one mount at least wants to be alone with it.
fn cache_locks(mounts: &[Mount]) -> BTreeMap<&str, bool> {
    let mut locks = BTreeMap::new();
    let waited_for = |m: &&Mount| m.kind == Kind::Cache && m.sharing != Sharing::Private;
    for mount in mounts.iter().filter(waited_for) {
        *locks.entry(mount.id.as_str()).or_default() |= mount.sharing == Sharing::Locked;
    }
    locks
}

fn plain_name(document: &Heredoc) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    document.name.chars().map(plain).collect()
}

/// An executable file with the script in it.
fn script(workshop: &Workshop, target: &str, content: &str) -> Result<MountSpec> {
    use std::os::unix::fs::PermissionsExt as _;
    let name = hex::encode(Sha256::digest(target));
    let path = workshop.folder().join(name);
    fs_err::write(&path, content)?;
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(bind(path, target, false))
}

fn tmpfs(target: &str, size: Option<u64>) -> MountSpec {
    let mut options = vec!["exec".to_owned(), "mode=1777".to_owned()];
    options.extend(size.map(|size| format!("size={size}")));
    let record = MountRecord {
        kind: "tmpfs".into(),
        destination: target.to_owned(),
        rw: true,
        options,
        ..MountRecord::default()
    };
    MountSpec {
        record,
        source: PathBuf::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_command_is_the_images_own() {
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).into()).collect() };
        let mut run = RunConfig {
            cmd: Some(words(&["sh"])),
            ..RunConfig::default()
        };
        assert_eq!(args_or_own(&[], &run), ["sh"]);
        assert_eq!(args_or_own(&words(&["a"]), &run), ["a"]);
        run.entrypoint = Some(words(&["/init"]));
        assert_eq!(args_or_own(&[], &run), ["/init"]);
    }

    #[test]
    fn each_cache_is_waited_for_once_and_in_one_order() {
        let cache = |id: &str, sharing| Mount {
            kind: Kind::Cache,
            id: id.to_owned(),
            sharing,
            ..Mount::default()
        };
        let mounts = [
            cache("b", Sharing::Shared),
            cache("a", Sharing::Locked),
            cache("b", Sharing::Locked),
            cache("a", Sharing::Shared),
            cache("c", Sharing::Private),
            Mount::default(),
        ];
        let locks: Vec<_> = cache_locks(&mounts).into_iter().collect();
        assert_eq!(locks, [("a", true), ("b", true)]);
    }
}
