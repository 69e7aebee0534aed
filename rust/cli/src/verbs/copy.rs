//! `msb copy`: copies files and directories to, from and between sandboxes.
//!
//! A directory goes as an archive, with modes, times, links and holes (`microsandbox_core::host_tree`); special files are left out
//! and reported.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt;
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

    async fn copy(&self, source: &Place, target: &Place) -> Outcome<()> {
        match self.kind(source).await? {
            Some(FsEntryKind::Directory) => self.copy_directory(source, target).await,
            Some(FsEntryKind::File) => self.copy_file(source, target).await,
            Some(_) => Err(Failure::message(format!("{} is neither a file nor a directory", source.describe()))),
            None => Err(Failure::message(format!("{}: no such file or directory", source.describe()))),
        }
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
            (Place::Guest { sandbox, path }, Place::Host(to)) => host_tree::receive(&*self.fs(sandbox), path, to).await,
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
            Err(error) => Err(error.into()),
        }
    }

    fn skipped(&self, what: &str) {
        if !self.quiet {
            // One line, also for a name that contains line ends.
            self.call.console.note(&format!("skipped, {}", what.replace('\n', "\\n")));
        }
    }
}

fn host_failure(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::message(format!("cannot {action} {}: {error}", path.display()))
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
}
