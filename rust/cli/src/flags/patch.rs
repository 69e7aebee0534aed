//! Changes to the root file system before the first program: `--copy`, `--mkdir`, `--rm`.

use std::path::PathBuf;

use clap::Args;
use microsandbox_core::model::Patch;

use crate::output::failure::{Failure, Outcome};

/// Flags that change the initial root file system, applied in the order removals, directories, copies.
#[derive(Debug, Args)]
#[command(next_help_heading = "Root file system")]
pub struct PatchFlags {
    /// Copy a file or directory of this machine into the sandbox; may be repeated.
    #[arg(long, value_name = "SRC:DST", value_parser = source_and_target)]
    copy: Vec<(PathBuf, String)>,
    /// As --copy, but refuse a directory.
    #[arg(long, value_name = "SRC:DST", value_parser = source_and_target)]
    copy_file: Vec<(PathBuf, String)>,
    /// As --copy, but refuse a file.
    #[arg(long, value_name = "SRC:DST", value_parser = source_and_target)]
    copy_dir: Vec<(PathBuf, String)>,
    /// Create a directory with its parents; may be repeated.
    #[arg(long, value_name = "PATH")]
    mkdir: Vec<String>,
    /// Remove a file or directory of the image; may be repeated.
    #[arg(long, value_name = "PATH")]
    rm: Vec<String>,
}

impl PatchFlags {
    pub fn patches(&self) -> Outcome<Vec<Patch>> {
        let removals = self.rm.iter().map(|path| Patch::Remove { path: path.clone() });
        let directories = self.mkdir.iter().map(|path| Patch::Mkdir { path: path.clone(), mode: None });
        let file = |(src, dst): &(PathBuf, String)| Patch::CopyFile {
            src: src.clone(),
            dst: dst.clone(),
            mode: None,
            replace: true,
        };
        let tree =
            |(src, dst): &(PathBuf, String)| Patch::CopyDir { src: src.clone(), dst: dst.clone(), replace: true };
        let either = |copy: &(PathBuf, String)| if copy.0.is_dir() { tree(copy) } else { file(copy) };
        let copies = self.copy.iter().map(either);
        let copies = copies.chain(self.copy_file.iter().map(file)).chain(self.copy_dir.iter().map(tree));
        let patches: Vec<Patch> = removals.chain(directories).chain(copies).collect();
        patches.iter().try_for_each(Patch::check).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(patches)
    }
}

/// Splits at the last colon: a path of this machine may contain colons.
fn source_and_target(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once(':') {
        Some((src, dst)) if !src.is_empty() && dst.starts_with('/') => Ok((src.into(), dst.into())),
        _ => Err("must be SRC:DST, where DST is an absolute path in the sandbox".into()),
    }
}
