//! A layer's archive again, byte for byte as it came, though only its files are kept.
//!
//! While a layer is unpacked, everything of its archive but the content of files (headers, padding, the order) is recorded
//! beside it; the content is taken from the layer's folder. So an image that is saved or pushed keeps its id. Layers that
//! were made here have no record: they are written in one order always.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::archive::open_inside;
use super::{Error, Result};

const BLOCK: usize = 512;
/// Of names and extended headers; what is longer is recorded, but not understood.
const MAX_NAME: usize = 1 << 20;
/// Bytes as they are: their number follows, then they.
const RAW: u8 = b'R';
/// Content of a file: its length, the length of its path, the path.
const FILE: u8 = b'F';
/// So many zeros: what is behind an archive's end may be long.
const ZEROS: u8 = b'Z';
/// Nothing more.
const END: u8 = b'E';

/// Passes an archive on and records it.
pub(super) struct Recording<R> {
    inner: R,
    recorder: Recorder,
}

impl<R: Read> Recording<R> {
    /// Records to a file, which must not exist.
    pub(super) fn new(inner: R, path: &Path) -> io::Result<Self> {
        Ok(Self {
            inner,
            recorder: Recorder::create(path)?,
        })
    }

    /// After the end of the archive; the reader.
    pub(super) fn finish(self) -> io::Result<R> {
        self.recorder.finish()?;
        Ok(self.inner)
    }
}

impl<R: Read> Read for Recording<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.recorder.feed(&buffer[..n])?;
        Ok(n)
    }
}

/// Where in the archive the next byte lies.
enum At {
    Header,
    /// Content of a file, which is not recorded.
    Content {
        left: u64,
        padding: u64,
    },
    /// Anything else up to the next header; with `keep` it says something of the next entry.
    Rest {
        left: u64,
        keep: Option<u8>,
    },
    /// Behind the last entry.
    Tail,
}

/// What a [`Recording`] records by, for an archive that comes in pieces.
pub(super) struct Recorder {
    out: GzEncoder<io::BufWriter<std::fs::File>>,
    at: At,
    /// Bytes not written yet: part of a header, or raw ones.
    raw: Vec<u8>,
    /// Behind the end, not written yet either; they follow `raw`.
    zeros: u64,
    header: Vec<u8>,
    kept: Vec<u8>,
    long_name: Option<Vec<u8>>,
    pax_name: Option<Vec<u8>>,
    pax_size: Option<u64>,
    /// The next file has holes: what is stored of it is not what it will be.
    pax_sparse: bool,
}

impl Recorder {
    /// Records to a file, which must not exist.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(fs_err::File::create_new(path)?.into()))
    }

    fn new(file: std::fs::File) -> Self {
        let buffered = io::BufWriter::new(file);
        Self {
            // Headers repeat themselves: the fastest level is small enough.
            out: GzEncoder::new(buffered, Compression::fast()),
            at: At::Header,
            raw: Vec::new(),
            zeros: 0,
            header: Vec::with_capacity(BLOCK),
            kept: Vec::new(),
            long_name: None,
            pax_name: None,
            pax_size: None,
            pax_sparse: false,
        }
    }

    /// The next bytes of the archive.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = match self.at {
                At::Header => {
                    let n = (BLOCK - self.header.len()).min(bytes.len());
                    self.header.extend_from_slice(&bytes[..n]);
                    if self.header.len() == BLOCK {
                        self.entry()?;
                    }
                    n
                }
                At::Content { left, padding } => {
                    let n = up_to(left, bytes.len());
                    self.at = match left - n as u64 {
                        0 => rest(padding, None),
                        left => At::Content { left, padding },
                    };
                    n
                }
                At::Rest { left, keep } => {
                    let n = up_to(left, bytes.len());
                    self.raw.extend_from_slice(&bytes[..n]);
                    if keep.is_some() && self.kept.len() < MAX_NAME {
                        self.kept.extend_from_slice(&bytes[..n]);
                    }
                    self.at = rest(left - n as u64, keep);
                    if let (At::Header, Some(kind)) = (&self.at, keep) {
                        self.learn(kind);
                    }
                    n
                }
                At::Tail => {
                    if bytes.iter().all(|byte| *byte == 0) {
                        self.flush_raw()?;
                        self.zeros += bytes.len() as u64;
                    } else {
                        self.flush_zeros()?;
                        self.raw.extend_from_slice(bytes);
                    }
                    bytes.len()
                }
            };
            bytes = &bytes[taken..];
            if self.raw.len() > 1 << 16 {
                self.flush_raw()?;
            }
        }
        Ok(())
    }

    /// A whole header has come.
    fn entry(&mut self) -> io::Result<()> {
        let header = std::mem::replace(&mut self.header, Vec::with_capacity(BLOCK));
        self.raw.extend_from_slice(&header);
        if header.iter().all(|byte| *byte == 0) {
            self.at = At::Tail;
            return Ok(());
        }
        let kind = header[156];
        let Some(size) = number(&header[124..136]) else {
            // What cannot be read cannot be unpacked either.
            self.at = At::Tail;
            return Ok(());
        };
        if matches!(kind, b'L' | b'K' | b'x' | b'g') {
            self.kept.clear();
            let padded = size.saturating_add(padding(size));
            self.at = rest(padded, Some(kind));
            return Ok(());
        }
        let size = self.pax_size.take().unwrap_or(size);
        let name = self.name(&header);
        let sparse = std::mem::take(&mut self.pax_sparse);
        let is_file = matches!(kind, b'0' | 0 | b'7') && !name.ends_with(b"/") && !sparse;
        if is_file && size > 0 {
            self.flush_raw()?;
            self.out.write_all(&[FILE])?;
            self.out.write_all(&size.to_le_bytes())?;
            self.out.write_all(&(name.len() as u32).to_le_bytes())?;
            self.out.write_all(&name)?;
            self.at = At::Content {
                left: size,
                padding: padding(size),
            };
        } else {
            self.at = rest(size.saturating_add(padding(size)), None);
        }
        Ok(())
    }

    fn name(&mut self, header: &[u8]) -> Vec<u8> {
        let (pax, long) = (self.pax_name.take(), self.long_name.take());
        pax.or(long).unwrap_or_else(|| {
            let name = until_nul(&header[..100]);
            let prefix = until_nul(&header[345..500]);
            if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
                [prefix, b"/", name].concat()
            } else {
                name.to_vec()
            }
        })
    }

    /// What an entry about the next one says.
    fn learn(&mut self, kind: u8) {
        let kept = std::mem::take(&mut self.kept);
        match kind {
            b'L' => self.long_name = Some(until_nul(&kept).to_vec()),
            b'x' => {
                let mut rest = &kept[..];
                while let Some((key, value, after)) = pax_record(rest) {
                    match key {
                        b"path" => self.pax_name = Some(value.to_vec()),
                        b"size" => {
                            self.pax_size =
                                std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                        }
                        _ => self.pax_sparse |= key.starts_with(b"GNU.sparse."),
                    }
                    rest = after;
                }
            }
            _ => {}
        }
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if !self.raw.is_empty() {
            self.out.write_all(&[RAW])?;
            self.out.write_all(&(self.raw.len() as u64).to_le_bytes())?;
            self.out.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }

    fn flush_zeros(&mut self) -> io::Result<()> {
        if self.zeros > 0 {
            self.out.write_all(&[ZEROS])?;
            self.out.write_all(&self.zeros.to_le_bytes())?;
            self.zeros = 0;
        }
        Ok(())
    }

    /// After the last byte.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let header = std::mem::take(&mut self.header);
        self.flush_zeros()?;
        self.raw.extend_from_slice(&header);
        self.flush_raw()?;
        self.out.write_all(&[END])?;
        self.out
            .finish()?
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }
}

fn up_to(left: u64, length: usize) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}

fn rest(left: u64, keep: Option<u8>) -> At {
    if left == 0 {
        At::Header
    } else {
        At::Rest { left, keep }
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Octal, or GNU's binary numbers.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let fits = high[0] == 0x80 && high[1..].iter().all(|b| *b == 0);
        return fits.then(|| low.iter().fold(0, |n, b| n << 8 | u64::from(*b)));
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim();
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(text, 8).ok()
}

/// `LENGTH KEY=VALUE\n`, and what follows.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// Writes the archive again out of its record and the layer's folder.
pub(super) fn replay(record: &Path, folder: &Path, mut out: impl Write) -> Result<()> {
    let file = io::BufReader::new(fs_err::File::open(record)?);
    let mut record = io::BufReader::new(GzDecoder::new(file));
    loop {
        let mut kind = [0_u8];
        record.read_exact(&mut kind)?;
        match kind[0] {
            RAW => {
                let length = long(&mut record)?;
                copy_exactly(&mut record, length, &mut out)?;
            }
            FILE => {
                let length = long(&mut record)?;
                let path = path(&mut record)?;
                copy_exactly(open_inside(folder, &path)?, length, &mut out)?;
            }
            ZEROS => {
                let length = long(&mut record)?;
                copy_exactly(io::repeat(0), length, &mut out)?;
            }
            END => return Ok(out.flush()?),
            _ => return Err(Error::Unsupported("the layer's record is broken".into())),
        }
    }
}

fn long(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn path(from: &mut impl Read) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut length = [0_u8; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    let mut name = vec![0_u8; length.min(MAX_NAME)];
    from.read_exact(&mut name)?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(name)))
}

fn copy_exactly(from: impl Read, length: u64, out: &mut impl Write) -> Result<()> {
    if io::copy(&mut from.take(length), out)? == length {
        Ok(())
    } else {
        Err(Error::Unsupported(
            "a file of the layer is too short".into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::unpack::unpack;
    use super::*;

    /// Unpacks and records, then writes again; with what came before and after.
    fn again(archive: &[u8], step: usize) -> Vec<u8> {
        let root = tempfile::tempdir().unwrap();
        let (record, folder) = (root.path().join("record"), root.path().join("diff"));
        fs_err::create_dir(&folder).unwrap();
        unpack(archive, &folder, 1 << 30).unwrap();
        let mut recording = Recording::new(archive, &record).unwrap();
        let mut buffer = vec![0; step];
        while recording.read(&mut buffer).unwrap() > 0 {}
        recording.finish().unwrap();
        let mut out = Vec::new();
        replay(&record, &folder, &mut out).unwrap();
        out
    }

    fn archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, content: &[u8], mut header: tar::Header| {
            header.set_mode(0o640);
            header.set_uid(5);
            header.set_gid(6);
            header.set_mtime(1_234_567);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content).unwrap();
        };
        add("z", b"last first", tar::Header::new_ustar());
        add("./a/b", &[7; 1000], tar::Header::new_gnu());
        add("empty", b"", tar::Header::new_old());
        add(&"long/".repeat(50), b"", {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header
        });
        add(
            &("n".repeat(120) + "/file"),
            b"deep",
            tar::Header::new_ustar(),
        );
        add(&"y".repeat(150), &[1; 512], tar::Header::new_gnu());
        let pax = [("path", "by-pax".as_bytes()), ("mtime", b"1.5")];
        tar.append_pax_extensions(pax).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, "other", &b"pax"[..]).unwrap();
        let mut bytes = tar.into_inner().unwrap();
        bytes.extend_from_slice(&[0; 10_240]);
        bytes.extend_from_slice(b"and something behind the end");
        bytes
    }

    #[test]
    fn an_archive_comes_back_byte_for_byte() {
        let archive = archive();
        for step in [1, 7, 512, 4096, 1 << 20] {
            assert!(again(&archive, step) == archive, "read by {step}");
        }
        assert!(again(&[0; 1024], 100) == [0; 1024]);
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let (record, archive) = (root.path().join("record"), archive());
        let mut recording = Recording::new(&archive[..], &record).unwrap();
        io::copy(&mut recording, &mut io::sink()).unwrap();
        recording.finish().unwrap();
        fs_err::write(root.path().join("z"), "short").unwrap();
        assert!(replay(&record, root.path(), io::sink()).is_err());
    }

    #[test]
    fn numbers_and_records() {
        assert_eq!(number(b"00000000017\0"), Some(15));
        assert_eq!(number(b"         17 "), Some(15));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(number(b"9\0\0\0\0\0\0\0\0\0\0\0"), None);
        assert_eq!(pax_record(b"9 a=b\n"), None);
        assert_eq!(
            pax_record(b"6 a=b\nx"),
            Some((&b"a"[..], &b"b"[..], &b"x"[..]))
        );
    }
}
