//! RUN: a container for one command.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_engine_api::Source as Stream;
use windlass_engine_api::types::HostConfig;

use super::job::short;
use super::stage::{Failure, Stage};
use super::{LocalBuilder, Scratch};
use crate::container::error::{Error, Result};
use crate::container::parts::{Connect, Connected, Join, MountSpec, Netns, ProcessSpec, RunSpec};
use crate::container::{MountRecord, resolv_conf, rooted};
use crate::image::Image;
use crate::runtime::user_namespace::Assumed;
use crate::userns::{Maps, Remap};

/// A root file system that a step works in. Dropped, everything of it is taken away, whatever happened.
pub struct Workshop {
    builder: LocalBuilder,
    /// Its container id.
    pub id: String,
    /// The mounted root.
    pub rootfs: PathBuf,
    folder: Option<Scratch>,
}

/// A command of a step, and how it runs.
pub struct Command {
    /// The process.
    pub process: ProcessSpec,
    /// `default`, `none`, `host`, `container:ID`, or a network's name.
    pub network: String,
    /// Limits and names of other hosts.
    pub host: HostConfig,
    /// What `--mount` asks for.
    pub mounts: Vec<MountSpec>,
    /// As the client hears of it.
    pub shown: String,
}

impl Workshop {
    /// Mounts `image` with a new writable layer. Blocking.
    pub fn open(builder: &LocalBuilder, image: &Image) -> Result<Self> {
        Self::open_as(builder, image, None)
    }

    /// As a command sees it. Blocking.
    pub fn open_to_run(builder: &LocalBuilder, image: &Image) -> Result<Self> {
        Self::open_as(builder, image, builder.remap.as_deref())
    }

    fn open_as(builder: &LocalBuilder, image: &Image, remap: Option<&Remap>) -> Result<Self> {
        let (id, folder) = builder.new_folder()?;
        let folder = Some(Scratch(folder));
        let mut this = Self {
            builder: builder.clone(),
            rootfs: PathBuf::new(),
            id,
            folder,
        };
        this.rootfs =
            builder
                .images
                .overlays
                .mount(&this.id, &builder.images.store, image, remap)?;
        Ok(this)
    }

    /// Its folder for files of any kind.
    pub fn folder(&self) -> &Path {
        self.folder
            .as_ref()
            .map_or(Path::new(""), |folder| &folder.0)
    }

    /// A volume's place is there for the command, as it will be in a container.
    pub fn make_places<'a>(&self, volumes: impl Iterator<Item = &'a String>) -> Result<()> {
        use std::os::fd::AsFd as _;
        let root = rooted::open_root(&self.rootfs)?;
        let owner = self.builder.remap.as_ref().map(|r| r.maps.root());
        let _owner = owner.map(Assumed::new).transpose()?;
        for volume in volumes {
            rooted::make_directories(root.as_fd(), Path::new(volume))?;
        }
        Ok(())
    }

    /// Unmounts; the writable layer's folder. Blocking.
    pub fn close(&self) -> Result<PathBuf> {
        self.builder.images.overlays.unmount(&self.id)?;
        Ok(self.builder.images.overlays.upper(&self.id))
    }

    /// Runs a command; its output goes to the client.
    pub(super) async fn run(&self, stage: &Stage<'_>, command: Command) -> Result<(), Failure> {
        let runtime = &self.builder.runtime;
        fs_err::write(self.folder().join("step"), &command.shown).map_err(Error::from)?;
        let shown = command.shown.clone();
        let spec = self.specification(command).await?;
        runtime.create(&spec).await?;
        let attachment = runtime.attach(&self.id).await?;
        runtime.start(&self.id).await?;
        let mut output = attachment.output;
        let mut texts = [Text::default(), Text::default()];
        while let Some(frame) = output.recv().await {
            let errors = frame.source == Stream::Stderr;
            let text = texts[usize::from(errors)].add(&frame.data);
            match errors {
                // Red, as Docker has it.
                true => stage.say(&format!("\u{1b}[91m{text}\u{1b}[0m")).await,
                false => stage.say(&text).await,
            }
        }
        let exit = runtime.wait(&self.id).await?;
        runtime.delete(&self.id).await?;
        self.builder.networks.disconnect(&self.id).await?;
        fs_err::remove_file(self.folder().join("step")).map_err(Error::from)?;
        if exit.code != 0 {
            if stage.job.options.force_remove {
                stage.say_removed(&self.id).await;
            }
            let message = format!(
                "The command '{shown}' returned a non-zero code: {}",
                exit.code
            );
            return Err(Failure::Command {
                message,
                code: exit.code,
            });
        }
        Ok(())
    }

    async fn connected(&self, network: &str) -> Result<(Netns, Option<Connected>)> {
        let network = match network {
            "none" => return Ok((Netns::None, None)),
            "host" if self.builder.remap.is_some() => {
                return Err(Error::invalid(
                    "cannot share the host's network namespace when user namespaces are enabled",
                ));
            }
            "host" => return Ok((Netns::Host, None)),
            "default" | "" => "bridge",
            container if container.starts_with("container:") => {
                let id = &container["container:".len()..];
                let pid = self.builder.runtime.alive(id).await;
                let pid = pid.ok_or_else(|| {
                    Error::conflict(format!(
                        "cannot join network of a non running container: {id}"
                    ))
                })?;
                return Ok((Netns::Path(format!("/proc/{pid}/ns/net").into()), None));
            }
            other => other,
        };
        let wanted = Connect {
            container: self.id.clone(),
            joins: vec![Join {
                network: network.into(),
                ..Join::default()
            }],
            user: self.maps(),
            ..Connect::default()
        };
        let connected = self.builder.networks.connect(&wanted).await?;
        Ok((Netns::Path(connected.netns.clone()), Some(connected)))
    }

    fn maps(&self) -> Option<Maps> {
        let remap = self.builder.remap.as_ref();
        remap.map(|remap| remap.maps.clone())
    }

    async fn specification(&self, command: Command) -> Result<RunSpec> {
        let (netns, connected) = self.connected(&command.network).await?;
        let folder = self.folder();
        let hostname = short(&self.id).to_owned();
        let host_resolvers = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let nameserver = connected.as_ref().and_then(|got| got.nameserver.clone());
        let resolvers = resolv_conf(
            &HostConfig::default(),
            &host_resolvers,
            netns == Netns::Host,
            nameserver.as_deref(),
        );
        let files = [
            (
                "hosts",
                hosts(&command.host, &hostname, connected.as_ref())?,
            ),
            ("hostname", format!("{hostname}\n")),
            ("resolv.conf", resolvers),
        ];
        let mut mounts = Vec::new();
        for (name, content) in files {
            fs_err::write(folder.join(name), content)?;
            let source = folder.join(name);
            if let Some(remap) = &self.builder.remap {
                let (user, group) = remap.maps.root();
                std::os::unix::fs::chown(&source, Some(user), Some(group))?;
            }
            mounts.push(bind(source, &format!("/etc/{name}"), true));
        }
        mounts.extend(command.mounts);
        Ok(RunSpec {
            id: self.id.clone(),
            folder: folder.to_owned(),
            rootfs: self.rootfs.clone(),
            process: command.process,
            hostname,
            host: command.host,
            mounts,
            netns,
            // The output goes to the client alone.
            log_path: PathBuf::new(),
            user: self.maps(),
            ..RunSpec::default()
        })
    }
}

/// Output that may be cut within a character.
#[derive(Default)]
struct Text {
    rest: Vec<u8>,
}

impl Text {
    /// All but the beginning of a character whose end is not there yet.
    fn add(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let cut = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let rest = self.rest.split_off(cut);
        let whole = std::mem::replace(&mut self.rest, rest);
        String::from_utf8_lossy(&whole).into_owned()
    }
}

/// `/etc/hosts`.
fn hosts(host: &HostConfig, hostname: &str, connected: Option<&Connected>) -> Result<String> {
    let mut text =
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
            .to_owned();
    for line in &host.extra_hosts {
        let (name, address) = line
            .split_once([':', '='])
            .ok_or_else(|| Error::invalid(format!("bad format for add-host: \"{line}\"")))?;
        let gateway = connected.and_then(Connected::gateway);
        let address = match address {
            "host-gateway" => gateway
                .filter(|gateway| !gateway.is_empty())
                .ok_or_else(|| Error::invalid("unable to derive the IP value for host-gateway"))?,
            address => address.trim_matches(['[', ']']),
        };
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!(
                "invalid IP address in add-host: \"{address}\""
            )));
        }
        text += &format!("{address}\t{name}\n");
    }
    if let Some(address) = connected.and_then(Connected::address) {
        text += &format!("{address}\t{hostname}\n");
    }
    Ok(text)
}

/// A bind mount.
pub fn bind(source: PathBuf, target: &str, writable: bool) -> MountSpec {
    let record = MountRecord {
        kind: "bind".into(),
        source: source.display().to_string(),
        destination: target.to_owned(),
        rw: writable,
        propagation: "rprivate".into(),
        ..MountRecord::default()
    };
    MountSpec { record, source }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let (builder, id, folder) = (self.builder.clone(), self.id.clone(), self.folder.take());
        let cleanup = async move {
            // A client that went away has stopped us in the middle: the command may still run.
            let runtime = Arc::clone(&builder.runtime);
            let ended = match folder
                .as_ref()
                .is_some_and(|folder| folder.0.join("step").exists())
            {
                true => runtime
                    .delete(&id)
                    .await
                    .and(builder.networks.disconnect(&id).await),
                false => Ok(()),
            };
            let gone = tokio::task::spawn_blocking(move || {
                let discarded = builder.images.overlays.discard(&id).map_err(Error::from);
                if let Err(error) = ended.and(discarded) {
                    tracing::warn!(%error, id, "a build step was not taken away");
                }
                drop(folder);
            });
            gone.await.ok();
        };
        match tokio::runtime::Handle::try_current() {
            Ok(handle) => drop(handle.spawn(cleanup)),
            Err(_) => tracing::debug!("the engine ends; the step is taken away at its next start"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stay_whole() {
        let mut text = Text::default();
        assert_eq!(text.add(&[b'a', 0xc3]), "a");
        assert_eq!(text.add(&[0xa4, 0xff]), "ä\u{fffd}");
        assert_eq!(text.add(b"x"), "x");
    }

    #[test]
    fn names_of_other_hosts() {
        let host = |line: &str| HostConfig {
            extra_hosts: vec![line.to_owned()],
            ..HostConfig::default()
        };
        let text = hosts(&host("db:10.0.0.1"), "me", None).unwrap();
        assert!(text.ends_with("10.0.0.1\tdb\n"), "{text}");
        assert!(
            hosts(&host("six:[::2]"), "me", None)
                .unwrap()
                .ends_with("::2\tsix\n")
        );
        for bad in ["db", "db:x", "db:host-gateway"] {
            assert!(hosts(&host(bad), "me", None).is_err(), "{bad}");
        }
    }
}
