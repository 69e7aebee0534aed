//! One block of a header. The dialect decides what the room after the names means: a prefix of the name (ustar), or
//! times and the map of a sparse file (GNU).

use super::{BLOCK, Kind, Outcome, corrupt, quoted, unsupported, until_nul};

/// Whose header it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Before POSIX: a name, a link and numbers.
    V7,
    /// POSIX.1-1988 and pax.
    Ustar,
    /// Of star, with or without the mark of ustar.
    Star,
    Gnu,
}

/// What a header introduces.
pub enum Meaning {
    Entry(Kind),
    /// A sparse file in GNU's old form.
    Sparse,
    /// Records for the next entry, or for all that follow.
    Pax,
    Global,
    LongName,
    LongLink,
    /// The name of the volume; no file.
    Label,
}

pub struct Header<'a>(pub &'a [u8; BLOCK]);

impl Header<'_> {
    pub fn field(&self, offset: usize, len: usize) -> &[u8] {
        &self.0[offset..offset + len]
    }

    pub fn check(&self) -> Outcome<()> {
        let bytes = || self.0.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { b' ' } else { b });
        let said = signed(self.field(148, 8), "checksum")?;
        // Tools on machines whose characters have a sign added those up.
        let sums = [bytes().map(i64::from).sum::<i64>(), bytes().map(|byte| i64::from(byte as i8)).sum()];
        if sums.contains(&said) { Ok(()) } else { Err(corrupt("a tar header has a wrong checksum")) }
    }

    fn dialect(&self) -> Dialect {
        let is_star = self.field(508, 4) == b"tar\0";
        match self.field(257, 8) {
            b"ustar  \0" => Dialect::Gnu,
            _ if is_star => Dialect::Star,
            magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
            _ => Dialect::V7,
        }
    }

    pub fn meaning(&self) -> Outcome<Meaning> {
        let gnu = self.dialect() == Dialect::Gnu;
        let form = match self.0[156] {
            b'0' | 0 | b'7' => return Ok(Meaning::Entry(Kind::File)),
            b'1' => return Ok(Meaning::Entry(Kind::Hardlink)),
            b'2' => return Ok(Meaning::Entry(Kind::Symlink)),
            b'3' | b'4' => return Ok(Meaning::Entry(Kind::Device)),
            b'5' => return Ok(Meaning::Entry(Kind::Dir)),
            b'6' => return Ok(Meaning::Entry(Kind::Fifo)),
            b'x' => return Ok(Meaning::Pax),
            b'g' => return Ok(Meaning::Global),
            b'L' => return Ok(Meaning::LongName),
            b'K' => return Ok(Meaning::LongLink),
            b'S' if gnu => return Ok(Meaning::Sparse),
            b'D' if gnu => return Ok(Meaning::Entry(Kind::Dir)),
            b'V' if self.size()? == 0 => return Ok(Meaning::Label),
            b'S' => "a sparse file in the form of star",
            b'M' => "the rest of a file that begins in another volume",
            b'N' => "a table of long names of an old GNU tar",
            b'X' => "an extended header of Solaris",
            b'A' | b'E' => "an attribute of a file of Solaris",
            b'I' => "the attributes of a file without its content, of star",
            other => {
                let text = format!("{} is of type {:?}, which is not supported", self.shown(), char::from(other));
                return Err(unsupported(text));
            }
        };
        Err(unsupported(format!("{} is {form}, which is not supported", self.shown())))
    }

    fn shown(&self) -> String {
        quoted(&until_nul(self.field(0, 100).to_vec()))
    }

    /// A directory of an incremental dump. Its content is the list of its names, which every reader passes over.
    pub fn is_dump_directory(&self) -> bool {
        self.0[156] == b'D'
    }

    pub fn path(&self) -> Outcome<Vec<u8>> {
        let name = until_nul(self.field(0, 100).to_vec());
        let prefix = match self.dialect() {
            Dialect::Ustar => self.field(345, 155),
            // The times of star follow.
            Dialect::Star if self.field(257, 6) == b"ustar\0" => self.field(345, 131),
            Dialect::Star => self.field(345, 155),
            Dialect::Gnu => return Ok(name),
            Dialect::V7 if self.field(257, 5) == b"ustar" && self.0[345] != 0 => {
                // Some readers take the mark for ustar's and add the prefix.
                return Err(corrupt(format!("{} has a prefix and an odd mark of its format", self.shown())));
            }
            Dialect::V7 => return Ok(name),
        };
        let prefix = until_nul(prefix.to_vec());
        if prefix.is_empty() { Ok(name) } else { Ok([&prefix[..], b"/", &name].concat()) }
    }

    pub fn link(&self) -> Vec<u8> {
        until_nul(self.field(157, 100).to_vec())
    }

    pub fn size(&self) -> Outcome<u64> {
        number(self.field(124, 12), "size")
    }

    pub fn mode(&self) -> Outcome<u32> {
        Ok((number(self.field(100, 8), "mode")? & 0o7777) as u32)
    }

    pub fn uid(&self) -> Outcome<u32> {
        self.id(108, "uid")
    }

    pub fn gid(&self) -> Outcome<u32> {
        self.id(116, "gid")
    }

    fn id(&self, offset: usize, what: &str) -> Outcome<u32> {
        let id = number(self.field(offset, 8), what)?;
        u32::try_from(id).map_err(|_| corrupt(format!("{}: {what} too large", self.shown())))
    }

    pub fn mtime(&self) -> Outcome<(i64, u32)> {
        Ok((signed(self.field(136, 12), "time")?, 0))
    }
}

/// A number field: octal text, or base 256 where the highest bit of the first byte is set. Empty is 0.
pub fn number(field: &[u8], what: &str) -> Outcome<u64> {
    let value = signed(field, what)?;
    u64::try_from(value).map_err(|_| corrupt(format!("a tar header has a negative {what}")))
}

/// The same, also below zero: base 256 is in two's complement.
fn signed(field: &[u8], what: &str) -> Outcome<i64> {
    if field[0] & 0x80 != 0 {
        // The second bit is that of the sign.
        let first = i64::from(field[0] & 0x3f) - i64::from(field[0] & 0x40);
        return field[1..].iter().try_fold(first, |value, &byte| {
            let wider = value.checked_mul(256).and_then(|wider| wider.checked_add(i64::from(byte)));
            wider.ok_or_else(|| corrupt(format!("a tar header has a too large {what}")))
        });
    }
    let start = field.iter().position(|&byte| byte != b' ').unwrap_or(field.len());
    let text = &field[start..];
    let end = text.iter().position(|&byte| byte == 0 || byte == b' ').unwrap_or(text.len());
    text[..end].iter().try_fold(0, |value: i64, &byte| match byte {
        // Twelve octal digits fit.
        b'0'..=b'7' => Ok(value * 8 + i64::from(byte - b'0')),
        _ => Err(corrupt(format!("a tar header has a {what} that is no number"))),
    })
}
