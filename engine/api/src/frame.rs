//! The framing of container output without a terminal: `[source, 0, 0, 0, length u32 BE]` and the bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Which stream of the container bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// Standard input.
    Stdin = 0,
    /// Standard output, and everything of a terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// The engine's own error while streaming.
    System = 3,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The stream.
    pub source: Source,
    /// The bytes; not cut at line ends.
    pub data: Bytes,
}

/// The eight bytes before a frame's data.
pub fn frame_header(source: Source, length: u32) -> [u8; 8] {
    let l = length.to_be_bytes();
    [source as u8, 0, 0, 0, l[0], l[1], l[2], l[3]]
}

/// Takes frames out of a stream of bytes.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    raw: bool,
}

impl FrameDecoder {
    /// For multiplexed streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a terminal: everything is standard output.
    pub fn raw() -> Self {
        Self {
            raw: true,
            ..Self::default()
        }
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame; `Err` with the bad source byte when this is no such stream.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, u8> {
        if self.raw {
            let data = self.buffer.split().freeze();
            return Ok((!data.is_empty()).then_some(Frame {
                source: Source::Stdout,
                data,
            }));
        }
        if self.buffer.len() < 8 {
            return Ok(None);
        }
        let source = match self.buffer[0] {
            0 => Source::Stdin,
            1 => Source::Stdout,
            2 => Source::Stderr,
            3 => Source::System,
            other => return Err(other),
        };
        let length = u32::from_be_bytes([
            self.buffer[4],
            self.buffer[5],
            self.buffer[6],
            self.buffer[7],
        ]) as usize;
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        Ok(Some(Frame {
            source,
            data: self.buffer.split_to(length).freeze(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = Vec::new();
        for (source, text) in [
            (Source::Stdout, "hello"),
            (Source::Stderr, ""),
            (Source::Stdout, "world\n"),
        ] {
            wire.extend_from_slice(&frame_header(source, text.len() as u32));
            wire.extend_from_slice(text.as_bytes());
        }
        for step in 1..wire.len() {
            let mut decoder = FrameDecoder::new();
            let mut out = String::new();
            for piece in wire.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    out.push_str(std::str::from_utf8(&frame.data).unwrap());
                }
            }
            assert_eq!(out, "helloworld\n");
        }
    }
}
