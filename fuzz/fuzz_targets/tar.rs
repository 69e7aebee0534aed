//! An archive to the strict reader: whatever it holds, reading ends, and what is read is within the archive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use microsandbox_rooted::tar::{Source, next_entry, skip_padding};

struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn next(&mut self, most: u64) -> &[u8] {
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.0.len()).min(97);
        let (piece, rest) = self.0.split_at(count);
        self.0 = rest;
        piece
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut source = Bytes(bytes);
    while let Ok(Some(entry)) = next_entry(&mut source, 4096) {
        assert!(!entry.path.contains(&0) && !entry.link.contains(&0));
        if !source.skip(entry.size) || skip_padding(&mut source, entry.size).is_err() {
            return;
        }
    }
});
