//! A layer from its compressed bytes to its folder, in two threads: one hashes and decompresses what arrives, the other
//! hashes and unpacks what comes out. Buffers go round between them, so that memory is bounded and nothing waits long.

use std::{
    io::{self, BufRead, Read},
    path::Path,
    sync::{Arc, mpsc as blocking},
};

use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Error, Result, decompress::Plain, original::Recorder, unpack::unpack};

/// Content of one layer; what is larger is a decompression bomb.
pub(super) const MAX_LAYER: u64 = 64 << 30;
/// Content, and what an archive has around it.
const MAX_ARCHIVE: u64 = MAX_LAYER + (8 << 30);
/// Plain bytes handed over at once, and how often.
const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 3;
/// Compressed bytes that wait for the decompressor.
const WAITING: usize = 2 << 20;

/// The network's end of a layer.
pub(super) struct Inlet {
    chunks: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// The decompressor went away; it knows why.
pub(super) struct NoReader;

/// A way for bytes that holds a bounded number of them.
pub(super) fn channel() -> (Inlet, Chunks) {
    let (chunks, receiver) = mpsc::unbounded_channel();
    let inlet = Inlet {
        chunks,
        room: Arc::new(Semaphore::new(WAITING)),
    };
    (
        inlet,
        Chunks {
            chunks: receiver,
            current: None,
            hash: Sha256::new(),
        },
    )
}

impl Inlet {
    /// Waits until there is room.
    pub(super) async fn send(&self, chunk: Bytes) -> std::result::Result<(), NoReader> {
        let size = chunk.len().clamp(1, WAITING) as u32;
        let room = Arc::clone(&self.room);
        let permit = tokio::select! {
            permit = room.acquire_many_owned(size) => permit.map_err(|_| NoReader)?,
            () = self.chunks.closed() => return Err(NoReader),
        };
        self.chunks.send((chunk, permit)).map_err(|_| NoReader)
    }
}

/// The decompressor's end, which hashes what is taken from it.
pub(super) struct Chunks {
    chunks: mpsc::UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>,
    current: Option<(Bytes, OwnedSemaphorePermit)>,
    hash: Sha256,
}

impl Chunks {
    /// The digest of all bytes, those that nobody asked for too.
    fn into_digest(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(digest(self.hash))
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self
            .current
            .as_ref()
            .is_none_or(|(chunk, _)| chunk.is_empty())
        {
            self.current = self.chunks.blocking_recv();
            match &self.current {
                Some((chunk, _)) => self.hash.update(chunk),
                None => return Ok(&[]),
            }
        }
        Ok(self.current.as_ref().map_or(&[], |(chunk, _)| chunk))
    }

    fn consume(&mut self, n: usize) {
        if let Some((chunk, _)) = &mut self.current {
            chunk.advance(n.min(chunk.len()));
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.fill_buf()?;
        let n = part.len().min(buffer.len());
        buffer[..n].copy_from_slice(&part[..n]);
        self.consume(n);
        Ok(n)
    }
}

/// Unpacks what comes through the channel into `root`; the size if both digests are right. Blocking.
pub(super) fn unpack_checked(
    mut chunks: Chunks,
    expected: &str,
    expected_plain: &str,
    root: &Path,
    record: &Path,
) -> Result<u64> {
    let (full, blocks) = blocking::sync_channel(BLOCKS);
    let (used, empty) = blocking::channel();
    std::thread::scope(|scope| {
        let decompressing = std::thread::Builder::new()
            .name("decompress".into())
            .spawn_scoped(scope, move || -> Result<Option<String>> {
                let whole = decompress(&mut chunks, &full, &empty)?;
                // The unpacker hears of the end before the rest is read.
                drop(full);
                match whole {
                    Whole::Yes => Ok(Some(chunks.into_digest()?)),
                    Whole::NobodyReads => Ok(None),
                }
            })?;
        let unpacked = Recorder::create(record)
            .map_err(Error::from)
            .and_then(|recorder| unpack_blocks(Blocks::new(blocks, used, recorder), root));
        let digest = decompressing
            .join()
            .map_err(|_| Error::Unsupported("the decompressing thread stopped".into()))?;
        // Where decompressing failed, the archive ends early, and that is not what is wrong.
        let digest = digest?;
        let (size, plain) = unpacked?;
        same("layer", expected, digest.unwrap_or_default())?;
        same("unpacked layer", expected_plain, plain)?;
        Ok(size)
    })
}

/// To the last byte, since the digest is of every one.
fn unpack_blocks(mut blocks: Blocks, root: &Path) -> Result<(u64, String)> {
    let unpacked = unpack(&mut blocks, root, MAX_LAYER)?;
    io::copy(&mut blocks, &mut io::sink())?;
    blocks.recorder.finish()?;
    Ok((unpacked.size, digest(blocks.hash)))
}

enum Whole {
    Yes,
    /// The unpacker went away; it knows why.
    NobodyReads,
}

fn decompress(
    chunks: &mut Chunks,
    full: &blocking::SyncSender<Vec<u8>>,
    empty: &blocking::Receiver<Vec<u8>>,
) -> Result<Whole> {
    let broken = |error: io::Error| Error::Archive(format!("broken archive: {error}"));
    let mut plain = Plain::of(chunks)?;
    let mut sum = 0_u64;
    loop {
        let mut block = empty.try_recv().unwrap_or_default();
        block.resize(BLOCK, 0);
        let mut filled = 0;
        while filled < BLOCK {
            match plain.read(&mut block[filled..]).map_err(broken)? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            return Ok(Whole::Yes);
        }
        sum += filled as u64;
        if sum > MAX_ARCHIVE {
            return Err(Error::Archive(format!("more than {MAX_ARCHIVE} bytes")));
        }
        block.truncate(filled);
        if full.send(block).is_err() {
            return Ok(Whole::NobodyReads);
        }
    }
}

/// The unpacker's end, which hashes and records what is taken from it.
struct Blocks {
    blocks: blocking::Receiver<Vec<u8>>,
    used: blocking::Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hash: Sha256,
    recorder: Recorder,
}

impl Blocks {
    fn new(
        blocks: blocking::Receiver<Vec<u8>>,
        used: blocking::Sender<Vec<u8>>,
        recorder: Recorder,
    ) -> Self {
        Self {
            blocks,
            used,
            current: Vec::new(),
            at: 0,
            hash: Sha256::new(),
            recorder,
        }
    }
}

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() {
            let used = std::mem::take(&mut self.current);
            self.at = 0;
            if used.capacity() > 0 {
                // Nobody to use it again: the other end is through.
                let _ = self.used.send(used);
            }
            if let Ok(block) = self.blocks.recv() {
                self.hash.update(&block);
                self.recorder.feed(&block)?;
                self.current = block;
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.current.len());
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.fill_buf()?;
        let n = part.len().min(buffer.len());
        buffer[..n].copy_from_slice(&part[..n]);
        self.consume(n);
        Ok(n)
    }
}

/// A reader that hashes what passes through it.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    pub(super) fn digest(self) -> String {
        digest(self.hash)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

fn same(what: &str, expected: &str, got: String) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Digest {
        what: what.into(),
        expected: expected.to_owned(),
        got,
    })
}

fn digest(hash: Sha256) -> String {
    format!("sha256:{}", hex::encode(hash.finalize()))
}
