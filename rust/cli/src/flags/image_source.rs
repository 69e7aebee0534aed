//! The IMAGE argument.

use std::path::{Path, PathBuf};

use microsandbox_core::model::ImageSource;

use crate::output::failure::{Failure, Outcome};

/// `host`, a path, or a reference.
pub fn parse_image(text: &str) -> Outcome<ImageSource> {
    if text == "host" {
        return Ok(ImageSource::Host { prefixes: interpreter_prefixes() });
    }
    if text.is_empty() {
        return Err(Failure::Usage("IMAGE must not be empty; examples: host, debian:12, ./rootfs".into()));
    }
    if !ImageSource::is_path(text) {
        return Ok(ImageSource::Oci { reference: text.to_owned() });
    }
    let unusable = |error| Failure::message(format!("cannot use {text} as an image: {error}"));
    // Its links are for the backend to follow, or not.
    let path = std::path::absolute(text).map_err(unusable)?;
    if path.metadata().map_err(unusable)?.is_dir() {
        return Ok(ImageSource::Bind { path });
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("qcow2" | "raw" | "vmdk" | "img") => Ok(ImageSource::DiskImage { path, format: None, fstype: None }),
        _ => Err(Failure::hinted(
            format!("{text} is neither a directory nor a disk image"),
            format!("to import an image archive: msb load -i {text}"),
        )),
    }
}

/// The prefix of the Python that runs this command, where it is not that of the system. The `host` image includes it,
/// so that `msb run host -- python3` finds the same interpreter and packages.
pub fn interpreter_prefixes() -> Vec<PathBuf> {
    let mut prefixes = Vec::new();
    let program = std::env::current_exe().ok();
    if let Some(program) = program.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python")))
    {
        prefixes.extend(prefix_of(&program));
    }
    // A console script of a virtual environment: <prefix>/bin/msb beside <prefix>/pyvenv.cfg.
    let script = std::env::args_os().take(3).find_map(|word| {
        let path = PathBuf::from(word);
        path.file_name().is_some_and(|name| name == "msb" || name == "microsandbox").then_some(path)
    });
    if let Some(prefix) = script.and_then(|script| prefix_of(&std::path::absolute(script).ok()?))
        && prefix.join("pyvenv.cfg").is_file()
    {
        prefixes.push(prefix);
    }
    prefixes.retain(|prefix| !["/", "/usr", "/usr/local"].iter().any(|system| prefix == Path::new(system)));
    prefixes.dedup();
    prefixes
}

/// `<prefix>/bin/<program>`.
fn prefix_of(program: &Path) -> Option<PathBuf> {
    let bin = program.parent()?;
    (bin.file_name()? == "bin").then(|| bin.parent().map(Path::to_path_buf)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_paths_are_distinguished() {
        assert!(matches!(parse_image("host"), Ok(ImageSource::Host { .. })));
        assert_eq!(parse_image("alpine:3").unwrap(), ImageSource::Oci { reference: "alpine:3".into() });
        assert!(matches!(parse_image("/"), Ok(ImageSource::Bind { .. })));
        assert!(parse_image("./no-such-directory").is_err());
        assert!(parse_image("").is_err());
    }

    #[test]
    fn an_archive_is_refused_with_the_load_command() {
        let file = std::env::current_exe().unwrap();
        let report = parse_image(file.to_str().unwrap()).unwrap_err().report().unwrap();
        assert!(report.contains("msb load -i"), "{report}");
    }
}
