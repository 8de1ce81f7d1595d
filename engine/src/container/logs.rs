//! Kept output: one JSON object a line (`log`, `stream`, `time`), in a file and its rotated forerunners.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::Deserialize;
use time::OffsetDateTime;
use windlass_engine_api::Source;

use super::clock;

/// The file.
pub fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}-json.log"))
}

/// How much of the past.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tail {
    /// Everything.
    #[default]
    All,
    /// The last lines.
    Lines(u64),
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// How much.
    pub tail: Tail,
    /// Not older.
    pub since: Option<OffsetDateTime>,
    /// Not younger.
    pub until: Option<OffsetDateTime>,
}

/// A line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where it was written.
    pub source: Source,
    /// With its time, if that was wanted.
    pub text: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
}

/// Reads the files from the wanted place on, also while they grow.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    query: LogQuery,
    /// Rotated files still to be read, the next one last.
    older: Vec<PathBuf>,
    file: Option<BufReader<std::fs::File>>,
    /// A line whose end is not written yet.
    partial: Vec<u8>,
    past_until: bool,
}

impl LogReader {
    /// How often a growing file is looked at.
    pub const POLL: Duration = Duration::from_millis(50);

    /// Finds the place to begin.
    pub fn open(path: &Path, query: LogQuery) -> std::io::Result<Self> {
        // Newest first: path, path.1, path.2, …
        let files: Vec<PathBuf> = std::iter::once(path.to_owned())
            .chain((1..).map(|n| rotated(path, n)).take_while(|p| p.exists()))
            .collect();
        let (mut begin, mut offset) = (files.len() - 1, 0);
        if let Tail::Lines(mut missing) = query.tail {
            for (index, file) in files.iter().enumerate() {
                let (found, at) = tail_offset(file, missing)?;
                (begin, offset) = (index, at);
                missing -= found;
                if missing == 0 {
                    break;
                }
            }
        }
        let older = if begin == 0 {
            Vec::new()
        } else {
            files[1..begin].to_vec()
        };
        let mut reader = Self {
            path: path.to_owned(),
            query,
            older,
            file: None,
            partial: Vec::new(),
            past_until: false,
        };
        if let Some(mut file) = open_if_there(&files[begin])? {
            file.seek(SeekFrom::Start(offset))?;
            reader.file = Some(BufReader::new(file));
        }
        if begin > 0 {
            // Read after the rotated ones.
            reader.older.insert(0, path.to_owned());
        }
        Ok(reader)
    }

    /// Nothing later is wanted.
    pub fn is_past_until(&self) -> bool {
        self.past_until
    }

    /// The lines that are there; empty: none now.
    pub fn read(&mut self, limit: usize) -> std::io::Result<Vec<Shown>> {
        let mut shown = Vec::new();
        let mut bytes = 0;
        while bytes < limit && !self.past_until {
            let Some(line) = self.next_line()? else { break };
            if let Some(line) = self.show(&line) {
                bytes += line.text.len();
                shown.push(line);
            }
        }
        Ok(shown)
    }

    fn next_line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if self.file.is_none() {
                let next = self.older.pop().unwrap_or_else(|| self.path.clone());
                self.file = open_if_there(&next)?.map(BufReader::new);
            }
            let Some(file) = &mut self.file else {
                return Ok(None);
            };
            if file.read_until(b'\n', &mut self.partial)? > 0 && self.partial.ends_with(b"\n") {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            if self.older.is_empty() && !self.was_replaced()? {
                return Ok(None);
            }
            self.partial.clear();
            self.file = None;
        }
    }

    /// Whether the file was rotated away or cut.
    fn was_replaced(&mut self) -> std::io::Result<bool> {
        let Some(file) = &mut self.file else {
            return Ok(false);
        };
        let position = file.stream_position()?;
        let open = file.get_ref().metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok(
                (there.ino(), there.dev()) != (open.ino(), open.dev()) || there.len() < position
            ),
            Err(_) => Ok(false),
        }
    }

    fn show(&mut self, line: &[u8]) -> Option<Shown> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let source = if line.stream == "stderr" {
            Source::Stderr
        } else {
            Source::Stdout
        };
        if (source == Source::Stderr && !self.query.stderr)
            || (source == Source::Stdout && !self.query.stdout)
        {
            return None;
        }
        let time = clock::parse(&line.time);
        if time
            .zip(self.query.since)
            .is_some_and(|(at, since)| at < since)
        {
            return None;
        }
        if time
            .zip(self.query.until)
            .is_some_and(|(at, until)| at > until)
        {
            self.past_until = true;
            return None;
        }
        let mut text = Vec::with_capacity(line.log.len() + 32);
        if self.query.timestamps {
            text.extend_from_slice(time.map_or(line.time, clock::format).as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line.log.as_bytes());
        Some(Shown { source, text })
    }
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open_if_there(path: &Path) -> std::io::Result<Option<std::fs::File>> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file.into_parts().0)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where the last `wanted` lines begin, and how many there are; read from the end in blocks.
fn tail_offset(path: &Path, wanted: u64) -> std::io::Result<(u64, u64)> {
    const BLOCK: u64 = 64 * 1024;
    let Some(mut file) = open_if_there(path)? else {
        return Ok((0, 0));
    };
    let end = file.metadata()?.len();
    if wanted == 0 {
        return Ok((0, end));
    }
    let (mut lines, mut at) = (0, end);
    let mut block = Vec::new();
    while at > 0 {
        let from = at.saturating_sub(BLOCK);
        block.resize((at - from) as usize, 0);
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let position = from + index as u64;
            // The line end of the last line begins nothing.
            if position + 1 < end {
                lines += 1;
                if lines == wanted {
                    return Ok((lines, position + 1));
                }
            }
        }
        at = from;
    }
    Ok((if end > 0 { lines + 1 } else { 0 }, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, stream: &str) -> String {
        format!(
            "{{\"log\":\"line {n}\\n\",\"stream\":\"{stream}\",\"time\":\"2024-01-01T00:00:{n:02}.5Z\"}}\n"
        )
    }

    fn all(reader: &mut LogReader) -> String {
        reader
            .read(usize::MAX)
            .unwrap()
            .into_iter()
            .map(|s| String::from_utf8(s.text).unwrap())
            .collect()
    }

    #[test]
    fn tail_rotation_times_and_growth() {
        use std::io::Write as _;
        let dir = std::env::temp_dir().join(format!("windlass-logs-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x-json.log");
        fs::write(rotated(&path, 2), line(0, "stdout") + &line(1, "stdout")).unwrap();
        fs::write(rotated(&path, 1), line(2, "stdout") + &line(3, "stderr")).unwrap();
        fs::write(&path, line(4, "stdout")).unwrap();
        let base = LogQuery {
            stdout: true,
            stderr: true,
            ..LogQuery::default()
        };
        let read = |query: LogQuery| all(&mut LogReader::open(&path, query).unwrap());
        assert_eq!(
            read(base.clone()),
            "line 0\nline 1\nline 2\nline 3\nline 4\n"
        );
        for (n, wanted) in [
            (0, ""),
            (1, "line 4\n"),
            (2, "line 3\nline 4\n"),
            (4, "line 1\nline 2\nline 3\nline 4\n"),
            (9, "line 0\nline 1\nline 2\nline 3\nline 4\n"),
        ] {
            assert_eq!(
                read(LogQuery {
                    tail: Tail::Lines(n),
                    ..base.clone()
                }),
                wanted,
                "{n}"
            );
        }
        assert_eq!(
            read(LogQuery {
                stdout: false,
                ..base.clone()
            }),
            "line 3\n"
        );
        assert_eq!(
            read(LogQuery {
                since: clock::parse("2024-01-01T00:00:03Z"),
                timestamps: true,
                until: clock::parse("2024-01-01T00:00:04Z"),
                ..base.clone()
            }),
            "2024-01-01T00:00:03.500000000Z line 3\n"
        );

        let mut reader = LogReader::open(
            &path,
            LogQuery {
                tail: Tail::Lines(0),
                ..base
            },
        )
        .unwrap();
        let text = line(5, "stdout");
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&text.as_bytes()[..10]).unwrap();
        assert_eq!(all(&mut reader), "");
        file.write_all(&text.as_bytes()[10..]).unwrap();
        assert_eq!(all(&mut reader), "line 5\n");
        fs::rename(&path, dir.join("moved")).unwrap();
        fs::write(&path, line(6, "stdout")).unwrap();
        assert_eq!(all(&mut reader), "line 6\n");
        fs::remove_dir_all(&dir).unwrap();
    }
}
