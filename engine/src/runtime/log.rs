//! Keeps output as `{"log","stream","time"}` lines, cut at line ends or 16 kB, with rotation.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::task::LogPlan;
use crate::container::clock;

/// Longer lines are kept in pieces.
const LONGEST: usize = 16 * 1024;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and all of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The log of one container.
#[derive(Debug)]
pub struct Log {
    plan: LogPlan,
    file: Option<File>,
    size: u64,
    partial: [Vec<u8>; 2],
}

impl Log {
    /// Goes on where the file ends.
    pub fn open(plan: LogPlan) -> std::io::Result<Self> {
        let file = append(&plan)?;
        let size = file.metadata()?.len();
        Ok(Self {
            plan,
            file: Some(file),
            size,
            partial: Default::default(),
        })
    }

    /// Takes output. A disk that is full loses lines, the container goes on.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = LONGEST - self.partial[stream as usize].len();
            let end = bytes.iter().take(room).position(|b| *b == b'\n');
            let (piece, rest) = bytes.split_at(end.map_or(bytes.len().min(room), |at| at + 1));
            bytes = rest;
            let full = end.is_some() || piece.len() == room;
            if full && self.partial[stream as usize].is_empty() {
                self.line(stream, piece);
                continue;
            }
            self.partial[stream as usize].extend_from_slice(piece);
            if full {
                self.flush(stream);
            }
        }
    }

    /// The stream has ended: what has no line end is a line too.
    pub fn flush(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.partial[stream as usize]);
        if !line.is_empty() {
            self.line(stream, &line);
        }
    }

    fn line(&mut self, stream: Stream, line: &[u8]) {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let mut text = Vec::with_capacity(line.len() + 80);
        text.extend_from_slice(b"{\"log\":");
        if serde_json::to_writer(&mut text, &String::from_utf8_lossy(line)).is_err() {
            return;
        }
        text.extend_from_slice(b",\"stream\":\"");
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"\",\"time\":\"");
        text.extend_from_slice(clock::now().as_bytes());
        text.extend_from_slice(b"\"}\n");
        if self.plan.max_bytes > 0 && self.size >= self.plan.max_bytes && self.rotate().is_err() {
            self.file = None;
        }
        if self.file.is_none() {
            self.file = append(&self.plan).ok();
        }
        if let Some(file) = &mut self.file
            && file.write_all(&text).is_ok()
        {
            self.size += text.len() as u64;
        }
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let name = |n: u32| -> PathBuf {
            let mut path = self.plan.path.clone().into_os_string();
            if n > 0 {
                path.push(format!(".{n}"));
            }
            path.into()
        };
        if self.plan.max_files <= 1 {
            if let Some(file) = &self.file {
                file.set_len(0)?;
            }
        } else {
            for n in (0..self.plan.max_files - 1).rev() {
                match std::fs::rename(name(n), name(n + 1)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            self.file = Some(append(&self.plan)?);
        }
        self.size = 0;
        Ok(())
    }
}

fn append(plan: &LogPlan) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(&plan.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_pieces_and_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan {
            path: dir.path().join("x.log"),
            max_bytes: 300,
            max_files: 3,
        };
        let mut log = Log::open(plan.clone()).unwrap();
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"oops\n");
        log.write(Stream::Stdout, b"o\n\xff\"");
        log.flush(Stream::Stdout);
        let lines: Vec<serde_json::Value> = std::fs::read_to_string(&plan.path)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let texts: Vec<&str> = lines.iter().map(|l| l["log"].as_str().unwrap()).collect();
        assert_eq!(texts, ["one\n", "oops\n", "two\n", "\u{fffd}\""]);
        assert_eq!(lines[1]["stream"], "stderr");
        assert!(clock::parse(lines[0]["time"].as_str().unwrap()).is_some());
        for n in 0..40 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
        }
        let there = |n: &str| dir.path().join(format!("x.log{n}")).exists();
        assert!(there("") && there(".1") && there(".2") && !there(".3"));
        log.write(Stream::Stdout, &[b'x'; LONGEST + 5]);
        log.flush(Stream::Stdout);
        let last = std::fs::read_to_string(&plan.path).unwrap();
        assert!(last.lines().count() <= 3 && last.contains("\"xxxxx\""));
    }
}
