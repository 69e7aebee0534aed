//! The keys that detach from a program and leave it running.

/// A key sequence that detaches from the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    sequence: Vec<u8>,
    /// Typed keys that may be the beginning of `sequence`.
    held: Vec<u8>,
}

impl Default for DetachKeys {
    /// Ctrl-].
    fn default() -> Self {
        DetachKeys { sequence: vec![0x1d], held: Vec::new() }
    }
}

impl DetachKeys {
    /// `ctrl-]`, `ctrl-p,ctrl-q`, `a`; keys separated by commas.
    pub fn parse(text: &str) -> Result<DetachKeys, String> {
        let sequence = text.split(',').map(key).collect::<Result<Vec<u8>, String>>()?;
        Ok(DetachKeys { sequence, held: Vec::new() })
    }

    /// The part of `typed` for the guest, and whether the sequence is complete. Keys that may be the beginning of the
    /// sequence are held back until the next key decides.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + self.held.len());
        for &byte in typed {
            self.held.push(byte);
            while !self.sequence.starts_with(&self.held) {
                passed.push(self.held.remove(0));
            }
            if self.held == self.sequence {
                self.held.clear();
                return (passed, true);
            }
        }
        (passed, false)
    }
}

fn key(name: &str) -> Result<u8, String> {
    let refuse = || format!("{name:?} is not a key; examples: ctrl-], a, or a sequence like ctrl-p,ctrl-q");
    if let Some(letter) = name.strip_prefix("ctrl-").or_else(|| name.strip_prefix("Ctrl-")) {
        let [byte] = letter.as_bytes() else { return Err(refuse()) };
        let upper = byte.to_ascii_uppercase();
        return if (b'@'..=b'_').contains(&upper) { Ok(upper & 0x1f) } else { Err(refuse()) };
    }
    match name.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Ok(*byte),
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_of_keys_is_that_of_docker() {
        assert_eq!(DetachKeys::parse("ctrl-]"), Ok(DetachKeys::default()));
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap().sequence, [16, 17]);
        assert_eq!(DetachKeys::parse("ctrl-@,a").unwrap().sequence, [0, b'a']);
        for text in ["", "ctrl-", "ctrl-ab", "ab", "ctrl-1", "a,,b", " "] {
            assert!(DetachKeys::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_sequence_is_found_across_reads_without_losing_keys() {
        let mut keys = DetachKeys::parse("a,a,b").unwrap();
        assert_eq!(keys.filter(b"xa"), (b"x".to_vec(), false));
        assert_eq!(keys.filter(b"a"), (Vec::new(), false));
        // A third a: the first a was not the beginning of the sequence.
        assert_eq!(keys.filter(b"a"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"by"), (Vec::new(), true));
        assert_eq!(keys.filter(b"ac"), (b"ac".to_vec(), false));
    }
}
