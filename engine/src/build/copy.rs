//! COPY and ADD.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::config::joined;
use super::context::{Found, Look, Source};
use super::dockerfile::Instruction;
use super::expand::Lexer;
use super::extract::{Owners, archive_in, extract};
use super::fetch::{Fetched, fetch, is_git, is_url};
use super::heredoc::operator;
use super::pattern::Excluded;
use super::run::Workshop;
use super::stage::{Failure, Stage, Step, blocking, image_or_scratch};
use super::tree::{Attributes, Tree};
use super::{mode, tree};
use crate::container::error::{Error, Result};
use crate::image::Image;

/// Something to be copied.
#[derive(Clone)]
enum Piece {
    /// Of the context, a stage or an image.
    Found(Found),
    /// A here-document.
    Text { name: String, content: String },
    /// Downloaded.
    Fetched(Fetched),
}

/// Where files come from.
enum Origin {
    Context(Arc<Source>),
    Image(Box<Image>),
}

/// The whole of an instruction, ready to be done.
struct Work {
    pieces: Vec<Piece>,
    /// In the image.
    destination: String,
    /// It was written like a folder.
    folder: bool,
    unpack: bool,
    parents: bool,
    excluded: Excluded,
    look: Look,
    /// Owner of folders that are made on the way.
    owner: (u32, u32),
}

impl Stage<'_> {
    pub(super) async fn copy(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        let mut words = Vec::new();
        let mut documents = instruction.documents.iter();
        let mut pieces = Vec::new();
        for word in instruction.list() {
            match operator(&word).and_then(|_| documents.next()) {
                Some(document) => pieces.push(self.text(instruction, document)?),
                None => words.push(self.expand(instruction, &word)?),
            }
        }
        let destination = words
            .pop()
            .filter(|_| !(words.is_empty() && pieces.is_empty()));
        let destination = destination.ok_or_else(|| {
            Error::invalid(format!(
                "{} requires at least two arguments",
                instruction.keyword
            ))
        })?;
        let excluded: Vec<String> = instruction
            .all_flags("exclude")
            .map(|pattern| self.expand(instruction, pattern))
            .collect::<Result<_>>()?;
        let excluded = Excluded::parse(excluded.iter().map(String::as_str));
        let flags = self.flags(instruction)?;
        let urls: Vec<String> = words
            .iter()
            .filter(|w| is_git(w) || is_url(w))
            .cloned()
            .collect();
        words.retain(|word| !urls.contains(word));
        pieces.extend(self.download(instruction, &urls).await?);
        let origin = self.origin(instruction).await?;
        let (found, digests) = self.found_in(&origin, &words, &excluded).await?;
        let mut digest: Vec<String> = pieces.iter().map(digest_of).collect();
        digest.extend(digests);
        pieces.extend(found.into_iter().map(Piece::Found));
        let shown_digest = match (&pieces[..], &digest[..]) {
            ([Piece::Found(found)], [digest]) if found.folder => format!("dir:{digest}"),
            ([_], [digest]) => format!("file:{digest}"),
            _ => format!("multi:{}", hex::encode(Sha256::digest(digest.join(",")))),
        };
        let folder =
            destination.ends_with('/') || destination.ends_with("/.") || destination == ".";
        if pieces.len() > 1 && !folder {
            return Err(Error::invalid(format!(
                "When using {} with more than one source file, the destination must be a directory and end with a /",
                instruction.keyword
            ))
            .into());
        }
        let place = joined(&self.config.config.working_dir, &destination);
        let slash = if folder && place != "/" { "/" } else { "" };
        let shown = format!(
            "/bin/sh -c #(nop) {} {flags}{shown_digest} in {place}{slash} ",
            instruction.keyword
        );
        if self.found(&shown, &shown).await? {
            return Ok(());
        }
        let work = Work {
            pieces,
            destination: place,
            folder,
            unpack: instruction.keyword == "ADD" && instruction.flag("unpack") != Some("false"),
            parents: instruction.switch("parents"),
            excluded,
            look: Look::default(),
            owner: (0, 0),
        };
        let workshop = self.work(instruction, work, origin).await?;
        self.finish(Step {
            key: shown.clone(),
            shown,
            workshop: Some(workshop),
            mounted: Vec::new(),
        })
        .await
    }

    /// Does it in a tree of its own.
    async fn work(
        &self,
        instruction: &Instruction,
        mut work: Work,
        origin: Origin,
    ) -> Result<Arc<Workshop>> {
        let image = self.image_of()?;
        let builder = self.job.builder.clone();
        let chown = instruction
            .flag("chown")
            .map(|text| self.expand(instruction, text));
        let chown = chown.transpose()?;
        let chmod = instruction
            .flag("chmod")
            .map(|text| self.expand(instruction, text));
        work.look.mode = match chmod.transpose()? {
            Some(text) => Some(mode::parse(&text).ok_or_else(|| {
                Error::invalid(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic"))
            })?),
            None => None,
        };
        blocking(move || {
            let workshop = Workshop::open(&builder, &image)?;
            if let Some(text) = chown {
                work.owner = owner(&workshop.rootfs, &text)?;
                work.look.owner = Some(work.owner);
            }
            // Kept to the end: the tree of another stage or image is mounted as long as it lives.
            let (source, held) = match origin {
                Origin::Context(source) => (source, None),
                Origin::Image(image) => {
                    let other = Workshop::open(&builder, &image)?;
                    (Arc::new(Source::open(&other.rootfs)?), Some(other))
                }
            };
            work.fill(&source, &workshop.rootfs)?;
            drop(held);
            Ok(Arc::new(workshop))
        })
        .await
    }

    /// What of the flags makes the result another one.
    fn flags(&self, instruction: &Instruction) -> Result<String> {
        let mut shown = String::new();
        for (name, value) in &instruction.flags {
            if !matches!(name.as_str(), "from" | "link" | "checksum" | "keep-git-dir") {
                let value = self.expand(instruction, value.trim_matches('\0'))?;
                let equals = if value.is_empty() { "" } else { "=" };
                shown += &format!("--{name}{equals}{value} ");
            }
        }
        Ok(shown)
    }

    fn text(&self, instruction: &Instruction, document: &super::heredoc::Heredoc) -> Result<Piece> {
        let lexer = Lexer {
            escape: instruction.escape,
            lookup: &|name| self.value(name),
        };
        let content = match document.expands {
            true => lexer.document(&document.content)?,
            false => document.content.clone(),
        };
        Ok(Piece::Text {
            name: document.name.clone(),
            content,
        })
    }

    async fn download(&self, instruction: &Instruction, urls: &[String]) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for url in urls {
            if instruction.keyword == "COPY" {
                return Err(Error::invalid("source can't be a URL for COPY"));
            }
            if is_git(url) {
                return Err(Error::not_implemented(format!(
                    "windlassd does not clone repositories ({url}): clone it before the build, or in a RUN"
                )));
            }
            self.say(&format!("Downloading {url}\n")).await;
            let fetched = fetch(url, &self.job.scratch).await?;
            if let Some(wanted) = instruction.flag("checksum") {
                let wanted = self.expand(instruction, wanted)?;
                let got = format!("sha256:{}", fetched.sha256);
                if wanted != got {
                    return Err(Error::invalid(format!(
                        "digest mismatch {got}: expected {wanted}"
                    )));
                }
            }
            pieces.push(Piece::Fetched(fetched));
        }
        if urls.is_empty() && instruction.flag("checksum").is_some() {
            return Err(Error::invalid(
                "checksum can't be specified for local sources",
            ));
        }
        Ok(pieces)
    }

    async fn origin(&self, instruction: &Instruction) -> Result<Origin> {
        match instruction.flag("from") {
            None => Ok(Origin::Context(self.job.context.clone())),
            Some(name) => {
                let name = self.expand(instruction, name)?;
                Ok(Origin::Image(Box::new(self.other(&name).await?)))
            }
        }
    }

    /// The image of an earlier stage, by name or number, or any other.
    pub(super) async fn other(&self, name: &str) -> Result<Image> {
        let invalid =
            |words: &str| Error::invalid(format!("invalid from flag value {name}: {words}"));
        if let Some(stage) = self.job.plan.before(self.index, name) {
            let finished = self.job.finished(stage).await?;
            return image_or_scratch(self.job, finished.image.as_deref());
        }
        if self.job.plan.named(name) == Some(self.index) || name.parse() == Ok(self.index) {
            return Err(invalid("refers to current build stage"));
        }
        if name.parse::<usize>().is_ok() {
            return Err(invalid("index out of bounds"));
        }
        if name == "scratch" {
            return image_or_scratch(self.job, None);
        }
        let platform = self.job.options.platform.as_deref();
        let image = self.job.base(self.index, name, platform).await;
        image.map_err(|error| Error::new(error.kind, invalid(&error.message).message))
    }

    /// What the patterns mean, with digests. An image never changes: what was found in it once is not read again.
    async fn found_in(
        &self,
        origin: &Origin,
        patterns: &[String],
        excluded: &Excluded,
    ) -> Result<(Vec<Found>, Vec<String>)> {
        let (patterns, excluded) = (patterns.to_vec(), excluded.clone());
        match origin {
            Origin::Context(source) => {
                let source = source.clone();
                blocking(move || look_up(&source, &patterns, &excluded)).await
            }
            Origin::Image(image) => {
                let layers = image.config.rootfs.diff_ids.join(",");
                let key = format!("{layers}\n{patterns:?}\n{excluded:?}");
                let (builder, image) = (self.job.builder.clone(), image.clone());
                blocking(move || {
                    if let Some(known) = builder.cache.digest(&key)
                        && let Ok(known) = serde_json::from_str(&known)
                    {
                        return Ok(known);
                    }
                    let workshop = Workshop::open(&builder, &image)?;
                    let source = Source::open(&workshop.rootfs)?;
                    let found = look_up(&source, &patterns, &excluded)?;
                    if let Ok(text) = serde_json::to_string(&found) {
                        builder.cache.remember_digest(&key, &text)?;
                    }
                    Ok(found)
                })
                .await
            }
        }
    }
}

fn look_up(
    source: &Source,
    patterns: &[String],
    excluded: &Excluded,
) -> Result<(Vec<Found>, Vec<String>)> {
    let found = source.find(patterns)?;
    let digests = found.iter().map(|item| source.digest(item, excluded));
    let digests = digests.collect::<Result<_>>()?;
    Ok((found, digests))
}

fn digest_of(piece: &Piece) -> String {
    match piece {
        Piece::Found(_) => String::new(),
        Piece::Text { name, content } => hex::encode(Sha256::digest(format!("{name}\n{content}"))),
        Piece::Fetched(fetched) => fetched.sha256.clone(),
    }
}

impl Work {
    /// Copies everything into the root file system at `rootfs`; blocking.
    fn fill(&self, source: &Source, rootfs: &Path) -> Result<()> {
        let mut tree = Tree::open(rootfs, self.owner)?;
        let destination = Path::new(&self.destination);
        let there = tree.is_folder(destination);
        if self.folder && !there && tree.exists(destination) {
            return Err(Error::invalid(format!(
                "cannot copy to non-directory: {}",
                self.destination
            )));
        }
        let folder = self.folder || there;
        for piece in &self.pieces {
            match piece {
                Piece::Found(found) => self.found(source, found, folder, &mut tree)?,
                Piece::Text { name, content } => {
                    let to = self.place(folder, name)?;
                    let look = self.attributes(0o644, 0);
                    tree.file(&to, &mut content.as_bytes(), &look)?;
                }
                Piece::Fetched(fetched) => {
                    let to = self.place(folder, &fetched.name)?;
                    let look = self.attributes(0o600, fetched.modified);
                    let file = fs_err::File::open(&fetched.path)?;
                    tree.copied(&to, &mut file.into_parts().0, &look)?;
                }
            }
        }
        tree.finish()?;
        Ok(())
    }

    fn found(&self, source: &Source, found: &Found, folder: bool, tree: &mut Tree) -> Result<()> {
        let destination = Path::new(&self.destination);
        if self.unpack
            && !found.folder
            && let Some(archive) = archive_in(source.open_file(found)?)?
        {
            tree.make_folders(destination)?;
            let owners = match self.owner {
                (0, 0) => Owners::Archived,
                owner => Owners::One(owner),
            };
            return extract(tree, destination, archive, owners);
        }
        let name = found.path.file_name().unwrap_or_default();
        if !found.folder && self.excluded.names(Path::new(name)) {
            return Ok(());
        }
        let to = match (self.parents, found.folder, folder) {
            (true, ..) => destination.join(&found.kept),
            (false, true, _) => destination.to_owned(),
            (false, false, true) => destination.join(name),
            (false, false, false) => destination.to_owned(),
        };
        if found.folder {
            if !tree.is_folder(&to) && tree.exists(&to) {
                return Err(Error::invalid(format!(
                    "cannot copy to non-directory: {}",
                    to.display()
                )));
            }
            tree.make_folders(&to)?;
        }
        source.copy(found, &to, &self.look, &self.excluded, tree)
    }

    fn place(&self, folder: bool, name: &str) -> Result<PathBuf> {
        let destination = Path::new(&self.destination);
        match (folder, name) {
            (true, "") => Err(Error::invalid("cannot determine filename for source")),
            (true, name) => Ok(destination.join(name.trim_start_matches('/'))),
            (false, _) => Ok(destination.to_owned()),
        }
    }

    fn attributes(&self, mode: u32, time: i64) -> tree::Attributes {
        Attributes {
            mode: self
                .look
                .mode
                .as_ref()
                .map_or(mode, |change| change.of(mode, false)),
            owner: self.owner,
            time: (time, 0),
        }
    }
}

/// `--chown`: names are looked up in the image. Blocking.
fn owner(rootfs: &Path, text: &str) -> Result<(u32, u32)> {
    let tree = Source::open(rootfs)?;
    let wrong = |what: &str, name: &str| {
        Error::invalid(format!(
            "unable to convert uid/gid chown string to host mapping: can't find {what} for {name}"
        ))
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || group.is_some_and(|group| group.is_empty() || group.contains(':')) {
        return Err(Error::invalid(format!(
            "invalid chown string format: {text}"
        )));
    }
    let uid = lookup(&tree, "/etc/passwd", user)
        .ok_or_else(|| wrong("uid", &format!("user {user}: no such user: {user}")))?;
    let gid = match group {
        Some(group) => lookup(&tree, "/etc/group", group)
            .ok_or_else(|| wrong("gid", &format!("group {group}: no such group: {group}")))?,
        // Docker takes the user's number for the group, too.
        None => uid,
    };
    Ok((uid, gid))
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
