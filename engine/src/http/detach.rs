//! Detach keys (`ctrl-p,ctrl-q`) in a terminal's input: pure.

use crate::container::error::{Error, Result};

/// Looks for the sequence, wherever the input is cut.
#[derive(Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// From the query parameter; absent means Docker's default.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let text = text.unwrap_or("ctrl-p,ctrl-q");
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
        let keys =
            keys.ok_or_else(|| Error::invalid(format!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { keys, matched: 0 })
    }

    /// Takes input in; the answer is what goes to the container, and whether the sequence is complete.
    pub fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(input.len());
        for &byte in input {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(byte == self.keys[0] && self.keys.len() > 1);
            if self.matched == 0 {
                out.push(byte);
            }
        }
        (out, false)
    }
}

fn key(text: &str) -> Option<u8> {
    if let Some(control) = text.strip_prefix("ctrl-") {
        return match control.as_bytes() {
            [c @ b'a'..=b'z'] => Some(c - b'a' + 1),
            [b'@'] => Some(0),
            [b'['] => Some(27),
            [b'\\'] => Some(28),
            [b']'] => Some(29),
            [b'^'] => Some(30),
            [b'_'] => Some(31),
            _ => None,
        };
    }
    match text.as_bytes() {
        [c] if c.is_ascii() => Some(*c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_across_cuts_and_false_starts_pass() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.feed(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.feed(b"\x11rest"), (vec![], true));
        assert!(DetachKeys::parse(Some("ctrl-1")).is_err());
        assert_eq!(DetachKeys::parse(Some("a,b")).unwrap().feed(b"xab").0, b"x");
    }
}
