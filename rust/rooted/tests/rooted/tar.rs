use microsandbox_rooted::tar::{Entry, Error, Kind, Source, next_entry, skip_padding};
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
    let mut source = Pieces(bytes, 0);
    let mut found = Vec::new();
    while let Some(entry) = next_entry(&mut source, LONGEST)? {
        let mut content = vec![0; entry.size as usize];
        if !source.fill(&mut content) {
            return Err(Error::Malformed("short".into()));
        }
        skip_padding(&mut source, entry.size)?;
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
    let kinds: Vec<_> = found.iter().map(|(entry, _)| entry.kind.clone()).collect();
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
    let sized = pax(&[("size", "-1")]);
    let cases: [(&str, Vec<u8>); 9] = [
        ("a wrong checksum", damaged),
        ("a sparse entry", sparse.concat()),
        ("a GNU sparse entry", raw("f", EntryType::GNUSparse, 0, b"")),
        ("a directory with content", raw("d", EntryType::Directory, 512, &[b'x'; 512])),
        ("a link with content", raw("l", EntryType::Link, 512, &[b'x'; 512])),
        ("a global header that renames", raw("g", EntryType::XGlobalHeader, global.len() as u64, &global)),
        ("a size that is no number", raw("x", EntryType::XHeader, sized.len() as u64, &sized)),
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
    let mut source = Pieces(raw("x", EntryType::XHeader, LONGEST + 1, b""), 0);
    assert_eq!(next_entry(&mut source, LONGEST).unwrap_err(), Error::ExtensionTooLong);
}
