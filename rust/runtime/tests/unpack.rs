//! Unpacking: hostile archives (hazards group I) and awkward but legal ones, compared with GNU tar where it can tell.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::support::*;
use microsandbox_contract::*;
use sha2::{Digest, Sha256};

const IDS: IdMap = IdMap::Range { base: BASE, count: 65_536 };

/// A tar under construction.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn header(mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, size_field: &[u8; 12]) -> Tar {
        let mut block = [0u8; 512];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(size_field);
        block[136..148].copy_from_slice(b"14000000000\0");
        block[148..156].copy_from_slice(b"        ");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    fn content(mut self, content: &[u8]) -> Tar {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().div_ceil(512) * 512, 0);
        self
    }

    fn entry(self, kind: u8, name: &str, link: &str, mode: u32, content: &[u8]) -> Tar {
        let size: [u8; 12] = format!("{:011o}\0", content.len()).into_bytes().try_into().unwrap();
        self.header(kind, name.as_bytes(), link.as_bytes(), mode, &size).content(content)
    }

    fn file(self, name: &str, content: &str) -> Tar {
        self.entry(b'0', name, "", 0o644, content.as_bytes())
    }

    fn dir(self, name: &str) -> Tar {
        self.entry(b'5', name, "", 0o755, b"")
    }

    fn symlink(self, name: &str, to: &str) -> Tar {
        self.entry(b'2', name, to, 0o777, b"")
    }

    fn hardlink(self, name: &str, to: &str) -> Tar {
        self.entry(b'1', name, to, 0o644, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut text = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut len = body.len() + 1;
            while len.to_string().len() + body.len() != len {
                len = len.to_string().len() + body.len();
            }
            text.extend_from_slice(len.to_string().as_bytes());
            text.extend_from_slice(&body);
        }
        self.entry(b'x', "pax", "", 0o644, &text)
    }

    fn done(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn layer(blob: &[u8], tar: &[u8], compression: Compression, target: &Path, beneath: &[PathBuf]) -> LayerSource {
    LayerSource {
        source: 0,
        offset: 0,
        length: blob.len() as u64,
        compression,
        blob_digest: digest(blob),
        diff_id: digest(tar),
        target: target.to_path_buf(),
        beneath: beneath.to_vec(),
    }
}

fn run(blob: &[u8], layers: Vec<LayerSource>, limits: ImageLimits) -> Vec<Report> {
    let memory = rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(memory);
    file.write_all(blob).unwrap();
    let job = Job::Unpack(UnpackSpec {
        version: LAUNCH_VERSION,
        ids: IDS,
        sources: 1,
        layers,
        limits,
        headroom: Headroom::Bytes(0),
    });
    let mut runtime = start_with(&job, vec![file.into()]);
    let reports = runtime.reports();
    let code = runtime.wait();
    assert_eq!(code == 0, matches!(reports.last(), Some(Report::Done)), "{reports:?}");
    reports
}

/// Unpacks an uncompressed layer into a fresh directory.
fn unpack_over(scratch: &Scratch, name: &str, tar: &[u8], beneath: &[PathBuf]) -> Result<PathBuf, JobError> {
    let target = scratch.sandbox(name);
    let layers = vec![layer(tar, tar, Compression::None, &target, beneath)];
    match run(tar, layers, ImageLimits::default()).pop() {
        Some(Report::Done) => Ok(target),
        Some(Report::Failed(error)) => {
            // K7: an image has many layers.
            assert!(error.message.contains(&digest(tar)), "{error:?}");
            Err(error)
        }
        other => panic!("{other:?}"),
    }
}

fn unpack(scratch: &Scratch, name: &str, tar: Tar) -> Result<PathBuf, JobError> {
    unpack_over(scratch, name, &tar.done(), &[])
}

fn refused(scratch: &Scratch, tar: Tar, kind: JobErrorKind) -> JobError {
    let error = unpack(scratch, "refused", tar).expect_err("was unpacked");
    assert_eq!(error.kind, kind, "{error:?}");
    assert!(!error.hint.is_empty() && !error.message.contains('\x1b'));
    error
}

fn scratch(name: &str) -> Option<Scratch> {
    is_root().then(|| Scratch::new(name))
}

// hazard: I1
#[test]
fn names_that_leave_the_root_are_refused_or_clamped() {
    let Some(scratch) = scratch("i1") else { return };
    for name in ["../../x", "a/../../x", "./../x", "a/..", ".."] {
        let error = refused(&scratch, Tar::default().file(name, "x"), JobErrorKind::UnsafeEntry);
        assert!(error.message.contains(name), "{error:?}");
    }
    let error = refused(&scratch, Tar::default().file("\x1b[31m/../x", "x"), JobErrorKind::UnsafeEntry);
    assert!(error.message.contains("\\u{1b}"), "{error:?}");
    let at = unpack(&scratch, "clamped", Tar::default().file("/abs/file", "x").file("back\\slash\\..", "y")).unwrap();
    assert_eq!(read(at.join("abs/file")), "x");
    assert_eq!(read(at.join("back\\slash\\..")), "y");
}

// hazard: I2
#[test]
fn absolute_symlinks_are_kept_as_they_are() {
    let Some(scratch) = scratch("i2") else { return };
    let at = unpack(&scratch, "l", Tar::default().symlink("bin", "/usr/bin").dir("usr").dir("usr/bin")).unwrap();
    assert_eq!(std::fs::read_link(at.join("bin")).unwrap(), Path::new("/usr/bin"));
}

// hazard: I3
#[test]
fn nothing_is_written_through_a_symlink_out_of_the_root() {
    let Some(scratch) = scratch("i3") else { return };
    let outside = scratch.sandbox("outside");
    let to = outside.to_str().unwrap();
    let at = unpack(&scratch, "same", Tar::default().symlink("d", to).file("d/p", "x")).unwrap();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(read(at.join(&to[1..]).join("p")), "x", "the link is followed within the root");
    let at = unpack(&scratch, "up", Tar::default().symlink("d", "../../../../../../etc").file("d/p", "x")).unwrap();
    assert_eq!(read(at.join("etc/p")), "x");
    let lower = unpack(&scratch, "lower", Tar::default().symlink("d", to)).unwrap();
    let at = unpack_over(&scratch, "upper", &Tar::default().file("d/p", "x").done(), &[lower]).unwrap();
    assert_eq!(read(at.join(&to[1..]).join("p")), "x");
    let tar = Tar::default().symlink("d", to).hardlink("e", "d").file("e/p", "x");
    let at = unpack(&scratch, "hard", tar).unwrap();
    assert_eq!(read(at.join(&to[1..]).join("p")), "x");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // The last name is never followed: the link itself is replaced.
    let at = unpack(&scratch, "last", Tar::default().symlink("f", "/etc/passwd").file("f", "mine")).unwrap();
    assert_eq!(read(at.join("f")), "mine");
    refused(&scratch, Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", ""), JobErrorKind::UnsafeEntry);
}

// hazard: I4
#[test]
fn hard_links_stay_in_the_image() {
    let Some(scratch) = scratch("i4") else { return };
    refused(&scratch, Tar::default().hardlink("h", "../../etc/passwd"), JobErrorKind::UnsafeEntry);
    refused(&scratch, Tar::default().hardlink("h", "/etc/passwd"), JobErrorKind::UnsafeEntry);
    refused(&scratch, Tar::default().hardlink("h", "later").file("later", "x"), JobErrorKind::UnsafeEntry);
    refused(&scratch, Tar::default().dir("d").hardlink("h", "d"), JobErrorKind::UnsafeEntry);
    refused(&scratch, Tar::default().symlink("d", "/etc").hardlink("h", "d/passwd"), JobErrorKind::UnsafeEntry);
    let at = unpack(&scratch, "ok", Tar::default().file("a", "x").hardlink("b", "a").hardlink("a", "a")).unwrap();
    assert_eq!(std::fs::metadata(at.join("a")).unwrap().nlink(), 2);
    let tar = Tar::default().hardlink("c", "a").done();
    let over = unpack_over(&scratch, "over", &tar, &[at]).unwrap();
    assert_eq!((read(over.join("a")), read(over.join("c"))), ("x".into(), "x".into()));
    assert_eq!(std::fs::metadata(over.join("c")).unwrap().nlink(), 2);
}

// hazard: I5
#[test]
fn metadata_is_never_set_through_a_link() {
    let Some(scratch) = scratch("i5") else { return };
    let victim = scratch.0.join("victim");
    std::fs::write(&victim, "x").unwrap();
    let before = std::fs::metadata(&victim).unwrap();
    let link = victim.to_str().unwrap();
    let tar = Tar::default().symlink("d", link).entry(b'5', "d", "", 0o4777, b"");
    let at = unpack(&scratch, "l", tar).unwrap();
    assert!(std::fs::symlink_metadata(at.join("d")).unwrap().is_dir());
    let tar = Tar::default().symlink("s", link).entry(b'2', "s", link, 0o777, b"");
    unpack(&scratch, "m", tar).unwrap();
    let after = std::fs::metadata(&victim).unwrap();
    assert_eq!((before.mode(), before.uid(), before.mtime()), (after.mode(), after.uid(), after.mtime()));
}

// hazard: I7
#[test]
fn special_bits_are_kept_as_bits_and_capabilities_dropped() {
    let Some(scratch) = scratch("i7") else { return };
    let value = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = Tar::default()
        .pax(&[("SCHILY.xattr.security.capability", value), ("SCHILY.xattr.user.kept", b"yes")])
        .entry(b'0', "su", "", 0o4755, b"x");
    let at = unpack(&scratch, "l", tar).unwrap();
    let meta = std::fs::metadata(at.join("su")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o4755, BASE));
    let mut room = [0u8; 64];
    assert!(rustix::fs::getxattr(at.join("su"), "security.capability", &mut room[..]).is_err());
    assert_eq!(rustix::fs::getxattr(at.join("su"), "user.kept", &mut room[..]), Ok(3));
}

// hazard: I8
#[test]
fn whiteouts_mean_what_the_specification_says() {
    let Some(scratch) = scratch("i8") else { return };
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.."] {
        refused(&scratch, Tar::default().dir("d").file(name, ""), JobErrorKind::UnsafeEntry);
    }
    let tar = Tar::default()
        .file("d/before", "x")
        .file("d/.wh..wh..opq", "")
        .file("d/after", "y")
        .file(".wh.gone", "")
        .file(".wh.again", "")
        .dir("again")
        .file("stays", "z")
        .file(".wh.stays", "")
        .file(".wh..wh.plnk", "")
        .entry(b'3', "char", "", 0o600, b"")
        .pax(&[("SCHILY.xattr.user.overlay.opaque", b"y"), ("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir("foreign");
    let at = unpack(&scratch, "l", tar).unwrap();
    let opaque = |name: &str| {
        let mut room = [0u8; 4];
        rustix::fs::getxattr(at.join(name), "user.overlay.opaque", &mut room[..]) == Ok(1) && room[0] == b'y'
    };
    assert!(opaque("d") && opaque("again") && !opaque("foreign"));
    assert_eq!((read(at.join("d/before")), read(at.join("d/after"))), ("x".into(), "y".into()));
    let gone = std::fs::symlink_metadata(at.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(read(at.join("stays")), "z");
    assert!(!at.join("char").exists(), "a device of the image was made");
    let names: Vec<_> = std::fs::read_dir(&at).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().starts_with(".wh.")), "{names:?}");
}

// hazard: I9
#[test]
fn what_readers_could_disagree_on_is_refused() {
    let Some(scratch) = scratch("i9") else { return };
    // A longer PAX size hides the entry that the header's size would show; everybody must see the PAX size.
    let hidden = Tar::default().file("hidden", "h").0;
    let tar = Tar::default()
        .pax(&[("size", hidden.len().to_string().as_bytes())])
        .header(b'0', b"outer", b"", 0o644, b"00000000000\0")
        .content(&hidden);
    let at = unpack(&scratch, "pax", tar).unwrap();
    assert!(!at.join("hidden").exists());
    assert_eq!(std::fs::metadata(at.join("outer")).unwrap().len(), hidden.len() as u64);
    let negative = [0xff; 12];
    refused(&scratch, Tar::default().header(b'0', b"n", b"", 0o644, &negative), JobErrorKind::CorruptLayer);
    let tar = Tar::default().pax(&[("path", b"one")]).entry(b'L', "././@LongLink", "", 0o644, b"two\0").file("x", "");
    refused(&scratch, tar, JobErrorKind::CorruptLayer);
    refused(&scratch, Tar::default().pax(&[("path", b"a\0b")]).file("x", ""), JobErrorKind::UnsafeEntry);
    refused(&scratch, Tar::default().entry(b'5', "d", "", 0o755, b"content"), JobErrorKind::CorruptLayer);
    let mut broken = Tar::default().file("x", "y");
    broken.0[0] ^= 1;
    refused(&scratch, broken, JobErrorKind::CorruptLayer);
    let mut cut = Tar::default().file("x", "y").0;
    cut.truncate(700);
    let error = unpack_over(&scratch, "cut", &cut, &[]).unwrap_err();
    assert_eq!(error.kind, JobErrorKind::CorruptLayer);
    let at = unpack(&scratch, "twice", Tar::default().file("a", "1").file("a", "2")).unwrap();
    assert_eq!(read(at.join("a")), "2");
}

fn limited(scratch: &Scratch, tar: &[u8], compression: Compression, blob: &[u8], limits: ImageLimits) -> JobError {
    let target = scratch.sandbox("limited");
    let reports = run(blob, vec![layer(blob, tar, compression, &target, &[])], limits);
    match reports.into_iter().last() {
        Some(Report::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

// hazard: I10
#[test]
fn each_limit_holds_and_is_named() {
    let Some(scratch) = scratch("i10") else { return };
    let tar = Tar::default().file("a/b/c", "12345").file("d", "678").done();
    let base = ImageLimits::default();
    let cases = [
        ("entries", ImageLimits { entries: 1, ..base }),
        ("path_depth", ImageLimits { path_depth: 2, ..base }),
        ("file_bytes", ImageLimits { file_bytes: 4, ..base }),
        ("layer_bytes", ImageLimits { layer_bytes: 7, ..base }),
        ("total_bytes", ImageLimits { total_bytes: 7, ..base }),
    ];
    for (name, limits) in cases {
        let error = limited(&scratch, &tar, Compression::None, &tar, limits);
        assert_eq!(error.kind, JobErrorKind::LimitExceeded);
        assert!(error.message.contains(&format!("image.{name}")) && error.hint.contains("raise"), "{error:?}");
    }
    // At the limits everything is fine.
    let exact = ImageLimits { entries: 2, path_depth: 3, file_bytes: 5, layer_bytes: 8, total_bytes: 8, ..base };
    let target = scratch.sandbox("exact");
    let reports = run(&tar, vec![layer(&tar, &tar, Compression::None, &target, &[])], exact);
    assert!(matches!(reports.last(), Some(Report::Done)), "{reports:?}");
    let long = Tar::default().pax(&[("comment", &[b'x'; 2000])]).file("a", "").done();
    let error = limited(&scratch, &long, Compression::None, &long, ImageLimits { pax_bytes: 1000, ..base });
    assert!(error.message.contains("image.pax_bytes"), "{error:?}");
    let zeros = Tar::default().entry(b'0', "zeros", "", 0o644, &vec![0; 100 << 20]).done();
    let error = limited(&scratch, &zeros, Compression::Gzip, &gzip(&zeros), base);
    assert!(error.message.contains("image.ratio"), "{error:?}");
    let inner = gzip(&gzip(&tar));
    let error = limited(&scratch, &tar, Compression::Gzip, &inner, base);
    assert_eq!(error.kind, JobErrorKind::CorruptLayer);
}

// hazard: I11
#[test]
fn digests_are_checked_before_a_layer_counts() {
    let Some(scratch) = scratch("i11") else { return };
    let tar = Tar::default().file("a", "x").done();
    let target = scratch.sandbox("l");
    let good = layer(&tar, &tar, Compression::None, &target, &[]);
    let wrong = digest(b"other");
    let upper = good.blob_digest.to_uppercase().replace("SHA256", "sha256");
    let cases = [
        LayerSource { blob_digest: wrong.clone(), ..good.clone() },
        LayerSource { diff_id: wrong, ..good.clone() },
        LayerSource { blob_digest: good.blob_digest.replace("sha256", "sha1"), ..good.clone() },
        LayerSource { diff_id: upper, ..good.clone() },
        LayerSource { diff_id: good.diff_id[..40].to_owned(), ..good.clone() },
    ];
    for source in cases {
        let reports = run(&tar, vec![source], ImageLimits::default());
        assert!(!reports.iter().any(|report| matches!(report, Report::Unpacked { .. })));
        assert!(
            matches!(reports.last(), Some(Report::Failed(error)) if error.kind == JobErrorKind::DigestMismatch),
            "{reports:?}"
        );
    }
    let reports = run(&tar, vec![good], ImageLimits::default());
    assert!(
        matches!(reports[..], [.., Report::Unpacked { layer: 0, bytes: 1, entries: 1 }, Report::Done]),
        "{reports:?}"
    );
}

// hazard: I13
#[test]
fn awkward_but_legal_layers() {
    let Some(scratch) = scratch("i13") else { return };
    // Merged /usr: the parent is a symlink of a layer beneath, and the directory it leads to keeps its attributes.
    let lower = Tar::default().dir("usr").entry(b'5', "usr/lib", "", 0o1775, b"").symlink("lib", "usr/lib");
    let lower = unpack(&scratch, "lower", lower).unwrap();
    let upper = Tar::default().file("lib/new.so", "x").done();
    let upper = unpack_over(&scratch, "upper", &upper, &[lower]).unwrap();
    assert_eq!(read(upper.join("usr/lib/new.so")), "x");
    assert!(std::fs::symlink_metadata(upper.join("lib")).is_err(), "the symlink beneath is shadowed");
    assert_eq!(std::fs::metadata(upper.join("usr/lib")).unwrap().mode() & 0o7777, 0o1775);
    let tar = Tar::default()
        .dir("t")
        .file("t/x", "")
        .file("t", "file")
        .dir("t")
        .file("t/y", "")
        .symlink("s", "/etc")
        .dir("s");
    let at = unpack(&scratch, "swap", tar).unwrap();
    assert!(!at.join("t/x").exists() && at.join("t/y").exists());
    assert!(std::fs::symlink_metadata(at.join("s")).unwrap().is_dir());
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let tar = Tar::default().pax(&[("path", long.as_bytes()), ("mtime", b"1000000000.5")]).file("short", "x");
    let at = unpack(&scratch, "long", tar).unwrap();
    let meta = std::fs::metadata(at.join(&long)).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 500_000_000));
    refused(&scratch, Tar::default().file("f", "x").file("f/below", "y"), JobErrorKind::UnsafeEntry);
    let tar = Tar::default().entry(b'6', "pipe", "", 0o600, b"").entry(b'0', "slash/", "", 0o755, b"");
    let at = unpack(&scratch, "kinds", tar).unwrap();
    assert!(std::fs::symlink_metadata(at.join("pipe")).unwrap().file_type().is_fifo());
    assert!(at.join("slash").is_dir());
}

#[test]
fn every_compression_gives_the_same_tree() {
    let Some(scratch) = scratch("compress") else { return };
    let text: String = (0..300_000).map(|n| format!("{n} ")).collect();
    let tar = Tar::default().file("big", &text).file("small", "s").done();
    let half = tar.len() / 2;
    let members = [gzip(&tar[..half]), gzip(&tar[half..])].concat();
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    for (name, compression, blob) in
        [("gz", Compression::Gzip, members), ("zst", Compression::Zstd, zstd), ("none", Compression::None, tar.clone())]
    {
        // The blob lies somewhere inside an archive.
        let archive = [&b"before"[..], &blob, b"after"].concat();
        let target = scratch.sandbox(name);
        let mut source = layer(&blob, &tar, compression, &target, &[]);
        source.offset = 6;
        let reports = run(&archive, vec![source], ImageLimits::default());
        assert!(matches!(reports.last(), Some(Report::Done)), "{name}: {reports:?}");
        assert_eq!(read(target.join("big")), text);
    }
    let mut wide = zstd::Encoder::new(Vec::new(), 3).unwrap();
    wide.window_log(24).unwrap();
    wide.write_all(&tar).unwrap();
    let wide = wide.finish().unwrap();
    let limits = ImageLimits { zstd_window_bytes: 1 << 20, ..ImageLimits::default() };
    let error = limited(&scratch, &tar, Compression::Zstd, &wide, limits);
    assert!(error.message.contains("image.zstd_window"), "{error:?}");
}

/// Kind, mode, size, links, time and content of everything in a tree.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_dir() {
                todo.push(path.clone());
                "dir".into()
            } else if meta.is_symlink() {
                format!("link {:?}", std::fs::read_link(&path).unwrap())
            } else {
                format!("file {} {}", meta.nlink(), digest(&std::fs::read(&path).unwrap()))
            };
            let line = format!("{what} {:o} {}.{}", meta.mode(), meta.mtime(), meta.mtime_nsec());
            all.insert(path.strip_prefix(root).unwrap().to_path_buf(), line);
        }
    }
    all
}

/// I13, differential: what GNU tar packs we unpack as GNU tar does, in each of its formats.
// hazard: I13
#[test]
fn trees_equal_those_of_gnu_tar() {
    let Some(scratch) = scratch("gnu") else { return };
    let source = scratch.sandbox("source");
    std::fs::create_dir_all(source.join("deep").join("x".repeat(60)).join("y".repeat(60))).unwrap();
    std::fs::write(source.join("deep").join("x".repeat(60)).join("y".repeat(60)).join("z"), "deep").unwrap();
    std::fs::write(source.join("a"), "content").unwrap();
    std::fs::hard_link(source.join("a"), source.join("b")).unwrap();
    std::os::unix::fs::symlink("../anywhere", source.join("l")).unwrap();
    std::fs::write(source.join("näme\nwith \\ odd"), "x").unwrap();
    for format in ["gnu", "pax", "ustar", "oldgnu"] {
        let archive = scratch.0.join(format!("{format}.tar"));
        let tar = |args: &[&str]| {
            #[allow(clippy::disallowed_methods, reason = "GNU tar is the oracle")]
            let done = std::process::Command::new("tar").args(args).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        let (archive_text, source_text) = (archive.to_str().unwrap(), source.to_str().unwrap());
        let format_flag = format!("--format={format}");
        tar(&[&format_flag, "--owner=0", "--group=0", "-cf", archive_text, "-C", source_text, "."]);
        let theirs = scratch.sandbox(&format!("{format}-theirs"));
        tar(&["-xpf", archive_text, "-C", theirs.to_str().unwrap()]);
        let ours = unpack_over(&scratch, &format!("{format}-ours"), &std::fs::read(&archive).unwrap(), &[]).unwrap();
        assert_eq!(listing(&ours), listing(&theirs), "{format}");
    }
}
