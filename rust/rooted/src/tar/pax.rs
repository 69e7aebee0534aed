//! Records of extended headers, `length key=value\n` each (POSIX.1-2001, pax). What a record means here is what GNU tar,
//! libarchive and Python agree on; a record that would change the meaning of an entry and is not known is refused.

use std::collections::BTreeMap;

use super::sparse::{Extent, Keys, Sparse};
use super::{Outcome, corrupt, quoted, unsupported};

/// Attributes of one entry.
const MAX_ATTRIBUTES: usize = 256;

/// Records that are about one entry.
#[derive(Default)]
pub struct Local {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    /// By name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse: Keys,
}

impl Local {
    pub fn read(&mut self, records: &[u8]) -> Outcome<()> {
        each_record(records, |key, value| {
            match key {
                b"path" => once(&mut self.path, name(value, "path")?, "path")?,
                b"linkpath" => once(&mut self.link, name(value, "linkpath")?, "linkpath")?,
                b"size" => once(&mut self.size, decimal(value, "size")?, "size")?,
                b"uid" => self.uid = Some(decimal_id(value, "uid")?),
                b"gid" => self.gid = Some(decimal_id(value, "gid")?),
                b"mtime" => self.mtime = Some(time(value)?),
                b"hdrcharset" => check_charset(value)?,
                _ => {
                    if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                        self.sparse.add(key, value)?;
                    } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.attribute(name.to_vec(), value.to_vec())?;
                    } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                        self.attribute(percent_decoded(name)?, base64_decoded(value)?)?;
                    } else {
                        refuse_unknown_form(key)?;
                    }
                }
            }
            Ok(())
        })
    }

    pub fn sparse(&self) -> Outcome<Option<Sparse>> {
        self.sparse.form()
    }

    /// bsdtar writes each attribute in two spellings.
    fn attribute(&mut self, name: Vec<u8>, value: Vec<u8>) -> Outcome<()> {
        match self.xattrs.get(&name) {
            Some(known) if *known != value => {
                Err(corrupt(format!("an extended header has two values of the attribute {}", quoted(&name))))
            }
            Some(_) => Ok(()),
            None if self.xattrs.len() == MAX_ATTRIBUTES => {
                let most = format!("an entry has more than {MAX_ATTRIBUTES} extended attributes");
                Err(unsupported(format!("{most}, which is not supported; the next is {}", quoted(&name))))
            }
            None => {
                self.xattrs.insert(name, value);
                Ok(())
            }
        }
    }
}

/// Records that are about all entries that follow.
#[derive(Default)]
pub struct Global {
    /// `git archive` writes one for dates that the header cannot hold.
    pub mtime: Option<(i64, u32)>,
    /// The first thousand; longer ones than a path are no names.
    pub comments: Vec<Vec<u8>>,
}

/// Comments that are kept, and their bytes.
const MAX_COMMENTS: usize = 1000;
const LONGEST_COMMENT: usize = 8 << 10;

impl Global {
    /// A global header may say nothing that changes what the entries are: readers differ on how far it reaches.
    pub fn read(&mut self, records: &[u8]) -> Outcome<()> {
        each_record(records, |key, value| match key {
            b"path" | b"linkpath" | b"size" | b"uid" | b"gid" => Err(changes_entries(key)),
            b"mtime" => {
                self.mtime = Some(time(value)?);
                Ok(())
            }
            b"hdrcharset" => check_charset(value),
            b"comment" => {
                if self.comments.len() < MAX_COMMENTS && value.len() <= LONGEST_COMMENT {
                    self.comments.push(value.to_vec());
                }
                Ok(())
            }
            _ => {
                let of_entries: [&[u8]; 3] = [b"GNU.sparse.", b"SCHILY.xattr.", b"LIBARCHIVE.xattr."];
                if of_entries.iter().any(|prefix| key.starts_with(prefix)) {
                    return Err(changes_entries(key));
                }
                refuse_unknown_form(key)
            }
        })
    }
}

fn changes_entries(key: &[u8]) -> super::Error {
    corrupt(format!("a global header sets {} of the entries, which readers interpret differently", quoted(key)))
}

/// Records of forms whose content is not that of the file.
fn refuse_unknown_form(key: &[u8]) -> Outcome<()> {
    let form = match key {
        b"SCHILY.realsize" => "a sparse file in the form of star",
        b"SUN.holesdata" => "a sparse file in the form of Solaris",
        b"SCHILY.offset" => "a part of a file of star",
        b"SCHILY.filetype" => "an entry of an incremental dump of star",
        b"GNU.volume.filename" | b"GNU.volume.size" | b"GNU.volume.offset" => "a part of an archive of several volumes",
        _ => return Ok(()),
    };
    Err(unsupported(format!("an extended header describes {form} ({}), which is not supported", quoted(key))))
}

/// Names are bytes here, whatever their alphabet; these two say no more than that.
fn check_charset(value: &[u8]) -> Outcome<()> {
    match value {
        b"BINARY" | b"ISO-IR 10646 2000 UTF-8" => Ok(()),
        other => Err(unsupported(format!("the names of the tar are in {}, which is not supported", quoted(other)))),
    }
}

/// Calls `take` with every record.
fn each_record(mut records: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Outcome<()>) -> Outcome<()> {
    let broken = || corrupt("an extended header is malformed");
    while !records.is_empty() {
        let space = records.iter().take(20).position(|&byte| byte == b' ').ok_or_else(broken)?;
        let digits = std::str::from_utf8(&records[..space]).map_err(|_| broken())?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(broken());
        }
        let len: usize = digits.parse().map_err(|_| broken())?;
        if len <= space + 1 || len > records.len() || records[len - 1] != b'\n' {
            return Err(broken());
        }
        let record = &records[space + 1..len - 1];
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(broken)?;
        take(&record[..equals], &record[equals + 1..])?;
        records = &records[len..];
    }
    Ok(())
}

/// Sets what two records may only say alike.
pub fn once<T: PartialEq>(slot: &mut Option<T>, value: T, what: &str) -> Outcome<()> {
    match slot {
        Some(known) if *known != value => Err(corrupt(format!("an extended header has two values of {what}"))),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// An empty record takes an earlier one back, for some readers.
pub fn name(value: &[u8], what: &str) -> Outcome<Vec<u8>> {
    if value.is_empty() {
        return Err(corrupt(format!("an extended header has an empty {what}")));
    }
    Ok(value.to_vec())
}

pub fn decimal(value: &[u8], what: &str) -> Outcome<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok())
        .filter(|number| *number <= i64::MAX as u64)
        .ok_or_else(|| corrupt(format!("an extended header has a {what} that is no number")))
}

fn decimal_id(value: &[u8], what: &str) -> Outcome<u32> {
    u32::try_from(decimal(value, what)?).map_err(|_| corrupt(format!("an extended header has a too large {what}")))
}

/// `[-]seconds[.fraction]`.
fn time(value: &[u8]) -> Outcome<(i64, u32)> {
    let broken = || corrupt(format!("an extended header has the time {}, which is no number", quoted(value)));
    let text = std::str::from_utf8(value).map_err(|_| broken())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = seconds.strip_prefix('-').unwrap_or(seconds);
    if digits.is_empty() || !digits.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(broken());
    }
    let seconds: i64 = seconds.parse().map_err(|_| broken())?;
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    // Before the epoch the fraction counts backwards.
    if text.starts_with('-') && nanos > 0 {
        return Ok((seconds.checked_sub(1).ok_or_else(broken)?, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

/// `%41` is `A`.
fn percent_decoded(name: &[u8]) -> Outcome<Vec<u8>> {
    let broken = || corrupt(format!("the name of the attribute {} is malformed", quoted(name)));
    let digit = |at: usize| name.get(at).and_then(|&byte| char::from(byte).to_digit(16)).ok_or_else(broken);
    let (mut out, mut at) = (Vec::with_capacity(name.len()), 0);
    while at < name.len() {
        if name[at] == b'%' {
            // Two hexadecimal digits fit.
            out.push((digit(at + 1)? * 16 + digit(at + 2)?) as u8);
            at += 3;
        } else {
            out.push(name[at]);
            at += 1;
        }
    }
    Ok(out)
}

/// By hand: a dependency would be linked into the agent for this one record of bsdtar.
fn base64_decoded(text: &[u8]) -> Outcome<Vec<u8>> {
    let broken = || corrupt("the value of an attribute is not base 64");
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let (mut out, mut held, mut bits) = (Vec::with_capacity(text.len() / 4 * 3 + 2), 0u32, 0);
    for &byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(broken()),
        };
        held = held << 6 & 0xfff | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            // The upper bits were taken before.
            out.push((held >> bits & 0xff) as u8);
        }
    }
    // One character alone holds no byte.
    if text.len() % 4 == 1 { Err(broken()) } else { Ok(out) }
}

/// `offset,length,offset,length…`
pub fn list(value: &[u8]) -> Outcome<Vec<Extent>> {
    let numbers = value.split(|&byte| byte == b',').map(|part| decimal(part, "map of a sparse file"));
    let numbers = numbers.collect::<Outcome<Vec<u64>>>()?;
    if numbers.len() % 2 == 1 {
        return Err(corrupt("the map of a sparse file is incomplete"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| Extent { offset: pair[0], length: pair[1] }).collect())
}
