use microsandbox_rooted::tar::{Archive, Entry, Error, Kind, Source};
use tar::{Builder, EntryType, Header};

const LONGEST: u64 = 1 << 20;

/// Hands out bytes in pieces of a prime length, so that no header arrives whole.
struct Pieces(Vec<u8>, usize);

impl Source for Pieces {
    fn next(&mut self, most: u64) -> &[u8] {
        let start = self.1.min(self.0.len());
        let end = self.0.len().min(start + usize::try_from(most).unwrap_or(usize::MAX).min(97));
        self.1 = end;
        &self.0[start..end]
    }
}

fn read(bytes: Vec<u8>) -> Result<Vec<(Entry, Vec<u8>)>, Error> {
    let mut archive = Archive::new(Pieces(bytes, 0), LONGEST);
    let mut found = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = vec![0; entry.size as usize];
        while let Some((at, piece)) = archive.piece()? {
            content[at as usize..at as usize + piece.len()].copy_from_slice(piece);
        }
        found.push((entry, content));
    }
    Ok(found)
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header.set_size(size);
    header
}

fn archive(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

fn raw(name: &str, kind: EntryType, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, size);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let len = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap() + rest;
        text.extend_from_slice(format!("{len} {key}={value}\n").as_bytes());
    }
    text
}

#[test]
fn every_kind_of_entry_is_read_with_its_attributes() {
    let long = "n".repeat(300);
    let bytes = archive(|tar| {
        tar.append_data(&mut header(EntryType::Directory, 0), "d", &b""[..]).unwrap();
        tar.append_data(&mut header(EntryType::Regular, 5), &long, &b"hello"[..]).unwrap();
        tar.append_link(&mut header(EntryType::Symlink, 0), "s", "target").unwrap();
        tar.append_link(&mut header(EntryType::Link, 0), "h", &long).unwrap();
        tar.append_data(&mut header(EntryType::Fifo, 0), "p", &b""[..]).unwrap();
        tar.append_data(&mut header(EntryType::Char, 0), "c", &b""[..]).unwrap();
    });
    let found = read(bytes).unwrap();
    let kinds: Vec<_> = found.iter().map(|(entry, _)| entry.kind).collect();
    assert_eq!(kinds, [Kind::Dir, Kind::File, Kind::Symlink, Kind::Hardlink, Kind::Fifo, Kind::Device]);
    let (file, content) = &found[1];
    assert_eq!((file.path.as_slice(), content.as_slice()), (long.as_bytes(), &b"hello"[..]));
    assert_eq!((file.mode, file.uid, file.gid, file.mtime), (0o644, 1, 2, (3, 0)));
    assert_eq!((found[2].0.link.as_slice(), found[3].0.link.as_slice()), (&b"target"[..], long.as_bytes()));
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let damaged = {
        let mut bytes = raw("f", EntryType::Regular, 0, b"");
        bytes[0] = b'g';
        bytes
    };
    let sparse = [
        raw(
            "x",
            EntryType::XHeader,
            pax(&[("GNU.sparse.major", "1")]).len() as u64,
            &pax(&[("GNU.sparse.major", "1")]),
        ),
        raw("f", EntryType::Regular, 0, b""),
    ];
    let global = pax(&[("path", "elsewhere")]);
    let twice = [raw("x", EntryType::XHeader, 0, b""), raw("x", EntryType::XHeader, 0, b"")];
    let two_paths = pax(&[("path", "one"), ("path", "two")]);
    let no_path = pax(&[("path", "")]);
    let times = pax(&[("mtime", "soon")]);
    let sized = pax(&[("size", "-1")]);
    let extended = |records: &[u8]| raw("x", EntryType::XHeader, records.len() as u64, records);
    let cases: [(&str, Vec<u8>); 13] = [
        ("a wrong checksum", damaged),
        ("a sparse entry", sparse.concat()),
        ("a directory with content", raw("d", EntryType::Directory, 512, &[b'x'; 512])),
        ("a link with content", raw("l", EntryType::Link, 512, &[b'x'; 512])),
        ("a global header that renames", raw("g", EntryType::XGlobalHeader, global.len() as u64, &global)),
        ("a size that is no number", extended(&sized)),
        ("two extended headers", [twice.concat(), raw("f", EntryType::Regular, 0, b"")].concat()),
        ("two paths", extended(&two_paths)),
        ("an empty path", extended(&no_path)),
        ("a time that is no number", extended(&times)),
        ("an entry without a name", raw("", EntryType::Regular, 0, b"")),
        ("an end inside a header", raw("f", EntryType::Regular, 0, b"")[..100].to_vec()),
        ("an extended header without an entry", raw("x", EntryType::XHeader, 0, b"")),
    ];
    for (what, bytes) in cases {
        assert!(matches!(read(bytes), Err(Error::Malformed(_))), "{what}");
    }
}

#[test]
fn two_long_names_and_a_nul_are_refused() {
    let twice = [
        raw("././@LongLink", EntryType::GNULongName, 1, b"a"),
        raw("././@LongLink", EntryType::GNULongName, 1, b"b"),
        raw("f", EntryType::Regular, 0, b""),
    ];
    assert!(matches!(read(twice.concat()), Err(Error::Malformed(_))));
    let records = pax(&[("path", "a\0b")]);
    let nul = [raw("x", EntryType::XHeader, records.len() as u64, &records), raw("f", EntryType::Regular, 0, b"")];
    assert!(matches!(read(nul.concat()), Err(Error::UnsafeName(_))));
}

#[test]
fn an_extended_header_longer_than_allowed_is_not_read() {
    let source = Pieces(raw("x", EntryType::XHeader, LONGEST + 1, b""), 0);
    assert_eq!(Archive::new(source, LONGEST).next_entry().unwrap_err(), Error::ExtensionTooLong);
}

/// A header of GNU tar with the map of a sparse file in it.
fn sparse(size: u64, stored: &[u8], pairs: &[(u64, u64)], more: &[&[(u64, u64)]]) -> Vec<u8> {
    let mut header = header(EntryType::GNUSparse, stored.len() as u64);
    let bytes = header.as_mut_bytes();
    bytes[0] = b's';
    put_pairs(&mut bytes[386..482], pairs);
    bytes[482] = u8::from(!more.is_empty());
    bytes[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header.set_cksum();
    let mut whole = header.as_bytes().to_vec();
    for (index, pairs) in more.iter().enumerate() {
        let mut block = [0; 512];
        put_pairs(&mut block[..504], pairs);
        block[504] = u8::from(index + 1 < more.len());
        whole.extend_from_slice(&block);
    }
    whole.extend_from_slice(stored);
    whole.resize(whole.len().next_multiple_of(512), 0);
    whole
}

fn put_pairs(field: &mut [u8], pairs: &[(u64, u64)]) {
    for (place, (offset, length)) in field.chunks_mut(24).zip(pairs) {
        place.copy_from_slice(format!("{offset:011o}\0{length:011o}\0").as_bytes());
    }
}

fn with_records(records: &[(&str, &str)], size: u64, content: &[u8]) -> Vec<u8> {
    let records = pax(records);
    let extended = raw("x", EntryType::XHeader, records.len() as u64, &records);
    [extended, raw("GNUSparseFile.0/f", EntryType::Regular, size, content), raw("after", EntryType::Regular, 0, b"")]
        .concat()
}

#[test]
fn sparse_files_are_read_in_each_of_their_forms() {
    let data = [b'a'; 512];
    let map = {
        let mut map = b"2\n1024\n512\n4096\n0\n".to_vec();
        map.resize(512, 0);
        [&map[..], &data].concat()
    };
    let dotted = [("GNU.sparse.size", "4096"), ("GNU.sparse.numblocks", "1")];
    let forms = [
        sparse(4096, &data, &[(1024, 512), (4096, 0)], &[]),
        sparse(4096, &data, &[(0, 0), (0, 0), (0, 0), (0, 0)], &[&[(1024, 512)]]),
        with_records(
            &[&dotted[..], &[("GNU.sparse.offset", "1024"), ("GNU.sparse.numbytes", "512")]].concat(),
            512,
            &data,
        ),
        with_records(&[&dotted[..], &[("GNU.sparse.map", "1024,512"), ("GNU.sparse.name", "s")]].concat(), 512, &data),
        with_records(
            &[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "s"),
                ("GNU.sparse.realsize", "4096"),
            ],
            1024,
            &map,
        ),
    ];
    let whole = [&[0; 1024][..], &data, &[0; 2560]].concat();
    for (index, bytes) in forms.into_iter().enumerate() {
        let found = read(bytes).unwrap_or_else(|error| panic!("form {index}: {error}"));
        let (entry, content) = &found[0];
        assert!(entry.is_sparse && entry.size == 4096 && *content == whole, "form {index}");
        assert!(entry.path == b"s" || index == 2, "form {index}");
    }
}

#[test]
fn a_map_that_does_not_fit_its_file_is_refused() {
    let data = [b'a'; 1024];
    let version = |major, minor| {
        with_records(
            &[("GNU.sparse.major", major), ("GNU.sparse.minor", minor), ("GNU.sparse.realsize", "4096")],
            1024,
            &data,
        )
    };
    let dotted = |map| {
        with_records(
            &[("GNU.sparse.size", "4096"), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", map)],
            1024,
            &data,
        )
    };
    let malformed = [
        ("overlapping parts", sparse(4096, &data, &[(0, 512), (256, 512)], &[])),
        ("a part beyond the end", sparse(1024, &data, &[(512, 1024)], &[])),
        ("content that no part accounts for", sparse(4096, &data, &[(0, 512)], &[])),
        ("a gap in the map", sparse(4096, &data, &[(0, 1024)], &[&[(2048, 0)]])),
        ("a part that is no block", sparse(4096, &data, &[(0, 1000), (2000, 24)], &[])),
        ("a map that is no text", version("1", "0")),
        ("half a pair", dotted("0")),
        ("another count", dotted("0,512,1024,512")),
        ("no map", with_records(&[("GNU.sparse.size", "4096")], 1024, &data)),
        ("no size", with_records(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")], 1024, &data)),
    ];
    for (what, bytes) in malformed {
        assert!(matches!(read(bytes), Err(Error::Malformed(_))), "{what}");
    }
    assert!(matches!(read(version("2", "0")), Err(Error::Unsupported(text)) if text.contains("2.0")));
}

// hazard: I9
#[test]
fn forms_that_are_not_known_are_refused_by_name() {
    let star = |mut bytes: Vec<u8>, kind: u8| {
        bytes[156] = kind;
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        bytes[508..512].copy_from_slice(b"tar\0");
        let mut header = Header::from_byte_slice(&bytes[..512]).clone();
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let cases = [
        (star(raw("f", EntryType::Regular, 0, b""), b'S'), "sparse file in the form of star"),
        (raw("f", EntryType::new(b'M'), 0, b""), "another volume"),
        (raw("f", EntryType::new(b'N'), 0, b""), "old GNU tar"),
        (raw("f", EntryType::new(b'X'), 0, b""), "Solaris"),
        (raw("f", EntryType::new(b'Q'), 0, b""), "type 'Q'"),
        (with_records(&[("SCHILY.realsize", "9")], 0, b""), "SCHILY.realsize"),
        (with_records(&[("SUN.holesdata", " 0 9")], 0, b""), "SUN.holesdata"),
        (with_records(&[("GNU.volume.offset", "9")], 0, b""), "GNU.volume.offset"),
        (with_records(&[("hdrcharset", "KOI8-R")], 0, b""), "KOI8-R"),
    ];
    for (bytes, named) in cases {
        let error = read(bytes).unwrap_err();
        assert!(matches!(&error, Error::Unsupported(text) if text.contains(named)), "{named}: {error}");
    }
}

#[test]
fn labels_comments_and_global_dates_are_no_entries() {
    let records = pax(&[("comment", "0123"), ("mtime", "77.5")]);
    let mut file = header(EntryType::Regular, 0);
    file.as_mut_bytes()[..1].copy_from_slice(b"f");
    // Before 1970, in two's complement.
    file.as_mut_bytes()[136..148].copy_from_slice(&[&[0xff; 11][..], &[0xfe]].concat());
    file.set_cksum();
    let plain = read(file.as_bytes().to_vec()).unwrap();
    assert_eq!(plain[0].0.mtime, (-2, 0));
    let global = raw("pax_global_header", EntryType::XGlobalHeader, records.len() as u64, &records);
    let label = raw("a volume", EntryType::new(b'V'), 0, b"");
    let found = read([global, label, file.as_bytes().to_vec()].concat()).unwrap();
    assert_eq!((found.len(), found[0].0.mtime), (1, (77, 500_000_000)));
}

#[test]
fn content_that_is_not_taken_is_passed_over() {
    let dump = raw("d", EntryType::new(b'D'), 5, b"Yf\0\0\0");
    let bytes = [dump, raw("f", EntryType::Regular, 600, &[b'x'; 600]), raw("g", EntryType::Regular, 1, b"y")].concat();
    let mut archive = Archive::new(Pieces(bytes, 0), LONGEST);
    let mut names = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        names.push((entry.kind, entry.path));
    }
    assert_eq!(names, [(Kind::Dir, b"d".to_vec()), (Kind::File, b"f".to_vec()), (Kind::File, b"g".to_vec())]);
}

#[test]
fn attributes_are_read_in_both_of_their_spellings() {
    let said =
        [("SCHILY.xattr.user.a", "one"), ("LIBARCHIVE.xattr.user.a", "b25l"), ("LIBARCHIVE.xattr.user.%C3%A9", "AQI")];
    let found = read(with_records(&said, 0, b"")).unwrap();
    let wanted = [(b"user.a".to_vec(), b"one".to_vec()), ("user.\u{e9}".as_bytes().to_vec(), vec![1, 2])];
    assert_eq!(found[0].0.xattrs, wanted);
    let differ = with_records(&[("SCHILY.xattr.user.a", "one"), ("LIBARCHIVE.xattr.user.a", "dHdv")], 0, b"");
    assert!(matches!(read(differ), Err(Error::Malformed(_))));
}

// hazard: F5
#[test]
fn attributes_of_an_entry_are_limited_in_number() {
    let named: Vec<String> = (0..257).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let records: Vec<(&str, &str)> = named.iter().map(|name| (name.as_str(), "v")).collect();
    // Each in two spellings is one.
    let twice = [&records[..256], &records[..256]].concat();
    assert_eq!(read(with_records(&twice, 0, b"")).unwrap()[0].0.xattrs.len(), 256);
    let error = read(with_records(&records, 0, b"")).unwrap_err();
    assert!(matches!(&error, Error::Unsupported(text) if text.contains("256") && text.contains("user.256")), "{error}");
}
