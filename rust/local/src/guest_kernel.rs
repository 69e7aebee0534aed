//! libkrunfw: the shared library that holds the Linux kernel of a microVM, ready to be mapped into guest memory.
//!
//! | module | holds |
//! |---|---|
//! | this one | where it is looked for: the ladder; what was found |
//! | [`inspect`] | what a file must be before anything of it is loaded or mapped |
//! | [`load`] | the two functions of the library, called |
//! | [`facts_cache`] | what is known about a file that has not changed |
//! | [`install`], [`wheel`], [`fetch`] | bringing a copy into `<home>/lib` |
//!
//! The first rung that names or has a library wins. A library that the user or the program named (the first three
//! rungs) and that cannot be used is an error: another library is never taken instead. An unusable library in a
//! well-known folder is skipped, and reported if no usable one is found. The path is process-wide: there is one guest
//! kernel for every sandbox.

mod facts_cache;
pub mod fetch;
mod inspect;
pub mod install;
mod load;
#[cfg(test)]
mod tests;
mod wheel;

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use microsandbox_contract::KernelSpec;
use rustix::fs::OFlags;
use serde::Serialize;

use facts_cache::Facts;
use microsandbox_core::config::{Environment, LocalConfig};
use microsandbox_core::error::{Lack, MicrosandboxResult};

/// Name of the library; the number is the version of its binary interface.
pub const FILE_NAME: &str = "libkrunfw.so.5";
/// The binary interface that the virtual machine monitor was written against.
const ABI: u32 = 5;
const VARIABLE: &str = "MSB_LIBKRUNFW_PATH";
pub(crate) const INSTALL_HINT: &str = "bring it in with `msb install libkrunfw`, or name one with MSB_LIBKRUNFW_PATH";

/// Well-known library folders, in this order.
const FOLDERS: [&str; 6] = [
    "/usr/local/lib64",
    "/usr/local/lib",
    "/usr/lib64",
    "/usr/lib",
    #[cfg(target_arch = "x86_64")]
    "/usr/lib/x86_64-linux-gnu",
    #[cfg(not(target_arch = "x86_64"))]
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
];

/// What the program set.
static SET: RwLock<Option<PathBuf>> = RwLock::new(None);

/// Names the library for this process; `MSB_LIBKRUNFW_PATH` still wins. The last call counts. The file is examined when
/// a microVM is requested, not by this call. A relative path is resolved against the working directory of this call.
pub fn set_library_path(path: PathBuf) {
    let path = std::path::absolute(&path).unwrap_or(path);
    *SET.write().unwrap_or_else(PoisonError::into_inner) = Some(path);
}

/// A usable library, open.
#[derive(Debug)]
pub struct GuestKernel {
    pub path: PathBuf,
    /// Read-only; closed when a program is executed.
    pub file: OwnedFd,
    pub spec: KernelSpec,
    /// `sha256:<hex>` of the file.
    pub digest: String,
    pub rung: Rung,
}

/// Where a library may come from, in the order in which it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// `MSB_LIBKRUNFW_PATH`; set but empty counts as unset.
    Environment,
    /// [`set_library_path`].
    Program,
    /// `paths.libkrunfw` of the configuration.
    Configuration,
    /// A well-known library folder.
    System,
    /// `<home>/lib`, where `msb install libkrunfw` puts it.
    Home,
}

impl Rung {
    /// As people know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Rung::Environment => VARIABLE,
            Rung::Program => "set_libkrunfw_path",
            Rung::Configuration => "paths.libkrunfw",
            Rung::System => "system",
            Rung::Home => "home",
        }
    }

    /// Whether the user or the program named this very file.
    fn is_explicit(self) -> bool {
        matches!(self, Rung::Environment | Rung::Program | Rung::Configuration)
    }
}

/// One rung of the ladder, and what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RungReport {
    pub rung: Rung,
    /// Absent where nothing is named.
    pub path: Option<PathBuf>,
    pub found: Found,
}

/// What a rung had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The rung names nothing.
    Unset,
    /// No such file.
    Absent,
    /// A file that cannot be used.
    Unusable(Lack),
    /// This file is taken.
    Taken { digest: String },
    /// Not examined: an earlier rung decided.
    PassedOver,
}

/// The library that microVMs of this process use. Cheap after the first call: what is known about a file counts until the
/// file changes.
pub fn locate(config: &LocalConfig) -> MicrosandboxResult<GuestKernel> {
    find(config).map_err(Lack::no_microvm)
}

/// As [`locate`], with the reason as the error.
pub(crate) fn find(config: &LocalConfig) -> Result<GuestKernel, Lack> {
    climb(&rungs(config, &Environment::Process), config).1
}

/// Every rung and what was there.
pub fn ladder(config: &LocalConfig) -> Vec<RungReport> {
    climb(&rungs(config, &Environment::Process), config).0
}

/// The path of this home's copy, whether or not that exists.
pub fn home_path(config: &LocalConfig) -> PathBuf {
    config.home.join("lib").join(FILE_NAME)
}

fn rungs(config: &LocalConfig, environment: &Environment) -> Vec<(Rung, Option<PathBuf>)> {
    let variable = environment.path(VARIABLE).map(|path| std::path::absolute(&path).unwrap_or(path));
    let set = SET.read().unwrap_or_else(PoisonError::into_inner).clone();
    let mut rungs = vec![
        (Rung::Environment, variable),
        (Rung::Program, set),
        (Rung::Configuration, config.paths.libkrunfw.clone()),
    ];
    rungs.extend(FOLDERS.iter().map(|folder| (Rung::System, Some(Path::new(folder).join(FILE_NAME)))));
    rungs.push((Rung::Home, Some(home_path(config))));
    rungs
}

fn climb(rungs: &[(Rung, Option<PathBuf>)], config: &LocalConfig) -> (Vec<RungReport>, Result<GuestKernel, Lack>) {
    let mut decided: Option<Result<GuestKernel, Lack>> = None;
    let mut useless = Vec::new();
    let mut reports = Vec::with_capacity(rungs.len());
    for (rung, path) in rungs {
        let found = match path {
            None => Found::Unset,
            Some(path) if decided.is_some() => if_there(path, Found::PassedOver),
            Some(path) => match examine(path, *rung, config) {
                Ok(Some(kernel)) => {
                    let digest = kernel.digest.clone();
                    decided = Some(Ok(kernel));
                    Found::Taken { digest }
                }
                Ok(None) if rung.is_explicit() => {
                    let lack = named(*rung, path, "which does not exist");
                    decided = Some(Err(lack.clone()));
                    Found::Unusable(lack)
                }
                Ok(None) => Found::Absent,
                Err(lack) if rung.is_explicit() => {
                    let lack = Lack::new(named(*rung, path, &lack.reason).reason, lack.hint);
                    decided = Some(Err(lack.clone()));
                    Found::Unusable(lack)
                }
                Err(lack) => {
                    useless.push(format!("{} {}", path.display(), lack.reason));
                    Found::Unusable(lack)
                }
            },
        };
        reports.push(RungReport { rung: *rung, path: path.clone(), found });
    }
    (reports, decided.unwrap_or_else(|| Err(nowhere(&useless))))
}

fn if_there(path: &Path, found: Found) -> Found {
    if path.exists() { found } else { Found::Absent }
}

/// `what` completes the sentence after the path.
fn named(rung: Rung, path: &Path, what: &str) -> Lack {
    Lack::new(
        format!("{} names {}, {what}", rung.as_str(), path.display()),
        format!("name a {FILE_NAME} there, or nothing to use the one that `msb install libkrunfw` brings in"),
    )
}

fn nowhere(useless: &[String]) -> Lack {
    let mut reason =
        format!("there is no guest kernel: no usable {FILE_NAME} in any of the places that `msb doctor` lists");
    if !useless.is_empty() {
        reason = format!("{reason} ({})", useless.join("; "));
    }
    Lack::new(reason, INSTALL_HINT)
}

/// `None`: there is no file. The error completes the sentence "the file …, ".
fn examine(path: &Path, rung: Rung, config: &LocalConfig) -> Result<Option<GuestKernel>, Lack> {
    // Opening a pipe must not block.
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Lack::new(format!("which cannot be opened: {error}"), "make it readable for this user"));
        }
    };
    let Facts { spec, digest } = facts_cache::facts(path, &file, &config.cache_dir())?;
    Ok(Some(GuestKernel { path: path.to_owned(), file: file.into(), spec, digest, rung }))
}
