//! `msb copy`: copies files and directories to, from and between sandboxes.
//!
//! A directory goes as an archive, with modes, times, links and holes (`microsandbox_core::host_tree`); special files are left out
//! and reported. Where a backend has no archives, files go one by one, and symbolic links are reported as well.
//! Names from a guest are untrusted: a listing must not lead out of the target directory.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt;
use futures::future::BoxFuture;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::api::SandboxFs;
use microsandbox_core::host_tree::{self, Bits};
use microsandbox_core::model::{FsAttributes, FsEntryKind, validate_sandbox_name};
use microsandbox_core::names;

use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::progress;

/// Arguments of `copy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  msb copy data.csv box:/tmp/          copy a file into a directory of the sandbox
  msb copy box:/var/log ./log          copy a directory to this machine
  msb copy one:/etc/motd two:/etc/motd copy a file between two sandboxes

Write a local file name that contains a colon as a path: ./a:b")]
pub struct CopyArgs {
    /// Source: a path of this machine, or NAME:/path in a sandbox.
    #[arg(value_name = "SRC")]
    source: String,
    /// Target: a path of this machine, or NAME:/path in a sandbox; if it is a directory, SRC is copied into it.
    #[arg(value_name = "DST")]
    target: String,
    /// Print no remarks and no progress.
    #[arg(short, long)]
    quiet: bool,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Host(PathBuf),
    Guest { sandbox: String, path: String },
}

impl Place {
    fn parse(text: &str) -> Outcome<Place> {
        let Some((sandbox, path)) = text.split_once(':') else { return Ok(Place::Host(text.into())) };
        if sandbox.contains('/') || validate_sandbox_name(sandbox).is_err() {
            return Ok(Place::Host(text.into()));
        }
        if !path.starts_with('/') {
            return Err(Failure::Usage(format!("{text}: the path in the sandbox must begin with /")));
        }
        Ok(Place::Guest { sandbox: sandbox.to_owned(), path: path.to_owned() })
    }

    fn describe(&self) -> String {
        match self {
            Place::Host(path) => path.display().to_string(),
            Place::Guest { sandbox, path } => format!("{sandbox}:{}", names::shown(path)),
        }
    }

    /// The last component.
    fn name(&self) -> Option<String> {
        match self {
            Place::Host(path) => path.file_name().map(|name| names::to_text(name.as_bytes()).into_owned()),
            Place::Guest { path, .. } => Path::new(path).file_name()?.to_str().map(str::to_owned),
        }
    }

    fn join(&self, name: &str) -> Place {
        match self {
            Place::Host(path) => Place::Host(path.join(names::to_os(name))),
            Place::Guest { sandbox, path } => {
                Place::Guest { sandbox: sandbox.clone(), path: format!("{}/{name}", path.trim_end_matches('/')) }
            }
        }
    }
}

pub async fn run(args: CopyArgs, call: &Invocation) -> Outcome<()> {
    let (source, target) = (Place::parse(&args.source)?, Place::parse(&args.target)?);
    if let (Place::Host(_), Place::Host(_)) = (&source, &target) {
        return Err(Failure::Usage("SRC or DST must be in a sandbox, written as NAME:/path".into()));
    }
    let copier = Copier { call, quiet: args.quiet };
    let _progress = progress::working(&call.console, args.quiet, format!("copying {}", source.describe()));
    let into = args.target.ends_with('/');
    let target = match copier.kind(&target).await? {
        Some(FsEntryKind::Directory) => match source.name() {
            Some(name) => target.join(&name),
            None => target,
        },
        None if into => return Err(Failure::message(format!("{} is not a directory", target.describe()))),
        _ => target,
    };
    copier.copy(&source, &target).await
}

struct Copier<'a> {
    call: &'a Invocation,
    quiet: bool,
}

impl Copier<'_> {
    fn fs<'a>(&'a self, sandbox: &'a str) -> SandboxFs<'a> {
        SandboxFs::with_backend(&self.call.backend, sandbox)
    }

    /// The kind of the file; `None` if it does not exist.
    async fn kind(&self, place: &Place) -> Outcome<Option<FsEntryKind>> {
        match place {
            Place::Host(path) => match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => Ok(Some(FsEntryKind::Directory)),
                Ok(metadata) if metadata.is_file() => Ok(Some(FsEntryKind::File)),
                Ok(_) => Ok(Some(FsEntryKind::Other)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(host_failure("read", path, &error)),
            },
            Place::Guest { sandbox, path } => match self.fs(sandbox).stat(path, true).await {
                Ok(metadata) => Ok(Some(metadata.kind)),
                Err(MicrosandboxError::PathNotFound { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn copy<'a>(&'a self, source: &'a Place, target: &'a Place) -> BoxFuture<'a, Outcome<()>> {
        Box::pin(async move {
            match self.kind(source).await? {
                Some(FsEntryKind::Directory) => self.copy_directory(source, target).await,
                Some(FsEntryKind::File) => self.copy_file(source, target).await,
                Some(_) => Err(Failure::message(format!("{} is neither a file nor a directory", source.describe()))),
                None => Err(Failure::message(format!("{}: no such file or directory", source.describe()))),
            }
        })
    }

    async fn copy_file(&self, source: &Place, target: &Place) -> Outcome<()> {
        match (source, target) {
            (Place::Host(from), Place::Guest { sandbox, path }) => {
                self.fs(sandbox).copy_from_host(from, path, None).await?
            }
            (Place::Guest { sandbox, path }, Place::Host(to)) => self.fs(sandbox).copy_to_host(path, to, None).await?,
            (Place::Guest { sandbox: a, path: from }, Place::Guest { sandbox: b, path: to }) if a == b => {
                self.fs(a).copy(from, to).await?;
            }
            (Place::Guest { sandbox: a, path: from }, Place::Guest { sandbox: b, path: to }) => {
                let mut chunks = self.fs(a).read_stream(from).await?;
                let sink = self.fs(b).write_stream(to).await?;
                while let Some(chunk) = chunks.next().await {
                    sink.write(chunk?).await?;
                }
                sink.close().await?;
                let found = self.fs(a).stat(from, true).await?;
                let (modified, modified_nanos) = found.modified.unzip();
                let mode = Some(found.mode & 0o777);
                let attributes = FsAttributes { mode, modified, modified_nanos, ..FsAttributes::default() };
                self.fs(b).set(to, attributes).await?;
            }
            // `run` refuses this combination.
            (Place::Host(_), Place::Host(_)) => {}
        }
        Ok(())
    }

    async fn copy_directory(&self, source: &Place, target: &Place) -> Outcome<()> {
        let copied = match (source, target) {
            (Place::Host(from), Place::Guest { sandbox, path }) => {
                host_tree::send(&*self.fs(sandbox), from, path, Bits::Permissions).await
            }
            (Place::Guest { sandbox, path }, Place::Host(to)) => match self.fs(sandbox).read_tree(path).await {
                Ok(archive) => host_tree::receive(archive, path, to).await,
                Err(error) => Err(error),
            },
            (Place::Guest { sandbox: a, path: from }, Place::Guest { sandbox: b, path: to }) if a == b => {
                match self.fs(a).copy(from, to).await {
                    // Everything else was copied.
                    Err(MicrosandboxError::Filesystem { kind, message, .. }) if kind == "NotRegularFile" => {
                        Ok(vec![message])
                    }
                    copied => copied.map(|()| Vec::new()),
                }
            }
            (Place::Guest { sandbox: a, path: from }, Place::Guest { sandbox: b, path: to }) => {
                host_tree::between((&*self.fs(a), from), (&*self.fs(b), to)).await
            }
            // `run` refuses this combination.
            (Place::Host(_), Place::Host(_)) => Ok(Vec::new()),
        };
        match copied {
            Ok(left_out) => {
                left_out.iter().for_each(|name| self.skipped(&names::shown(name)));
                Ok(())
            }
            Err(MicrosandboxError::Unsupported { .. }) => self.copy_each(source, target).await,
            Err(error) => Err(error.into()),
        }
    }

    fn skipped(&self, what: &str) {
        if !self.quiet {
            // One line, also for a name that contains line ends.
            self.call.console.note(&format!("skipped, {}", what.replace('\n', "\\n")));
        }
    }

    /// File by file.
    async fn copy_each(&self, source: &Place, target: &Place) -> Outcome<()> {
        // Listed before the target is created: a copy of a directory into itself must not copy the copy.
        let entries = self.entries(source).await?;
        match target {
            Place::Host(path) => {
                std::fs::create_dir_all(path).map_err(|error| host_failure("create", path, &error))?;
            }
            Place::Guest { sandbox, path } => self.fs(sandbox).mkdir(path).await?,
        }
        for (name, kind) in entries {
            let from = source.join(&name);
            match kind {
                FsEntryKind::File | FsEntryKind::Directory => self.copy(&from, &target.join(&name)).await?,
                FsEntryKind::Symlink => self.skipped(&format!("a symbolic link: {}", from.describe())),
                FsEntryKind::Other => self.skipped(&format!("a special file: {}", from.describe())),
            }
        }
        Ok(())
    }

    /// Names and kinds, links not followed.
    async fn entries(&self, place: &Place) -> Outcome<Vec<(String, FsEntryKind)>> {
        match place {
            Place::Host(path) => host_entries(path).map_err(|error| host_failure("list", path, &error)),
            Place::Guest { sandbox, path } => {
                let listed = self.fs(sandbox).list(path).await?;
                listed.into_iter().map(|entry| Ok((guest_name(&entry.path)?, entry.kind))).collect()
            }
        }
    }
}

fn host_failure(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::message(format!("cannot {action} {}: {error}", path.display()))
}

fn host_entries(path: &Path) -> std::io::Result<Vec<(String, FsEntryKind)>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let kind = match entry.file_type()? {
            kind if kind.is_dir() => FsEntryKind::Directory,
            kind if kind.is_file() => FsEntryKind::File,
            kind if kind.is_symlink() => FsEntryKind::Symlink,
            _ => FsEntryKind::Other,
        };
        entries.push((names::to_text(entry.file_name().as_bytes()).into_owned(), kind));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// The last component of a path from the guest, which must be an ordinary name.
fn guest_name(path: &str) -> Outcome<String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || name == "." || name == ".." || name.contains('\0') {
        return Err(Failure::message(format!("the sandbox listed a file with the invalid name {name:?}")));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_after_a_name_denotes_a_sandbox() {
        let guest = Place::Guest { sandbox: "box".into(), path: "/a:b".into() };
        assert_eq!(Place::parse("box:/a:b").unwrap(), guest);
        assert_eq!(Place::parse("./a:b").unwrap(), Place::Host("./a:b".into()));
        assert_eq!(Place::parse("a").unwrap(), Place::Host("a".into()));
        assert!(matches!(Place::parse("box:a"), Err(Failure::Usage(_))));
    }

    #[test]
    fn names_from_the_guest_cannot_leave_the_target() {
        for path in ["/a/..", "/a/.", "/a/", "", "/a/x\0y"] {
            assert!(guest_name(path).is_err(), "{path:?}");
        }
        assert_eq!(guest_name("/a/b").unwrap(), "b");
    }
}
