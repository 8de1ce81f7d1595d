//! What a layer or context is compressed by: gzip, zstd, bzip2 and xz, several streams in a row, or nothing.

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use super::Result;

const BUFFER: usize = 1 << 16;
/// What an archive by `xz -9` needs, and no more: its header says how much memory it takes.
const XZ_MEMORY_KB: u32 = 128 * 1024;

/// Plain bytes of a stream, told by its first ones.
pub(super) enum Plain<R: BufRead> {
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<Zstd<R>>),
    Xz(Box<XzReader<R>>),
    Bzip2(MultiBzDecoder<R>),
    AsItIs(R),
}

impl<R: BufRead> Plain<R> {
    /// Looks at the first bytes; a stream of fewer than four is taken as it is.
    pub(super) fn of(mut input: R) -> Result<Plain<io::Chain<io::Cursor<Vec<u8>>, R>>> {
        let mut magic = [0_u8; 4];
        let mut got = 0;
        while got < magic.len() {
            match input.read(&mut magic[got..])? {
                0 => break,
                n => got += n,
            }
        }
        let whole = io::Cursor::new(magic[..got].to_vec()).chain(input);
        Ok(match &magic[..got] {
            [0x1f, 0x8b, ..] => Plain::Gzip(Box::new(MultiGzDecoder::new(whole))),
            [0x28, 0xb5, 0x2f, 0xfd] => Plain::Zstd(Box::new(Zstd::new(whole))),
            // A frame to skip comes first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Plain::Zstd(Box::new(Zstd::new(whole))),
            [0xfd, b'7', b'z', b'X'] => {
                Plain::Xz(Box::new(XzReader::new_mem_limit(whole, true, XZ_MEMORY_KB)))
            }
            [b'B', b'Z', b'h', _] => Plain::Bzip2(MultiBzDecoder::new(whole)),
            _ => Plain::AsItIs(whole),
        })
    }
}

impl<R: BufRead> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Plain::Gzip(decoder) => decoder.read(buffer),
            Plain::Zstd(decoder) => decoder.read(buffer),
            Plain::Xz(decoder) => decoder.read(buffer),
            Plain::Bzip2(decoder) => decoder.read(buffer),
            Plain::AsItIs(input) => input.read(buffer),
        }
    }
}

/// Frames one after the other; those to skip are where some tools keep an index.
pub(super) struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            decoder: FrameDecoder::new(),
            in_frame: false,
        }
    }

    /// Goes to the next frame with content; false at the end.
    fn enter_frame(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.input) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let mut skipped = self.input.by_ref().take(length);
                    if io::copy(&mut skipped, &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(false)
    }
}

fn broken(error: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.in_frame || self.enter_frame()? {
            while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
                let missing = buffer.len() - self.decoder.can_collect();
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBytes(missing))
                    .map_err(|error| broken(&error))?;
            }
            let n = self.decoder.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            self.in_frame = false;
        }
        Ok(0)
    }
}

/// What is in an archive, compressed by gzip, zstd or not at all.
pub(crate) fn peeked<'a>(archive: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(Box::new(Plain::of(BufReader::with_capacity(
        BUFFER, archive,
    ))?))
}
