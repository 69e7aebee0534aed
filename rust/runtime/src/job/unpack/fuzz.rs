//! Changed archives to the writer of layers: tar, whiteouts and links, over another layer. Whatever comes, nothing beside the
//! layer's directory changes, and what is put there can be walked.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use microsandbox_contract::{Headroom, IdMap, ImageLimits};
use microsandbox_mutation::{Target, repair_tar};
use microsandbox_rooted::tar::{Archive, Source};

use super::limits::{Budget, Outcome, refused};
use super::tree::Tree;

struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn next(&mut self, most: u64) -> &[u8] {
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.0.len()).min(997);
        let (piece, rest) = self.0.split_at(count);
        self.0 = rest;
        piece
    }
}

const WORDS: &[&[u8]] = &[
    b".wh.",
    b".wh..wh..opq",
    b".wh.a",
    b"../",
    b"/",
    b"./",
    b"d/",
    b"l/",
    b"a\0",
    b"ustar\x0000",
    b"ustar  \0",
    b"GNU.sparse.major=1\n",
    b"GNU.sparse.map=0,1\n",
    b"17 path=../../a\n",
    b"11 size=99\n",
    b"22 linkpath=/etc/a\n",
    b"0000644\0",
    b"1",
    b"2",
    b"5",
    b"6",
    b"x",
    b"g",
    b"L",
    b"K",
    b"S",
];

fn opened(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

fn unpack(input: &[u8], base: &Path) -> Outcome<usize> {
    let limits = ImageLimits {
        file_bytes: 1 << 20,
        layer_bytes: 4 << 20,
        total_bytes: 4 << 20,
        entries: 500,
        ..ImageLimits::default()
    };
    let mut budget = Budget::new(limits, Headroom::Bytes(0));
    budget.begin_layer();
    let ids = IdMap::Range { base: 0, count: 1000 };
    let mut tree = Tree::new(opened(&base.join("layer")), vec![opened(&base.join("beneath"))], &ids, &mut budget)?;
    let mut archive = Archive::new(Bytes(input), limits.pax_bytes);
    let mut entries = 0;
    while let Some(entry) = archive.next_entry().map_err(|error| refused(&limits, error))? {
        tree.apply(&entry, &mut archive)?;
        entries += 1;
    }
    tree.finish()?;
    Ok(entries)
}

/// Inode, mode, size, time and number of names.
type State = (u64, u32, u64, i64, u64);

/// Every path below `base` but those in `layer`, with what a stray write would change.
fn state(base: &Path) -> BTreeMap<String, State> {
    let mut found = BTreeMap::new();
    let mut todo = vec![base.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            if path != base.join("layer") {
                let seen = (stat.ino(), stat.mode(), stat.size(), stat.mtime_nsec(), stat.nlink());
                found.insert(path.to_string_lossy().into_owned(), seen);
                if stat.is_dir() {
                    todo.push(path);
                }
            }
        }
    }
    found
}

fn clear(layer: &Path) {
    std::fs::remove_dir_all(layer).unwrap();
    std::fs::create_dir(layer).unwrap();
}

#[test]
fn fuzz_unpack() {
    let scratch = tempfile::tempdir().unwrap();
    let (base, outside) = (scratch.path(), scratch.path().join("outside"));
    for directory in ["layer", "beneath/d/e", "beneath/a", "outside"] {
        std::fs::create_dir_all(base.join(directory)).unwrap();
    }
    for file in ["beneath/f", "beneath/d/f", "beneath/d/e/f", "outside/f"] {
        std::fs::write(base.join(file), "before").unwrap();
    }
    std::os::unix::fs::symlink(&outside, base.join("beneath/l")).unwrap();
    std::os::unix::fs::symlink("../../outside", base.join("beneath/d/up")).unwrap();
    let before = state(base);
    Target { repair: repair_tar, ..Target::new("unpack", WORDS) }.run(|input| {
        let outcome = unpack(input, base);
        assert_eq!(state(base), before, "something beside the layer changed");
        clear(&base.join("layer"));
        match outcome {
            Ok(entries) => format!("{entries} entries"),
            Err(error) => format!(
                "{:?} {}",
                error.kind,
                error.message.chars().filter(char::is_ascii_alphabetic).take(60).collect::<String>()
            ),
        }
    });
}
