//! Keeps output as `{"log","stream","attrs","time"}` lines, cut at line ends or 16 kB, with rotation; and hands it to the host's journal.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::task::LogPlan;
use crate::container::clock;

/// Longer lines are kept in pieces.
const LONGEST: usize = 16 * 1024;
/// Where journald takes entries, by its native protocol.
pub const JOURNAL: &str = "/run/systemd/journal/socket";

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
    /// `,"attrs":{…}` of each line.
    attributes: String,
    journal: Option<UnixDatagram>,
}

impl Log {
    /// Goes on where the file ends.
    pub fn open(plan: LogPlan) -> std::io::Result<Self> {
        let file = append(&plan)?;
        let size = file.metadata()?.len();
        let attributes = if plan.attributes.is_empty() {
            String::new()
        } else {
            format!(",\"attrs\":{}", serde_json::to_string(&plan.attributes)?)
        };
        let journal = plan.journal.as_ref().map(|_| journal()).transpose()?;
        Ok(Self {
            plan,
            file: Some(file),
            size,
            partial: Default::default(),
            attributes,
            journal,
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
        if let (Some(journal), Some(fields)) = (&self.journal, &self.plan.journal) {
            // It takes what it has room for, as of everybody else.
            journal.send(&entry(stream, line, fields)).ok();
        }
        let mut text = Vec::with_capacity(line.len() + 80 + self.attributes.len());
        text.extend_from_slice(b"{\"log\":");
        if serde_json::to_writer(&mut text, &String::from_utf8_lossy(line)).is_err() {
            return;
        }
        text.extend_from_slice(b",\"stream\":\"");
        text.extend_from_slice(name.as_bytes());
        text.push(b'"');
        text.extend_from_slice(self.attributes.as_bytes());
        text.extend_from_slice(b",\"time\":\"");
        text.extend_from_slice(clock::now().as_bytes());
        text.extend_from_slice(b"\"}\n");
        if self.plan.max_bytes > 0 && self.size >= self.plan.max_bytes && self.rotate().is_err() {
            self.file = None;
        }
        if self.file.is_none() {
            self.file = append(&self.plan).ok();
        }
        let Some(file) = &mut self.file else { return };
        if file.write_all(&text).is_ok() {
            self.size += text.len() as u64;
        } else {
            // Half a line would spoil the next one too.
            file.set_len(self.size).ok();
        }
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        if self.plan.max_files <= 1 {
            if let Some(file) = &self.file {
                file.set_len(0)?;
            }
        } else {
            let packed = if self.plan.compress { ".gz" } else { "" };
            let name = |n: u32, packed: &str| -> PathBuf {
                let mut path = self.plan.path.clone().into_os_string();
                if n > 0 {
                    path.push(format!(".{n}{packed}"));
                }
                path.into()
            };
            for n in (1..self.plan.max_files - 1).rev() {
                rename(&name(n, packed), &name(n + 1, packed))?;
            }
            rename(&name(0, ""), &name(1, ""))?;
            self.file = Some(append(&self.plan)?);
            if self.plan.compress {
                // One that cannot be packed is kept as it is.
                pack(&name(1, ""), &name(1, packed)).ok();
            }
        }
        self.size = 0;
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whole or not at all, in little memory.
fn pack(from: &Path, to: &Path) -> std::io::Result<()> {
    let part = to.with_extension("part");
    let mut open = OpenOptions::new();
    let file = open
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o640)
        .open(&part)?;
    let packed = (|| {
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let mut source = File::open(from)?;
        let mut buffer = [0; 16 * 1024];
        loop {
            match source.read(&mut buffer)? {
                0 => break,
                count => encoder.write_all(&buffer[..count])?,
            }
        }
        drop(encoder.finish()?);
        std::fs::rename(&part, to)
    })();
    if packed.is_err() {
        std::fs::remove_file(&part).ok();
        return packed;
    }
    std::fs::remove_file(from)
}

fn journal() -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(JOURNAL)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One entry as the native protocol wants it: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
fn entry<'a>(
    stream: Stream,
    line: &[u8],
    fields: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Vec<u8> {
    let (message, is_whole) = match line.strip_suffix(b"\n") {
        Some(message) => (message, true),
        None => (line, line.len() < LONGEST),
    };
    let priority: &[u8] = match stream {
        Stream::Stdout => b"6",
        Stream::Stderr => b"3",
    };
    let mut all: Vec<(&[u8], &[u8])> = vec![(b"MESSAGE", message), (b"PRIORITY", priority)];
    if !is_whole {
        all.push((b"CONTAINER_PARTIAL_MESSAGE", b"true"));
    }
    let fields = fields.into_iter();
    all.extend(fields.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let mut text = Vec::new();
    for (name, value) in all {
        text.extend_from_slice(name);
        if value.contains(&b'\n') {
            text.push(b'\n');
            text.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            text.push(b'=');
        }
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
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

    fn plan(path: PathBuf) -> LogPlan {
        LogPlan {
            path,
            max_bytes: 300,
            max_files: 3,
            compress: false,
            attributes: Default::default(),
            journal: None,
        }
    }

    #[test]
    fn lines_pieces_and_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path().join("x.log"));
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

    #[test]
    fn attributes_and_packed_files() {
        let dir = tempfile::tempdir().unwrap();
        let plan = LogPlan {
            compress: true,
            attributes: [("tag".to_owned(), "a\"b".to_owned())].into(),
            ..plan(dir.path().join("x.log"))
        };
        let mut log = Log::open(plan.clone()).unwrap();
        for n in 0..40 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
        }
        let line = std::fs::read_to_string(&plan.path).unwrap();
        let line: serde_json::Value =
            serde_json::from_str(line.lines().next().unwrap_or("{}")).unwrap();
        assert_eq!(line["attrs"]["tag"], "a\"b");
        let there = |n: &str| dir.path().join(format!("x.log{n}")).exists();
        assert!(there(".1.gz") && there(".2.gz") && !there(".1") && !there(".3.gz"));
        let mut text = String::new();
        let packed = File::open(dir.path().join("x.log.1.gz")).unwrap();
        flate2::read::GzDecoder::new(packed)
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.contains("line 3") && text.ends_with("}\n"), "{text}");
    }

    #[test]
    fn journal_entries() {
        let fields = std::collections::BTreeMap::from([
            ("CONTAINER_NAME".to_owned(), "web".to_owned()),
            ("NOTE".to_owned(), "a\nb".to_owned()),
        ]);
        let text = entry(Stream::Stderr, b"hi\n", &fields);
        let wanted = b"MESSAGE=hi\nPRIORITY=3\nCONTAINER_NAME=web\nNOTE\n\x03\0\0\0\0\0\0\0a\nb\n";
        assert_eq!(text, wanted);
        let piece = entry(Stream::Stdout, &[b'x'; LONGEST], &fields);
        assert!(String::from_utf8_lossy(&piece).contains("CONTAINER_PARTIAL_MESSAGE=true"));
    }
}
