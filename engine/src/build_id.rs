//! What build a program is: the id that the linker wrote into it, or else the digest of the file.
//!
//! Deliberately absent: 32-bit and big-endian programs, which windlassd is not built as.

use std::io::Read as _;
use std::path::Path;

use fs_err as fs;
use sha2::{Digest as _, Sha256};

/// Headers and notes are at the front.
const FRONT: u64 = 64 * 1024;
const NOTE_SEGMENT: u32 = 4;
const BUILD_ID: u32 = 3;
/// Shorter ones are a fixed word rather than a digest.
const SHORTEST: usize = 16;

/// The build id of this file, in hex.
pub fn of(program: &Path) -> std::io::Result<String> {
    let mut front = Vec::new();
    fs::File::open(program)?
        .take(FRONT)
        .read_to_end(&mut front)?;
    match noted(&front) {
        Some(id) => Ok(hex::encode(id)),
        None => digest(program),
    }
}

fn digest(program: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = fs::File::open(program)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    usize::try_from(u64::from_le_bytes(wide)).ok()
}

/// The linker's note in a 64-bit little-endian ELF file.
fn noted(file: &[u8]) -> Option<&[u8]> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let headers = number::<8>(file, 32)?;
    let size = number::<2>(file, 54)?;
    let count = number::<2>(file, 56)?;
    (0..count).find_map(|n| {
        let header = file.get(headers.checked_add(n * size)?..)?;
        if number::<4>(header, 0)? != NOTE_SEGMENT as usize {
            return None;
        }
        let start = number::<8>(header, 8)?;
        let end = start.checked_add(number::<8>(header, 32)?)?;
        in_segment(file.get(start..end)?)
    })
}

fn in_segment(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let name_length = number::<4>(notes, 0)?;
        let length = number::<4>(notes, 4)?;
        let kind = number::<4>(notes, 8)?;
        let name = notes.get(12..12usize.checked_add(name_length)?)?;
        let start = 12 + name_length.next_multiple_of(4);
        let content = notes.get(start..start.checked_add(length)?)?;
        if kind == BUILD_ID as usize && name == b"GNU\0" && length >= SHORTEST {
            return Some(content);
        }
        notes = notes.get(start + length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        let mut header = vec![0; 56];
        header[0] = 4;
        header[8] = 120;
        header[32] = (16 + 16 + id.len()) as u8;
        file.extend_from_slice(&header);
        file.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        file.extend_from_slice(b"GNU\0");
        file.extend_from_slice(&[4, 0, 0, 0, id.len() as u8, 0, 0, 0, 3, 0, 0, 0]);
        file.extend_from_slice(b"GNU\0");
        file.extend_from_slice(id);
        file
    }

    #[test]
    fn the_linkers_note_or_the_files_digest() {
        let with = program(&[7; 20]);
        assert_eq!(noted(&with), Some(&[7; 20][..]));
        for end in 0..with.len() {
            assert_eq!(noted(&with[..end]), None, "cut at {end}");
        }
        assert_eq!(
            noted(&program(&[7; 8])),
            None,
            "too short to tell builds apart"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, b"no program").unwrap();
        assert_eq!(
            of(&path).unwrap(),
            hex::encode(Sha256::digest(b"no program"))
        );
        fs::write(&path, &with).unwrap();
        assert_eq!(of(&path).unwrap(), "07".repeat(20));
    }
}
