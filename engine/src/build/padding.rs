//! An archive's last block, filled up: `docker build -f -` sends archives that end right behind the last file's content. No other repair is done.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

const BLOCK: u64 = 512;

/// Zeros up to the next whole block follow what `inner` gives.
pub struct Padded<R> {
    inner: R,
    read: u64,
    added: Rc<Cell<u64>>,
}

impl<R: Read> Padded<R> {
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            read: 0,
            added: Rc::default(),
        }
    }

    /// How many zeros were added so far: where a content has some, it was cut off.
    pub fn added(&self) -> Rc<Cell<u64>> {
        self.added.clone()
    }
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.inner.read(buffer)?;
        if count == 0 {
            let missing = self.read.next_multiple_of(BLOCK) - self.read;
            count = buffer.len().min(missing as usize);
            buffer[..count].fill(0);
            self.added.set(self.added.get() + count as u64);
        }
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_becomes_whole() {
        for (length, padded) in [(0, 0), (1, 512), (512, 512), (513, 1024)] {
            let content = vec![7; length];
            let mut reader = Padded::new(&content[..]);
            let added = reader.added();
            let mut whole = Vec::new();
            reader.read_to_end(&mut whole).unwrap();
            assert_eq!(whole.len(), padded);
            assert_eq!(added.get(), (padded - length) as u64);
            assert_eq!(whole[..length], content);
        }
    }
}
