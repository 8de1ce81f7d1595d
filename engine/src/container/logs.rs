//! Kept output: one JSON object a line (`log`, `stream`, `attrs`, `time`), in a file and its rotated forerunners, packed or not.

use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::Deserialize;
use time::OffsetDateTime;
use windlass_engine_api::Source;
use windlass_engine_api::types::StringMap;

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
    /// And with the labels, variables and the tag that are kept with it.
    pub details: bool,
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
    attrs: StringMap,
    #[serde(default)]
    time: String,
}

/// A file that is read.
struct Open {
    reader: Box<dyn BufRead + Send>,
    /// The newest one, which grows, to ask about it.
    live: Option<std::fs::File>,
    position: u64,
}

/// Reads the files from the wanted place on, also while they grow.
pub struct LogReader {
    path: PathBuf,
    query: LogQuery,
    /// Rotated files still to be read, the next one last.
    older: Vec<PathBuf>,
    file: Option<Open>,
    /// A line whose end is not written yet.
    partial: Vec<u8>,
    past_until: bool,
}

impl LogReader {
    /// How often a growing file is looked at.
    pub const POLL: Duration = Duration::from_millis(50);

    /// Finds the place to begin.
    pub fn open(path: &Path, query: LogQuery) -> std::io::Result<Self> {
        // Newest first: path, path.1, path.2.gz, …
        let files: Vec<PathBuf> = std::iter::once(path.to_owned())
            .chain((1..).map_while(|n| rotated(path, n)))
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
        let mut older = files;
        older.truncate(begin + 1);
        let first = older.pop().unwrap_or_else(|| path.to_owned());
        let file = open_at(&first, offset, begin == 0)?;
        Ok(Self {
            path: path.to_owned(),
            query,
            older,
            file,
            partial: Vec::new(),
            past_until: false,
        })
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
                self.file = open_at(&next, 0, next == self.path)?;
                if self.file.is_none() && !self.older.is_empty() {
                    continue;
                }
            }
            if self.file.is_none() {
                return Ok(None);
            }
            if let Some(line) = self.whole_line()? {
                return Ok(Some(line));
            }
            if self.file.as_ref().is_some_and(|f| f.live.is_some()) {
                let Some(between) = self.was_replaced()? else {
                    return Ok(None);
                };
                // Written between the last look and the rotation.
                if let Some(line) = self.whole_line()? {
                    return Ok(Some(line));
                }
                self.older = between;
            }
            self.partial.clear();
            self.file = None;
        }
    }

    fn whole_line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let count = file.reader.read_until(b'\n', &mut self.partial)?;
        file.position += count as u64;
        let whole = count > 0 && self.partial.ends_with(b"\n");
        Ok(whole.then(|| std::mem::take(&mut self.partial)))
    }

    /// Whether the file was rotated away or cut; the answer is what lies between it and the newest one, the next one last.
    fn was_replaced(&self) -> std::io::Result<Option<Vec<PathBuf>>> {
        let Some(Open {
            live: Some(live),
            position,
            ..
        }) = &self.file
        else {
            return Ok(None);
        };
        let open = live.metadata()?;
        let is_ours =
            |there: &std::fs::Metadata| (there.ino(), there.dev()) == (open.ino(), open.dev());
        match std::fs::metadata(&self.path) {
            Ok(there) if is_ours(&there) => {
                Ok((there.len() < *position).then(|| vec![self.path.clone()]))
            }
            Ok(_) => {
                let mut between = vec![self.path.clone()];
                for path in (1..).map_while(|n| rotated(&self.path, n)) {
                    if std::fs::metadata(&path).is_ok_and(|m| is_ours(&m)) {
                        return Ok(Some(between));
                    }
                    between.push(path);
                }
                // It is packed or gone by now, and was the last but one as far as anybody can tell.
                Ok(Some(vec![self.path.clone()]))
            }
            Err(_) => Ok(None),
        }
    }

    fn show(&mut self, line: &[u8]) -> Option<Shown> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let source = if line.stream == "stderr" {
            Source::Stderr
        } else {
            Source::Stdout
        };
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
        if (source == Source::Stderr && !self.query.stderr)
            || (source == Source::Stdout && !self.query.stdout)
        {
            return None;
        }
        let mut text = Vec::with_capacity(line.log.len() + 32);
        if self.query.timestamps {
            text.extend_from_slice(time.map_or(line.time, clock::format).as_bytes());
            text.push(b' ');
        }
        if self.query.details {
            text.extend_from_slice(details(&line.attrs).as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line.log.as_bytes());
        Some(Shown { source, text })
    }
}

/// `name=value,…`, each written as in a URL.
fn details(attributes: &StringMap) -> String {
    let quoted = |text: &str| {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte));
                }
                b' ' => out.push('+'),
                byte => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    };
    let pairs = attributes
        .iter()
        .map(|(name, value)| format!("{}={}", quoted(name), quoted(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "gz")
}

/// The rotated file of this number, as it is there.
fn rotated(path: &Path, number: u32) -> Option<PathBuf> {
    ["", ".gz"]
        .map(|packed| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}{packed}"));
            PathBuf::from(name)
        })
        .into_iter()
        .find(|path| path.exists())
}

fn open_if_there(path: &Path) -> std::io::Result<Option<std::fs::File>> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file.into_parts().0)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// From `offset` on, counted in what is not packed.
fn open_at(path: &Path, offset: u64, is_live: bool) -> std::io::Result<Option<Open>> {
    let Some(mut file) = open_if_there(path)? else {
        return Ok(None);
    };
    if is_packed(path) {
        let mut reader = BufReader::new(flate2::read::MultiGzDecoder::new(file));
        std::io::copy(&mut (&mut reader).take(offset), &mut std::io::sink())?;
        return Ok(Some(Open {
            reader: Box::new(reader),
            live: None,
            position: offset,
        }));
    }
    file.seek(SeekFrom::Start(offset))?;
    Ok(Some(Open {
        live: is_live.then(|| file.try_clone()).transpose()?,
        reader: Box::new(BufReader::new(file)),
        position: offset,
    }))
}

/// Where the last `wanted` lines begin, and how many there are; of a plain file read from the end in blocks.
fn tail_offset(path: &Path, wanted: u64) -> std::io::Result<(u64, u64)> {
    if is_packed(path) {
        return packed_tail_offset(path, wanted);
    }
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

fn packed_tail_offset(path: &Path, wanted: u64) -> std::io::Result<(u64, u64)> {
    let Some(file) = open_if_there(path)? else {
        return Ok((0, 0));
    };
    let mut reader = BufReader::new(flate2::read::MultiGzDecoder::new(file));
    // Where the last lines begin; the oldest of them first.
    let mut begins = std::collections::VecDeque::new();
    let (mut at, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line)?;
        if count == 0 {
            break;
        }
        begins.push_back(at);
        if begins.len() as u64 > wanted {
            begins.pop_front();
        }
        at += count as u64;
    }
    Ok((begins.len() as u64, begins.front().copied().unwrap_or(at)))
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
        let rotated = |path: &Path, n: u32| PathBuf::from(format!("{}.{n}", path.display()));
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

        let gz = fs::File::create(dir.join("x-json.log.3.gz")).unwrap();
        let mut gz = flate2::write::GzEncoder::new(gz, flate2::Compression::fast());
        gz.write_all(line(8, "stdout").as_bytes()).unwrap();
        gz.write_all(line(9, "stdout").as_bytes()).unwrap();
        gz.finish().unwrap();
        for (n, wanted) in [(5, "line 0"), (6, "line 9"), (7, "line 8"), (99, "line 8")] {
            let tail = Tail::Lines(n);
            let text = read(LogQuery {
                tail,
                ..base.clone()
            });
            assert!(
                text.starts_with(wanted) && text.ends_with("line 4\n"),
                "{n}: {text}"
            );
        }

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
        // Rotated twice between two looks.
        fs::rename(&path, rotated(&path, 2)).unwrap();
        fs::write(rotated(&path, 1), line(7, "stdout")).unwrap();
        fs::write(&path, line(8, "stdout")).unwrap();
        assert_eq!(all(&mut reader), "line 7\nline 8\n");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_kept_with_a_line() {
        let attributes = [("a b", "c&d"), ("tag", "x")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(details(&attributes.into()), "a+b=c%26d,tag=x");
        assert_eq!(details(&StringMap::new()), "");
    }
}
