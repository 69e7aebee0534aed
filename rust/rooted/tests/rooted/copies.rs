//! A tree as an archive, and the archive as a tree.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use microsandbox_rooted::open::{Ceiling, Rule};
use microsandbox_rooted::pack::{Failure as Unpacked, Owners, Pack, Rules as PackRules};
use microsandbox_rooted::tar::write::{Head, end};
use microsandbox_rooted::tar::{Archive, Kind, Source};
use microsandbox_rooted::unpack::{Failure, Placed, Rules, Unpack};
use microsandbox_rooted::walk::{Bounds, Order, Step, Walk};
use rustix::io::Errno;

use super::deep::{nest, scratch};

struct Bytes(Vec<u8>, usize);

impl Source for Bytes {
    fn next(&mut self, most: u64) -> &[u8] {
        let start = self.1;
        self.1 = self.0.len().min(start + usize::try_from(most).unwrap_or(usize::MAX).min(997));
        &self.0[start..self.1]
    }
}

fn directory(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

/// In steps that are shorter than a header.
fn packed(path: &Path) -> Result<Vec<u8>, Unpacked> {
    let rules = PackRules { owners: Owners::Kept, mode: 0o7777, with_top: true };
    let mut pack = Pack::new(directory(path), rules).unwrap();
    let mut whole = Vec::new();
    loop {
        let (piece, is_last) = pack.step(300)?;
        whole.extend(piece);
        if is_last {
            return Ok(whole);
        }
    }
}

fn unpacked(bytes: Vec<u8>, base: &Path, links: bool) -> Result<(), Failure> {
    let parents = Rule { ceiling: Ceiling::Refused, links, mounts: true };
    let rules = Rules {
        parents,
        keeps_owners: false,
        file_mode: 0o777,
        directory_mode: 0o1777,
        makes_fifos: false,
        sets_top: true,
    };
    let mut unpack = Unpack::new(directory(base), rules);
    let mut archive = Archive::new(Bytes(bytes, 0), 1 << 20);
    while let Some(entry) = archive.next_entry().unwrap() {
        unpack.apply(&entry, &mut archive)?;
    }
    unpack.finish()
}

fn entry(kind: Kind, path: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let size = content.len() as u64;
    let mode = if kind == Kind::Dir { 0o755 } else { 0o644 };
    let head = Head { kind, path, link, size, mode, uid: 0, gid: 0, mtime: (1, 2), extents: None };
    let mut bytes = Vec::new();
    head.write(&mut bytes);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn a_tree_is_the_same_after_an_archive() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    let long = "l".repeat(200);
    std::fs::create_dir_all(from.join(&long).join("empty")).unwrap();
    std::fs::create_dir(&to).unwrap();
    std::fs::write(from.join(&long).join(&long), vec![7; 70_001]).unwrap();
    std::fs::hard_link(from.join(&long).join(&long), from.join("second")).unwrap();
    symlink("no/such/file", from.join("link")).unwrap();
    let holes = std::fs::File::create(from.join("holes")).unwrap();
    for part in 1..100 {
        holes.write_all_at(&[part; 10], u64::from(part) << 17).unwrap();
    }
    holes.set_len(100 << 17).unwrap();
    std::fs::set_permissions(from.join(&long), std::fs::Permissions::from_mode(0o500)).unwrap();
    std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o710)).unwrap();
    let bytes = packed(&from).unwrap();
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    unpacked(bytes, &to, true).unwrap();
    for name in ["holes", "second", &format!("{long}/{long}"), "link", &long, &format!("{long}/empty"), "."] {
        let (a, b) = (from.join(name).symlink_metadata().unwrap(), to.join(name).symlink_metadata().unwrap());
        let seen =
            |stat: &std::fs::Metadata| (stat.mode(), stat.mtime(), stat.mtime_nsec(), stat.is_file(), stat.nlink());
        assert_eq!(seen(&a), seen(&b), "{name}");
        if a.is_file() {
            assert!(std::fs::read(from.join(name)).unwrap() == std::fs::read(to.join(name)).unwrap(), "{name}");
            assert!(b.blocks() <= a.blocks() + 64, "{name}: {} blocks", b.blocks());
        }
    }
    assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("no/such/file"));
}

// hazard: F6
#[test]
fn nothing_is_written_through_a_link_that_leads_out() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    for (number, links) in [(0, true), (1, false)] {
        let base = scratch.path().join(format!("base{number}"));
        std::fs::create_dir(&base).unwrap();
        let bytes =
            [entry(Kind::Symlink, b"a", b"../outside", b""), entry(Kind::File, b"a/file", b"", b"x"), vec![0; 1024]];
        let error = unpacked(bytes.concat(), &base, links).unwrap_err();
        let wanted = if links { Errno::XDEV } else { Errno::LOOP };
        assert!(matches!(error, Failure::Io { errno, .. } if errno == wanted), "{error}");
        let linked = [entry(Kind::Hardlink, b"b", b"a/file", b""), vec![0; 1024]];
        assert!(unpacked(linked.concat(), &base, links).is_err());
        let named = [entry(Kind::File, b"../outside/file", b"", b"x"), vec![0; 1024]];
        assert!(matches!(unpacked(named.concat(), &base, links), Err(Failure::LeadsOut { .. })));
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_link_that_was_replaced_is_no_parent_any_more() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join("real")).unwrap();
    let bytes = [
        entry(Kind::Symlink, b"a", b"real", b""),
        entry(Kind::File, b"a/first", b"", b"1"),
        entry(Kind::Symlink, b"a", b"nowhere", b""),
        entry(Kind::File, b"a/second", b"", b"2"),
        vec![0; 1024],
    ];
    assert!(unpacked(bytes.concat(), scratch.path(), true).is_err());
    let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!((names(&scratch.path().join("real")), names(scratch.path())), (1, 2));
}

#[test]
fn a_cut_archive_leaves_no_part_of_a_file() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("f"), "old").unwrap();
    let mut bytes = entry(Kind::File, b"f", b"", &[9; 5000]);
    bytes.truncate(3000);
    assert!(matches!(unpacked(bytes, scratch.path(), true), Err(Failure::Archive(_))));
    assert_eq!(std::fs::read(scratch.path().join("f")).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn kinds_that_the_rules_leave_out_are_reported() {
    let scratch = tempfile::tempdir().unwrap();
    let rules = Rules {
        parents: Rule::BENEATH,
        keeps_owners: false,
        file_mode: 0o777,
        directory_mode: 0o1777,
        makes_fifos: false,
        sets_top: true,
    };
    let mut bytes = [entry(Kind::Fifo, b"p", b"", b""), entry(Kind::Device, b"d", b"", b"")].concat();
    end(&mut bytes);
    let mut unpack = Unpack::new(directory(scratch.path()), rules);
    let mut archive = Archive::new(Bytes(bytes, 0), 1 << 20);
    let fifo = archive.next_entry().unwrap().unwrap();
    assert_eq!(unpack.apply(&fifo, &mut archive).unwrap(), Placed::LeftOut);
    let device = archive.next_entry().unwrap().unwrap();
    assert!(matches!(unpack.apply(&device, &mut archive), Err(Failure::Refused { .. })));
}

#[test]
fn a_directory_that_was_there_keeps_its_mode_and_time() {
    let scratch = tempfile::tempdir().unwrap();
    let there = scratch.path().join("there");
    std::fs::create_dir(&there).unwrap();
    std::fs::set_permissions(&there, std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut bytes = entry(Kind::Dir, b"there", b"", b"");
    // A parent that no entry had named yet is made here as well.
    bytes.extend(entry(Kind::File, b"there/late/file", b"", b"1"));
    bytes.extend(entry(Kind::Dir, b"there/late", b"", b""));
    bytes.extend(entry(Kind::Dir, b"there/new", b"", b""));
    end(&mut bytes);
    unpacked(bytes.clone(), scratch.path(), false).unwrap();
    let seen =
        |name: &str| std::fs::metadata(there.join(name)).map(|stat| (stat.mode() & 0o7777, stat.mtime())).unwrap();
    assert_eq!(seen(".").0, 0o711);
    assert!(seen(".").1 > 1);
    assert_eq!((seen("late"), seen("new")), ((0o755, 1), (0o755, 1)));
    std::fs::set_permissions(there.join("new"), std::fs::Permissions::from_mode(0o700)).unwrap();
    unpacked(bytes, scratch.path(), false).unwrap();
    assert_eq!(seen("new").0, 0o700);
}

#[test]
fn holes_of_an_archive_are_zeros_over_old_content() {
    use microsandbox_rooted::replace::{Holes, open_existing, write_over, write_zeros};
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("f"), [7; 300]).unwrap();
    let file = open_existing(directory(scratch.path()), "f").unwrap();
    assert_eq!(std::fs::metadata(scratch.path().join("f")).unwrap().len(), 300, "opening changes nothing");
    write_zeros(&file, 0, 100).unwrap();
    write_over(&file, &[1; 300], 100, 300, &mut Holes::default()).unwrap();
    let wanted = [vec![0; 100], vec![1; 300]].concat();
    assert_eq!(std::fs::read(scratch.path().join("f")).unwrap(), wanted);
}

/// Names of 255 bytes: beyond the sixteenth level the kernel takes no path.
#[test]
fn a_path_that_the_kernel_does_not_take_is_copied() {
    const LEVELS: usize = 200;
    let scratch = scratch();
    let (tree, copy) = (scratch.path().join("tree"), scratch.path().join("copy"));
    for path in [&tree, &copy] {
        std::fs::create_dir(path).unwrap();
    }
    nest(&tree, LEVELS);
    let archive = packed(&tree).unwrap();
    for links in [true, false] {
        unpacked(archive.clone(), &copy, links).unwrap();
        let mut walk = Walk::new(directory(&copy), Order::Name, Bounds::WIDE).unwrap();
        let mut directories = 0;
        while let Some(step) = walk.step() {
            directories += usize::from(matches!(step.unwrap(), Step::Entry(_)));
        }
        assert_eq!(directories, LEVELS);
        microsandbox_rooted::remove::content(&copy).unwrap();
    }
    microsandbox_rooted::remove::tree(&tree).unwrap();
}

#[test]
fn directories_are_completed_before_they_fill_memory() {
    let scratch = tempfile::tempdir().unwrap();
    let attribute = vec![b'x'; 900_000];
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..30 {
        archive.append_pax_extensions([("SCHILY.xattr.user.large", &attribute[..])]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_path(format!("around/d{number}")).unwrap();
        header.set_mode(0o700);
        header.set_mtime(1_000_000 + number);
        header.set_size(0);
        header.set_cksum();
        archive.append(&header, &b""[..]).unwrap();
    }
    let bytes = archive.into_inner().unwrap();
    let parents = Rule { ceiling: Ceiling::Refused, links: false, mounts: true };
    let rules = Rules {
        parents,
        keeps_owners: true,
        file_mode: 0o777,
        directory_mode: 0o777,
        makes_fifos: false,
        sets_top: true,
    };
    let mut unpack = Unpack::new(directory(scratch.path()), rules);
    let mut archive = Archive::new(Bytes(bytes, 0), 1 << 20);
    while let Some(entry) = archive.next_entry().unwrap() {
        unpack.apply(&entry, &mut archive).unwrap();
    }
    let mtime = |number: u32| scratch.path().join(format!("around/d{number}")).metadata().unwrap().mtime();
    assert_eq!(mtime(0), 1_000_000, "its attributes are still in memory");
    assert_ne!(mtime(29), 1_000_029);
    unpack.finish().unwrap();
    assert!((0..30).all(|number| mtime(number) == 1_000_000 + i64::from(number)));
}
