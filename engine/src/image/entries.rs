//! A tar read as a stream: v7, ustar, GNU and PAX, as leniently as Go's reader, which made or accepted nearly every layer there is.
//!
//! Content is lent from the stream's own buffer and never copied here. Deliberately absent: making a tar, seeking, and
//! any opinion on where an entry's path leads.

use std::io::{self, BufRead};

use super::sparse::{self, Fragment};

/// A header, and the unit that content is padded to.
const BLOCK: usize = 512;
/// Of a long name or of PAX records, as in Go; without it one header asks for all memory.
const LARGEST_EXTENSION: u64 = 1 << 20;

/// What an entry makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    File,
    Directory,
    Symlink,
    Hardlink,
    Character,
    Block,
    Fifo,
    /// Nothing: a global header, or a kind that a file system does not have.
    Other(u8),
}

/// One entry; used again for the next one, so that its memory is.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// Permission and set-id bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Bytes that the file has once it is unpacked.
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    /// Extended attributes.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes belong, for a file with holes.
    pub(super) sparse: Option<Vec<Fragment>>,
}

/// The entries of a tar.
pub(super) struct Entries<R> {
    input: R,
    /// Stored bytes of the entry that are still to come, and the padding after them.
    left: u64,
    padding: u64,
}

pub(super) fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl<R: BufRead> Entries<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
        }
    }

    /// Reads the next header into `entry`; false at the archive's end. Content not asked for is passed over.
    pub(super) fn next(&mut self, entry: &mut Entry) -> io::Result<bool> {
        let mut extra = Extra::default();
        let mut header = [0_u8; BLOCK];
        loop {
            self.pass_over()?;
            if !self.header(&mut header)? {
                return if extra.is_empty() {
                    Ok(false)
                } else {
                    Err(broken("an extension header of no entry"))
                };
            }
            let size = number(&header[124..136])?;
            match header[156] {
                b'x' => extra.records = self.extension(size)?,
                b'L' => extra.name = Some(text(self.extension(size)?)),
                b'K' => extra.link = Some(text(self.extension(size)?)),
                b'g' => self.content_of(size)?,
                _ => break,
            }
        }
        entry.fill(&header, &extra)?;
        let mut stored = match extra.size()? {
            Some(size) => size,
            None => number(&header[124..136])?,
        };
        if !matches!(entry.kind, Kind::File | Kind::Other(_)) {
            // Whatever the header says: nothing follows.
            stored = 0;
        }
        self.content_of(stored)?;
        entry.size = stored;
        if header[156] == b'S' {
            self.gnu_sparse(&header, entry)?;
        } else if entry.kind == Kind::File {
            self.pax_sparse(&extra, entry)?;
        }
        Ok(true)
    }

    /// The next stored bytes of the entry; empty at its end.
    pub(super) fn content(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let n = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        Ok(&buffer[..n])
    }

    /// Takes `n` of the bytes that [`Entries::content`] gave.
    pub(super) fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.left = self.left.saturating_sub(n as u64);
    }

    fn content_of(&mut self, size: u64) -> io::Result<()> {
        if size > i64::MAX as u64 {
            return Err(broken("an entry of an impossible size"));
        }
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(())
    }

    fn pass_over(&mut self) -> io::Result<()> {
        loop {
            let n = self.content()?.len();
            if n == 0 {
                break;
            }
            self.consume(n);
        }
        // An archive may end with its last content: the padding is not missed.
        while self.padding > 0 {
            let n = self.input.fill_buf()?.len().min(self.padding as usize);
            if n == 0 {
                break;
            }
            self.input.consume(n);
            self.padding -= n as u64;
        }
        self.padding = 0;
        Ok(())
    }

    /// False at the end, which is a block of zeros or the end of the stream.
    fn header(&mut self, header: &mut [u8; BLOCK]) -> io::Result<bool> {
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        if let Some(whole) = buffer.first_chunk::<BLOCK>() {
            header.copy_from_slice(whole);
            self.input.consume(BLOCK);
        } else {
            self.input.read_exact(header)?;
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(false);
        }
        let sums = header
            .iter()
            .enumerate()
            .fold((0_i64, 0_i64), |(plain, signed), (at, byte)| {
                // The sum counts itself as blanks.
                let byte = if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                };
                (plain + i64::from(byte), signed + i64::from(byte as i8))
            });
        let said = octal(&header[148..156])?;
        // A fuzzer would not find its way past a checksum.
        if !cfg!(fuzzing) && said != sums.0 && said != sums.1 {
            return Err(broken("a header with a wrong checksum"));
        }
        Ok(true)
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > LARGEST_EXTENSION {
            return Err(broken("an extension header over 1 MiB"));
        }
        self.content_of(size)?;
        let mut bytes = Vec::new();
        loop {
            let part = self.content()?;
            if part.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(part);
            let n = part.len();
            self.consume(n);
        }
    }

    fn gnu_sparse(&mut self, header: &[u8; BLOCK], entry: &mut Entry) -> io::Result<()> {
        let mut map = Vec::new();
        sparse::gnu_fragments(&header[386..482], &mut map)?;
        let mut more = header[482];
        let mut block = [0_u8; BLOCK];
        while more != 0 {
            // These lie between the header and the content, and are not of its size.
            self.input.read_exact(&mut block)?;
            sparse::gnu_fragments(&block[..504], &mut map)?;
            more = block[504];
        }
        let size = number(&header[483..495])?;
        sparse::check(&map, size, self.left)?;
        entry.size = size;
        entry.sparse = Some(map);
        Ok(())
    }

    fn pax_sparse(&mut self, extra: &Extra, entry: &mut Entry) -> io::Result<()> {
        let Some(found) = sparse::Pax::of(extra.each())? else {
            return Ok(());
        };
        let mut map = found.fragments;
        if found.in_content {
            map = sparse::read_map(|| {
                if self.left < BLOCK as u64 {
                    return Err(broken("a sparse map that does not end"));
                }
                let mut block = [0_u8; BLOCK];
                self.input.read_exact(&mut block)?;
                self.left -= BLOCK as u64;
                Ok(block)
            })?;
        }
        let size = found.size.unwrap_or(entry.size);
        sparse::check(&map, size, self.left)?;
        entry.size = size;
        entry.sparse = Some(map);
        if let Some(name) = found.name {
            entry.path.clear();
            entry.path.extend_from_slice(&name);
        }
        Ok(())
    }
}

impl Entry {
    fn fill(&mut self, header: &[u8; BLOCK], extra: &Extra) -> io::Result<()> {
        let id = |field: &[u8]| {
            u32::try_from(number(field)?).map_err(|_| broken("an owner over 32 bits"))
        };
        self.path.clear();
        self.link.clear();
        self.xattrs.clear();
        self.sparse = None;
        let ustar = &header[257..263] == b"ustar\0";
        let prefix = match &header[508..512] {
            b"tar\0" => &header[345..476],
            _ => &header[345..500],
        };
        if ustar && prefix[0] != 0 {
            self.path.extend_from_slice(until_nul(prefix));
            self.path.push(b'/');
        }
        self.path.extend_from_slice(until_nul(&header[..100]));
        self.link.extend_from_slice(until_nul(&header[157..257]));
        self.mode = (number(&header[100..108])? & 0o7777) as u32;
        self.uid = id(&header[108..116])?;
        self.gid = id(&header[116..124])?;
        self.mtime = (signed(&header[136..148])?, 0);
        self.device = (0, 0);
        self.kind = kind(header[156]);
        if matches!(self.kind, Kind::Character | Kind::Block) {
            self.device = (id(&header[329..337])?, id(&header[337..345])?);
        }
        self.extend(extra)?;
        // Before there was a kind for directories, a slash said it.
        if header[156] == 0 && self.path.ends_with(b"/") {
            self.kind = Kind::Directory;
        }
        Ok(())
    }

    fn extend(&mut self, extra: &Extra) -> io::Result<()> {
        for record in extra.each() {
            let (key, value) = record?;
            let id = || {
                let id = decimal(value)?;
                u32::try_from(id).map_err(|_| broken("an owner over 32 bits"))
            };
            match key {
                b"path" => value.clone_into(&mut self.path),
                b"linkpath" => value.clone_into(&mut self.link),
                b"uid" if !value.is_empty() => self.uid = id()?,
                b"gid" if !value.is_empty() => self.gid = id()?,
                b"mtime" if !value.is_empty() => self.mtime = time(value)?,
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        if let Some(name) = &extra.name {
            name.clone_into(&mut self.path);
        }
        if let Some(link) = &extra.link {
            link.clone_into(&mut self.link);
        }
        Ok(())
    }
}

/// What extension headers say of the entry that follows.
#[derive(Default)]
struct Extra {
    records: Vec<u8>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extra {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.name.is_none() && self.link.is_none()
    }

    fn size(&self) -> io::Result<Option<u64>> {
        let mut size = None;
        for record in self.each() {
            let (key, value) = record?;
            if key == b"size" && !value.is_empty() {
                size = Some(decimal(value)?);
            }
        }
        Ok(size)
    }

    /// `LENGTH KEY=VALUE\n`, one after the other.
    fn each(&self) -> impl Iterator<Item = io::Result<(&[u8], &[u8])>> {
        let mut rest = &self.records[..];
        std::iter::from_fn(move || {
            // Some writers fill up with zeros.
            if rest.iter().all(|byte| *byte == 0) {
                return None;
            }
            let parsed = record(rest);
            rest = parsed.map_or(&[], |(_, rest)| rest);
            Some(parsed.map_or_else(
                || Err(broken("a malformed PAX record")),
                |(record, _)| Ok(record),
            ))
        })
    }
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank]).ok()?).ok()?;
    let whole = bytes.get(..length)?;
    let inner = whole.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = inner.iter().position(|byte| *byte == b'=')?;
    Some(((&inner[..equals], &inner[equals + 1..]), &bytes[length..]))
}

fn kind(flag: u8) -> Kind {
    match flag {
        // The last one: a file that once had to lie in one piece.
        0 | b'0' | b'S' | b'7' => Kind::File,
        b'1' => Kind::Hardlink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => Kind::Other(other),
    }
}

fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(until_nul(&bytes).len());
    bytes
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A field that must not be negative.
pub(super) fn number(field: &[u8]) -> io::Result<u64> {
    u64::try_from(signed(field)?).map_err(|_| broken("a negative number in a header"))
}

/// Octal digits, or two's complement of the whole field where the first bit is set.
fn signed(field: &[u8]) -> io::Result<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    let first = i64::from((field[0] << 1) as i8 >> 1);
    field[1..].iter().try_fold(first, |value, byte| {
        let shifted = value.checked_mul(256);
        shifted
            .map(|value| value | i64::from(*byte))
            .ok_or_else(|| broken("a number over 63 bits"))
    })
}

/// Blanks and zeros around it are no part of it, and nothing at all is zero, as everywhere.
fn octal(field: &[u8]) -> io::Result<i64> {
    let blank = |byte: &u8| matches!(byte, 0 | b' ');
    let digits = field.iter().skip_while(|byte| blank(byte));
    let mut value = 0_i64;
    for byte in digits.take_while(|byte| !blank(byte)) {
        if !(b'0'..=b'7').contains(byte) {
            return Err(broken("a number that is not octal"));
        }
        value = value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(byte - b'0')))
            .ok_or_else(|| broken("a number over 63 bits"))?;
    }
    Ok(value)
}

pub(super) fn decimal(text: &[u8]) -> io::Result<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok())
        .filter(|value| i64::try_from(*value).is_ok())
        .ok_or_else(|| broken("a number that is not decimal"))
}

/// `-12.0345` is 12.0345 s before 1970.
fn time(text: &[u8]) -> io::Result<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = decimal(parts.next().unwrap_or_default())? as i64;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(broken("a time that is no number"));
    }
    let nanos = (0..9).fold(0_u32, |value, at| {
        value * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'))
    });
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
#[path = "entries_tests.rs"]
mod tests;
