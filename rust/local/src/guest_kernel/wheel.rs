//! The library inside a Python wheel, which is a zip file (PEP 427).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::FILE_NAME;

/// Larger members are no kernels.
const SIZE_MAX: u64 = 512 << 20;

/// Reads the one member of the wheel that is libkrunfw. An error completes the sentence "the file …, ".
pub fn library(file: File) -> Result<Vec<u8>, String> {
    let fail = |error: ZipError| format!("which cannot be read as a wheel: {error}");
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(fail)?;
    // A name that is no text is not ours.
    let names = archive.file_names().filter_map(Result::ok);
    let mut members: Vec<String> = names.filter(|name| is_library(name)).map(|name| name.into_owned()).collect();
    members.sort();
    let member = match members.as_slice() {
        [] => return Err(format!("a wheel without {FILE_NAME} in it")),
        [one] => one.clone(),
        more => return Err(format!("a wheel with more than one {FILE_NAME} in it: {}", more.join(", "))),
    };
    let member = archive.by_name(&member).map_err(fail)?;
    let size = member.size();
    if size > SIZE_MAX {
        return Err(format!("whose {FILE_NAME} would have {size} bytes"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // The end of the data checks its CRC; one byte more than was promised is too many.
    member.take(size + 1).read_to_end(&mut bytes).map_err(|error| format!("which is damaged: {error}"))?;
    if bytes.len() as u64 != size {
        return Err("which is damaged: a member is longer or shorter than it says".into());
    }
    Ok(bytes)
}

/// `libkrunfw.so.5` or, as wheels name it, `libkrunfw.so.5.<minor>.<patch>`; in whatever folder.
fn is_library(name: &str) -> bool {
    let file = Path::new(name).file_name().and_then(|file| file.to_str()).unwrap_or("");
    file.strip_prefix(FILE_NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_known_by_its_name() {
        for name in ["libkrunfw.so.5", "a/_bundled/lib/libkrunfw.so.5.6.1"] {
            assert!(is_library(name), "{name}");
        }
        for name in ["libkrunfw.so.4", "libkrunfw.so.51", "libkrunfw.so.5/x", "x-libkrunfw.so.5", ""] {
            assert!(!is_library(name), "{name}");
        }
    }
}
