//! Files with holes in a tar: which bytes of the file are stored. GNU's own form and the three of PAX (0.0, 0.1, 1.0).

use std::io;

use super::entries::{broken, decimal, number};

/// Of one file; a map of more is memory that an archive of a few kilobytes asks for.
const MOST_FRAGMENTS: usize = 1 << 18;

/// Stored bytes of a file: they begin at `offset` of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// What PAX records say of a file with holes.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) fragments: Vec<Fragment>,
    /// The map is the beginning of the content (1.0).
    pub(super) in_content: bool,
}

impl Pax {
    /// `None` where the records are of an ordinary file.
    pub(super) fn of<'a>(
        records: impl Iterator<Item = io::Result<(&'a [u8], &'a [u8])>>,
    ) -> io::Result<Option<Self>> {
        let mut found = Self::default();
        let mut any = false;
        let mut offset = None;
        for record in records {
            let (key, value) = record?;
            let Some(key) = key.strip_prefix(b"GNU.sparse.") else {
                continue;
            };
            match key {
                b"name" => found.name = Some(value.to_owned()),
                b"size" | b"realsize" => {
                    found.size = Some(decimal(value)?);
                    any = true;
                }
                b"major" => found.in_content = value == b"1",
                b"offset" => offset = Some(decimal(value)?),
                b"numbytes" => {
                    let offset = offset.take().ok_or_else(|| broken("a sparse map"))?;
                    push(&mut found.fragments, offset, decimal(value)?)?;
                }
                b"map" => {
                    let mut numbers = value.split(|byte| *byte == b',');
                    while let Some(offset) = numbers.next().filter(|text| !text.is_empty()) {
                        let length = numbers.next().ok_or_else(|| broken("a sparse map"))?;
                        push(&mut found.fragments, decimal(offset)?, decimal(length)?)?;
                    }
                }
                _ => {}
            }
        }
        Ok(any.then_some(found))
    }
}

/// Pairs of twelve octal digits, up to the first empty one.
pub(super) fn gnu_fragments(fields: &[u8], map: &mut Vec<Fragment>) -> io::Result<()> {
    for pair in fields.chunks_exact(24).take_while(|pair| pair[0] != 0) {
        push(map, number(&pair[..12])?, number(&pair[12..])?)?;
    }
    Ok(())
}

/// The map at the beginning of the content: the count, then offsets and lengths, a line each, in whole blocks.
pub(super) fn read_map(
    mut block: impl FnMut() -> io::Result<[u8; 512]>,
) -> io::Result<Vec<Fragment>> {
    let mut text = Vec::new();
    let mut line = || -> io::Result<u64> {
        loop {
            if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let number = decimal(&text[..end])?;
                text.drain(..=end);
                return Ok(number);
            }
            if text.len() > 20 {
                return Err(broken("a sparse map"));
            }
            text.extend_from_slice(&block()?);
        }
    };
    let count = line()?;
    let mut map = Vec::new();
    for _ in 0..count {
        let offset = line()?;
        push(&mut map, offset, line()?)?;
    }
    Ok(map)
}

fn push(map: &mut Vec<Fragment>, offset: u64, length: u64) -> io::Result<()> {
    if map.len() >= MOST_FRAGMENTS {
        return Err(broken("a file in more pieces than are unpacked"));
    }
    map.push(Fragment { offset, length });
    Ok(())
}

/// In order, inside the file, and as many bytes as are stored.
pub(super) fn check(map: &[Fragment], size: u64, stored: u64) -> io::Result<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for fragment in map {
        let next = fragment.offset.checked_add(fragment.length);
        match next {
            Some(next) if fragment.offset >= end && next <= size => end = next,
            _ => return Err(broken("a sparse map out of order")),
        }
        sum += fragment.length;
    }
    if sum != stored || i64::try_from(size).is_err() {
        return Err(broken("a sparse map of another size"));
    }
    Ok(())
}
