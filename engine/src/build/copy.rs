//! COPY and ADD.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::fcntl::OFlag;

use super::config::joined;
use super::context::{Found, Look, Source};
use super::dockerfile::{Arguments, Instruction, words};
use super::run::Workshop;
use super::stage::{Build, Failure, Stage};
use crate::container::error::{Error, Result};
use crate::container::{files, rooted};

impl Build<'_> {
    pub(super) async fn copy(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), Failure> {
        let known: &[&str] = if instruction.keyword == "COPY" {
            &["from", "chown", "chmod"]
        } else {
            &["chown", "chmod"]
        };
        instruction.only_flags(known)?;
        let mut sources = match instruction.arguments() {
            Arguments::Exec(list) => list,
            Arguments::Shell(text) => words(&text),
        };
        let destination = sources.pop().filter(|_| !sources.is_empty());
        let destination =
            destination.ok_or_else(|| instruction.error("requires at least two arguments"))?;
        if let Some(url) = sources.iter().find(|source| source.contains("://")) {
            return Err(instruction
                .error(&format!(
                    "windlassd does not download {url}: fetch it in a RUN, or before the build"
                ))
                .into());
        }
        // Kept to the end: the tree of another stage or image is mounted as long as it lives.
        let other = match instruction.flag("from") {
            Some(name) => Some(self.other(name).await?),
            None => None,
        };
        let opened = other
            .as_ref()
            .map(|workshop| Source::open(&workshop.rootfs))
            .transpose()?;
        let source = opened.as_ref().unwrap_or(&self.context);
        let found = source.find(&sources)?;
        let key = format!("{} {}", instruction.shown(), source.digest(&found)?);
        let shown = format!(
            "/bin/sh -c #(nop) {} {}",
            instruction.keyword,
            key.split_once(' ').map_or("", |(_, rest)| rest)
        );
        if self.found(stage, &key).await? {
            return Ok(());
        }
        let source = opened.as_ref().unwrap_or(&self.context);
        let workshop = Workshop::open(self.builder, &self.image_of(stage)?)?;
        let look = look(&workshop.rootfs, instruction)?;
        let look = Look {
            keep_owner: other.is_some() && instruction.flag("chown").is_none(),
            ..look
        };
        let target = Target::new(
            &stage.config.config.working_dir,
            &destination,
            &found,
            &workshop,
        )?;
        tokio::task::block_in_place(|| {
            target.fill(source, &found, look, instruction.keyword == "ADD")
        })?;
        self.finish(stage, key, shown, Some(workshop)).await
    }

    /// The tree of an earlier stage, by name or number, or of an image.
    async fn other(&mut self, name: &str) -> Result<Workshop> {
        let by_name = self.done.iter().rev().find(|stage| stage.is_called(name));
        let by_number = name
            .parse::<usize>()
            .ok()
            .and_then(|number| self.done.get(number));
        let image = match by_name.or(by_number) {
            Some(stage) => self.image_of(stage)?,
            None => self.base(name, None).await?,
        };
        Workshop::open(self.builder, &image)
    }
}

/// Where the files go.
struct Target<'a> {
    workshop: &'a Workshop,
    /// In the image.
    path: String,
    /// Files keep their names below it.
    folder: bool,
}

impl<'a> Target<'a> {
    fn new(base: &str, destination: &str, found: &[Found], workshop: &'a Workshop) -> Result<Self> {
        let named_folder =
            destination.ends_with('/') || destination.ends_with("/.") || destination == ".";
        if found.len() > 1 && !named_folder {
            return Err(Error::invalid(
                "When using COPY or ADD with more than one source file, the destination must be a directory and end with a /",
            ));
        }
        let path = joined(base, destination);
        let root = rooted::open_root(&workshop.rootfs)?;
        let there = rooted::open(
            root.as_fd(),
            Path::new(&path),
            OFlag::O_PATH | OFlag::O_DIRECTORY,
        )
        .is_ok();
        Ok(Self {
            workshop,
            folder: named_folder || there,
            path,
        })
    }

    fn fill(&self, source: &Source, found: &[Found], look: Look, unpack: bool) -> Result<()> {
        let how = files::Unpacking {
            keep_owners: true,
            ..files::Unpacking::default()
        };
        let root = rooted::open_root(&self.workshop.rootfs)?;
        for item in found {
            if unpack
                && !item.folder
                && let Some(archive) = archive(source, item)?
            {
                rooted::make_directories(root.as_fd(), Path::new(&self.path))?;
                files::put(&root, &self.path, archive, how)?;
                continue;
            }
            let (folder, name) = self.place(item);
            rooted::make_directories(root.as_fd(), Path::new(&folder))?;
            let mut file = fs_err::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(self.workshop.folder().join("copy.tar"))?;
            let mut tar = tar::Builder::new(std::io::BufWriter::with_capacity(1 << 18, &mut file));
            source.pack(item, Path::new(&name), look, &mut tar)?;
            std::io::Write::flush(&mut tar.into_inner()?)?;
            file.seek(SeekFrom::Start(0))?;
            files::put(
                &root,
                &folder,
                std::io::BufReader::with_capacity(1 << 18, file),
                how,
            )?;
        }
        Ok(())
    }

    /// The folder to unpack in, and the name there; a folder's own name is left out.
    fn place(&self, item: &Found) -> (String, String) {
        if item.folder {
            return (self.path.clone(), String::new());
        }
        if self.folder {
            let name = item
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            return (self.path.clone(), name);
        }
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        (format!("{folder}/"), name.to_owned())
    }
}

/// The archive in a file, if it is one that ADD unpacks.
fn archive(source: &Source, item: &Found) -> Result<Option<Box<dyn std::io::Read>>> {
    let mut file = source.open_file(item)?;
    let mut start = [0_u8; 6];
    let length = file.read(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    if start[..length].starts_with(b"BZh") || start[..length] == *b"\xfd7zXZ\0" {
        return Err(Error::not_implemented(format!(
            "ADD {}: windlassd unpacks tar, tar.gz and tar.zst; for bzip2 and xz use COPY and a RUN",
            item.path.display()
        )));
    }
    let mut plain = crate::image::decompress(file)?;
    let mut block = Vec::new();
    // What is compressed and broken is a file like any other.
    if plain.by_ref().take(512).read_to_end(&mut block).is_err()
        || block.get(257..262) != Some(b"ustar")
    {
        return Ok(None);
    }
    Ok(Some(Box::new(std::io::Cursor::new(block).chain(plain))))
}

/// `--chown` and `--chmod`, names looked up in the image.
fn look(rootfs: &Path, instruction: &Instruction) -> Result<Look> {
    let mut look = Look::default();
    if let Some(text) = instruction.flag("chmod") {
        look.mode = Some(
            u32::from_str_radix(text, 8)
                .map_err(|_| instruction.error("--chmod must be octal, like 755"))?,
        );
    }
    if let Some(text) = instruction.flag("chown") {
        let tree = Source::open(rootfs)?;
        let (user, group) = text
            .split_once(':')
            .map_or((text, None), |(user, group)| (user, Some(group)));
        let uid = lookup(&tree, "/etc/passwd", user)
            .ok_or_else(|| instruction.error(&format!("no user {user:?} in the image")))?;
        let gid = match group {
            Some(group) => lookup(&tree, "/etc/group", group),
            // Docker takes the user's number for the group, too.
            None => Some(uid),
        };
        look.owner = (
            uid,
            gid.ok_or_else(|| instruction.error(&format!("no group in the image as of {text:?}")))?,
        );
    }
    Ok(look)
}

fn lookup(tree: &Source, file: &str, name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| {
        let text = tree.read(file).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
    })
}
