//! An archive to the strict reader: whatever it holds, reading ends, and what is read is within the archive.
use microsandbox_rooted::tar::{Archive, Source};

struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn next(&mut self, most: u64) -> &[u8] {
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.0.len()).min(97);
        let (piece, rest) = self.0.split_at(count);
        self.0 = rest;
        piece
    }
}

pub fn check(bytes: &[u8]) {
    let mut archive = Archive::new(Bytes(bytes), 4096);
    while let Ok(Some(entry)) = archive.next_entry() {
        assert!(!entry.path.is_empty() && !entry.path.contains(&0) && !entry.link.contains(&0));
        let mut end = 0;
        while let Ok(Some((at, piece))) = archive.piece() {
            assert!(at >= end && !piece.is_empty());
            end = at + piece.len() as u64;
            assert!(end <= entry.size);
        }
    }
}
