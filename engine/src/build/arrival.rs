//! The context: from the request's body as it arrives, or from an address; then the Dockerfile, and what is ignored.

use std::path::Path;
use std::sync::Arc;

use tokio_util::io::SyncIoBridge;

use super::context::Source;
use super::dockerfile::{Instruction, parse};
use super::extract::{Owners, extract, is_header};
use super::fetch::{fetch, is_git, is_url};
use super::options::Options;
use super::pattern::Excluded;
use super::stage::blocking;
use super::tree::{Contents, Tree};
use crate::container::error::{Error, Result};
use crate::container::parts::Reader;

/// The client's files, and the Dockerfile among them.
pub struct Arrived {
    /// What COPY and ADD see.
    pub source: Arc<Source>,
    /// The Dockerfile.
    pub instructions: Vec<Instruction>,
}

/// Takes the context in below `folder`.
pub async fn arrive(options: &mut Options, body: Reader, folder: &Path) -> Result<Arrived> {
    let target = folder.join("context");
    fs_err::create_dir(&target)?;
    let contents = match options.remote.clone() {
        None => {
            let (archive, into) = (SyncIoBridge::new(body), target.clone());
            blocking(move || unpack(archive, &into)).await?
        }
        Some(remote) => from_address(options, &remote, folder, &target).await?,
    };
    let options = options.clone();
    blocking(move || read(&options, &target, contents)).await
}

fn unpack(archive: impl std::io::Read, into: &Path) -> Result<Contents> {
    let archive = crate::image::decompress(archive)?;
    let mut tree = Tree::open(into, (0, 0))?.digesting();
    extract(&mut tree, Path::new(""), archive, Owners::One((0, 0))).map_err(|error| {
        Error::new(
            error.kind,
            format!("Error processing tar file: {}", error.message),
        )
    })?;
    Ok(tree.finish()?)
}

/// An archive, or a Dockerfile alone.
async fn from_address(
    options: &mut Options,
    remote: &str,
    folder: &Path,
    target: &Path,
) -> Result<Contents> {
    if remote == "client-session" {
        return Err(Error::invalid(
            "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead",
        ));
    }
    if is_git(remote) {
        return Err(Error::not_implemented(format!(
            "windlassd does not clone repositories ({remote}): clone it and build from the folder"
        )));
    }
    if !is_url(remote) {
        return Err(Error::invalid(format!(
            "remoteURL ({remote}) could not be recognized as URL"
        )));
    }
    let fetched = fetch(remote, folder).await.map_err(|error| {
        let words = format!(
            "error downloading remote context {remote}: {}",
            error.message
        );
        Error::new(error.kind, words)
    })?;
    let plain = fetched.content_type == "text/plain";
    let (into, path) = (target.to_owned(), fetched.path);
    let archive = blocking(move || {
        if plain || !is_archive(&path)? {
            fs_err::rename(&path, into.join("Dockerfile"))?;
            return Ok(None);
        }
        let contents = unpack(fs_err::File::open(&path)?, &into)?;
        fs_err::remove_file(&path)?;
        Ok(Some(contents))
    })
    .await?;
    if archive.is_none() {
        options.dockerfile = "Dockerfile".into();
    }
    Ok(archive.unwrap_or_default())
}

fn is_archive(path: &Path) -> Result<bool> {
    use std::io::Read as _;
    let Ok(plain) = crate::image::decompress(fs_err::File::open(path)?) else {
        return Ok(false);
    };
    let mut block = Vec::new();
    Ok(plain.take(512).read_to_end(&mut block).is_ok() && is_header(&block))
}

/// Reads the Dockerfile, and takes away what is ignored. Blocking.
fn read(options: &Options, context: &Path, contents: Contents) -> Result<Arrived> {
    let source = Source::open(context)?.knowing(contents);
    let mut name = options.dockerfile.clone();
    let mut text = source.read(&name);
    if text.is_err() && name == "Dockerfile" {
        text = source.read("dockerfile");
        if text.is_ok() {
            name = "dockerfile".into();
        }
    }
    let text = text.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Error::invalid(format!("failed to parse {name}: it is no text in UTF-8"))
        }
        _ => Error::message(format!("Cannot locate specified Dockerfile: {name}")),
    })?;
    if text.trim().is_empty() {
        return Err(Error::invalid(format!(
            "the Dockerfile ({name}) cannot be empty"
        )));
    }
    let instructions = parse(&text).map_err(|error| {
        match error.message.starts_with("dockerfile parse error") {
            true => error,
            false => Error::invalid(format!("failed to parse {name}: {}", error.message)),
        }
    })?;
    let ignored = [format!("{name}.dockerignore"), ".dockerignore".to_owned()]
        .iter()
        .find_map(|name| source.read(name).ok());
    if let Some(ignored) = ignored {
        source.remove(&Excluded::parse(ignored.lines()))?;
    }
    Ok(Arrived {
        source: Arc::new(source),
        instructions,
    })
}
