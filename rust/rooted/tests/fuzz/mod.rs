//! Changed archives to the strict reader, and through the agent's reader and writer: what `write_tar` made of an archive, `read_tar`
//! writes as an archive that makes the same again.

mod tar;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use microsandbox_mutation::{Target, repair_tar};
use microsandbox_rooted::open::{Ceiling, Rule};
use microsandbox_rooted::pack::{Owners, Pack, Rules as PackRules};
use microsandbox_rooted::tar::{Archive, Kind, LONGEST_EXTENSION, Pieces};
use microsandbox_rooted::unpack::{Rules, Unpack};

const WORDS: &[&[u8]] = &[
    b"../",
    b"/",
    b"./",
    b"d/",
    b"l/",
    b"ustar\x0000",
    b"ustar  \0",
    b"GNU.sparse.major=1\n",
    b"GNU.sparse.minor=0\n",
    b"22 GNU.sparse.size=99\n",
    b"17 path=../../a\n",
    b"11 size=99\n",
    b"22 linkpath=/etc/a\n",
    b"20 mtime=-1.5\n",
    b"30 SCHILY.xattr.user.a=b\n",
    b"0000644\0",
    b"1",
    b"2",
    b"3",
    b"5",
    b"6",
    b"x",
    b"g",
    b"L",
    b"K",
    b"S",
];
/// Bytes of one file: an archive of a kilobyte may describe a file of exabytes.
const MOST: u64 = 1 << 20;

#[test]
fn fuzz_tar() {
    Target { repair: repair_tar, ..Target::new("tar", WORDS) }.run(|input| {
        tar::check(input);
        let mut archive = Archive::new(pieces(input), 4096);
        let mut kinds = String::new();
        loop {
            match archive.next_entry() {
                Ok(Some(entry)) if kinds.len() < 100 => kinds += &format!("{:?}", entry.kind)[..1],
                Ok(_) => return kinds,
                Err(error) => return kinds + &shown(&error),
            }
        }
    });
}

/// An error without the names and numbers in it.
fn shown(error: &impl std::fmt::Debug) -> String {
    format!("{error:?}").chars().filter(char::is_ascii_alphabetic).take(60).collect()
}

fn opened(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

fn pieces(bytes: &[u8]) -> Pieces<Vec<u8>, impl FnMut() -> Vec<u8>> {
    let mut rest = bytes.to_vec();
    Pieces::new(move || {
        let next = rest.split_off(rest.len().min(997));
        std::mem::replace(&mut rest, next)
    })
}

/// Whether all of it was put in place.
fn unpacked(bytes: &[u8], base: &Path) -> Result<usize, String> {
    let parents = Rule { ceiling: Ceiling::Refused, links: true, mounts: true };
    let rules = Rules {
        parents,
        keeps_owners: true,
        file_mode: 0o7777,
        directory_mode: 0o7777,
        makes_fifos: true,
        sets_top: true,
    };
    let mut unpack = Unpack::new(opened(base), rules);
    let mut archive = Archive::new(pieces(bytes), LONGEST_EXTENSION);
    let mut entries = 0;
    while let Some(entry) = archive.next_entry().map_err(|error| shown(&error))? {
        if entry.size > MOST || entries > 200 {
            return Err("larger than a test".into());
        }
        unpack.apply(&entry, &mut archive).map_err(|failure| shown(&failure))?;
        entries += 1;
    }
    unpack.finish().map_err(|failure| shown(&failure))?;
    Ok(entries)
}

fn packed(base: &Path) -> Vec<u8> {
    let mut pack = Pack::new(opened(base), PackRules { owners: Owners::Kept, mode: 0o7777, with_top: true }).unwrap();
    let mut whole = Vec::new();
    loop {
        let (piece, is_last) = pack.step(700).unwrap();
        whole.extend(piece);
        if is_last {
            return whole;
        }
    }
}

/// Whether it is a file, size, mode and time.
type Described = (bool, u64, u32, (i64, u32));

/// Every entry of an archive of ours. Which name of a file comes first is the order of the directory, so links are counted only.
fn described(bytes: &[u8]) -> BTreeMap<Vec<u8>, Described> {
    let mut archive = Archive::new(pieces(bytes), LONGEST_EXTENSION);
    let mut found = BTreeMap::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        let is_file = matches!(entry.kind, Kind::File | Kind::Hardlink);
        let size = if is_file { 0 } else { entry.size };
        assert!(found.insert(entry.path, (is_file, size, entry.mode, entry.mtime)).is_none(), "twice");
    }
    found
}

fn made(name: &str, scratch: &Path) -> std::path::PathBuf {
    let directory = scratch.join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).unwrap();
    directory
}

#[test]
fn fuzz_agent_tar() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("kept"), "before").unwrap();
    Target { repair: repair_tar, ..Target::new("agent_tar", WORDS) }.run(|input| {
        let (first, second) = (made("first", scratch.path()), made("second", scratch.path()));
        let outcome = unpacked(input, &first);
        let archive = packed(&first);
        let again = unpacked(&archive, &second);
        assert!(again.is_ok(), "an archive of ours: {again:?}");
        assert_eq!(described(&packed(&second)), described(&archive));
        assert_eq!(std::fs::read(scratch.path().join("kept")).unwrap(), b"before");
        let names = std::fs::read_dir(scratch.path()).unwrap().count();
        assert_eq!(names, 3, "something beside the directory");
        match outcome {
            Ok(entries) => format!("{entries} entries"),
            Err(failure) => failure,
        }
    });
}
