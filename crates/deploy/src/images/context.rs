//! A build context: the files of a folder without those that `.dockerignore` names, their digest, and the archive of them.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use windlass_compose::model::Build;
use windlass_engine_api::{BuildOptions, RequestBody};

use super::ignore::Ignore;

/// A folder that an image is built from.
#[derive(Clone, Debug)]
pub struct BuildContext {
    folder: PathBuf,
    build: Build,
    files: Arc<Vec<String>>,
    digest: String,
}

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Not a folder.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Without instructions.
    #[error("{} has no `{dockerfile}`", folder.display())]
    NoDockerfile {
        /// The context.
        folder: PathBuf,
        /// What was looked for.
        dockerfile: String,
    },
    /// A context from elsewhere.
    #[error("`{0}` is a remote context; only folders can be built")]
    Remote(String),
    /// Reading failed; the message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl BuildContext {
    /// Looks through the folder and computes the digest of everything that goes into the build.
    pub async fn read(project_folder: &Path, build: &Build) -> Result<Self, ContextError> {
        let folder = project_folder.join(&build.context);
        let build = build.clone();
        tokio::task::spawn_blocking(move || read(folder, build))
            .await
            .map_err(io::Error::other)?
    }

    /// Twelve hex digits, for a tag.
    pub fn short_digest(&self) -> &str {
        &self.digest[..12]
    }

    /// For the engine.
    pub(crate) fn options(&self, tags: Vec<String>) -> BuildOptions {
        BuildOptions {
            tags,
            dockerfile: dockerfile(&self.build).to_owned(),
            args: self.build.args.clone(),
            labels: self.build.labels.clone(),
            target: self.build.target.clone().unwrap_or_default(),
            no_cache: false,
            pull: false,
        }
    }

    /// The archive, made while it is sent.
    pub(crate) fn archive(&self) -> RequestBody {
        let (sender, mut receiver) = mpsc::channel(8);
        let (folder, files) = (self.folder.clone(), self.files.clone());
        tokio::task::spawn_blocking(move || {
            let mut writer = io::BufWriter::with_capacity(64 * 1024, Pieces(sender.clone()));
            if let Err(error) = pack(&folder, &files, &mut writer) {
                // Breaks the request off, so that the engine never takes half a context for a whole one.
                let _ = sender.blocking_send(Err(error));
            }
        });
        RequestBody::TarStream(Box::pin(futures_util::stream::poll_fn(move |cx| {
            receiver.poll_recv(cx)
        })))
    }
}

/// Hands on what is written.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dockerfile(build: &Build) -> &str {
    build.dockerfile.as_deref().unwrap_or("Dockerfile")
}

fn read(folder: PathBuf, build: Build) -> Result<BuildContext, ContextError> {
    if build.context.contains("://") {
        return Err(ContextError::Remote(build.context));
    }
    if !folder.is_dir() {
        return Err(ContextError::NotAFolder(folder));
    }
    if !folder.join(dockerfile(&build)).is_file() {
        return Err(ContextError::NoDockerfile {
            folder,
            dockerfile: dockerfile(&build).to_owned(),
        });
    }
    let ignore = match fs_err::read_to_string(folder.join(".dockerignore")) {
        Ok(text) => Ignore::parse(&text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ignore::default(),
        Err(e) => return Err(e.into()),
    }
    .always_with(dockerfile(&build));
    let mut files = Vec::new();
    walk(&folder, "", &ignore, &mut files)?;
    let digest = digest(&folder, &files, &build)?;
    Ok(BuildContext {
        folder,
        build,
        files: Arc::new(files),
        digest,
    })
}

/// Paths relative to the folder, in order.
fn walk(folder: &Path, below: &str, ignore: &Ignore, files: &mut Vec<String>) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder.join(below))? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| {
            io::Error::other(format!(
                "{} is not UTF-8",
                folder.join(below).join(name).display()
            ))
        })?;
        names.push((name, entry.file_type()?.is_dir()));
    }
    names.sort();
    for (name, is_folder) in names {
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let ignored = ignore.ignores(&path);
        if !ignored {
            files.push(path.clone());
        }
        if is_folder && (!ignored || ignore.may_bring_back()) {
            walk(folder, &path, ignore, files)?;
        }
    }
    Ok(())
}

fn digest(folder: &Path, files: &[String], build: &Build) -> io::Result<String> {
    let mut hash = Sha256::new();
    let options = (&build.dockerfile, &build.args, &build.target, &build.labels);
    hash.update(serde_json::to_vec(&options).unwrap_or_default());
    for file in files {
        let path = folder.join(file);
        let meta = fs_err::symlink_metadata(&path)?;
        let kind = meta.file_type();
        hash.update(format!("\0{file}\0{:o}\0", meta.permissions().mode()));
        if kind.is_symlink() {
            hash.update(fs_err::read_link(&path)?.as_os_str().as_encoded_bytes());
        } else if kind.is_file() {
            hash.update(format!("{}\0", meta.size()));
            io::copy(&mut fs_err::File::open(&path)?, &mut Hashing(&mut hash))?;
        }
    }
    Ok(hex::encode(hash.finalize()))
}

struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pack(folder: &Path, files: &[String], to: &mut impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    for file in files {
        let path = folder.join(file);
        let kind = fs_err::symlink_metadata(&path)?.file_type();
        // Sockets, pipes and devices do not belong into an image.
        if kind.is_file() || kind.is_dir() || kind.is_symlink() {
            archive.append_path_with_name(&path, file)?;
        }
    }
    archive.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for (name, content) in files {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().expect("parent")).expect("parent");
            fs_err::write(path, content).expect("file");
        }
        folder
    }

    fn build() -> Build {
        Build {
            context: ".".to_owned(),
            ..Build::default()
        }
    }

    #[tokio::test]
    async fn the_digest_follows_what_is_sent() {
        let f = folder(&[
            ("Dockerfile", "FROM scratch"),
            ("a/b", "1"),
            (".dockerignore", "*.log\n"),
            ("x.log", "1"),
        ]);
        let first = BuildContext::read(f.path(), &build())
            .await
            .expect("context");
        fs_err::write(f.path().join("x.log"), "2").expect("write");
        let ignored = BuildContext::read(f.path(), &build())
            .await
            .expect("context");
        assert_eq!(first.short_digest(), ignored.short_digest());
        fs_err::write(f.path().join("a/b"), "2").expect("write");
        let changed = BuildContext::read(f.path(), &build())
            .await
            .expect("context");
        assert_ne!(first.short_digest(), changed.short_digest());
        let mut other = build();
        other.args.insert("A".to_owned(), "1".to_owned());
        let args = BuildContext::read(f.path(), &other).await.expect("context");
        assert_ne!(args.short_digest(), changed.short_digest());
    }

    #[tokio::test]
    async fn the_archive_holds_the_files() {
        use futures_util::StreamExt;
        let f = folder(&[
            ("Dockerfile", "FROM scratch"),
            ("a/b", "hello"),
            ("c.log", ""),
        ]);
        fs_err::write(f.path().join(".dockerignore"), "**/*.log").expect("write");
        let context = BuildContext::read(f.path(), &build())
            .await
            .expect("context");
        let RequestBody::TarStream(mut stream) = context.archive() else {
            panic!("not a stream");
        };
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend(piece.expect("piece"));
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = archive
            .entries()
            .expect("entries")
            .map(|e| {
                e.expect("entry")
                    .path()
                    .expect("path")
                    .display()
                    .to_string()
            })
            .collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "a", "a/b"]);
    }

    #[tokio::test]
    async fn bad_contexts_are_named() {
        let f = folder(&[("x", "")]);
        let e = BuildContext::read(f.path(), &build())
            .await
            .expect_err("no Dockerfile");
        assert!(e.to_string().contains("Dockerfile"), "{e}");
        let mut gone = build();
        gone.context = "gone".to_owned();
        let e = BuildContext::read(f.path(), &gone)
            .await
            .expect_err("no folder");
        assert!(e.to_string().contains("gone"), "{e}");
    }
}
