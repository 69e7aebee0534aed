//! Bringing a copy of the library into `<home>/lib`, checked, and in one step.
//!
//! No package index has a package of libkrunfw alone. The wheel of another project, `microsandbox` 0.7, bundles the
//! library; only that file is extracted, and no other file of the wheel is run. Licences: libkrunfw is LGPL-2.1-only,
//! the Linux kernel inside it GPL-2.0-only; their sources are published by the libkrunfw project.

use std::fs::{File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::Digest;

use super::fetch::{self, Progress};
use super::{FILE_NAME, home_path, inspect, load, wheel};
use microsandbox_core::config::LocalConfig;
use microsandbox_core::error::{Lack, MicrosandboxError, MicrosandboxResult};

/// The licences of what is installed.
pub const LICENCES: &str = "LGPL-2.1-only (libkrunfw), GPL-2.0-only (the Linux kernel in it)";
/// Start of the names of unfinished work.
const TEMPORARY: &str = ".install-";
/// Unfinished work of this age belongs to a process that was killed.
const STALE: Duration = Duration::from_secs(2 * 3600);

/// A copy whose contents are known.
#[derive(Debug)]
pub struct Pin {
    /// `std::env::consts::ARCH`.
    pub arch: &'static str,
    pub package: &'static str,
    pub package_version: &'static str,
    pub wheel_name: &'static str,
    pub wheel_size: u64,
    pub wheel_sha256: &'static str,
    /// Of the library.
    pub version: &'static str,
    pub library_sha256: &'static str,
}

/// Every copy that is known. Other architectures: `--from`.
pub const PINS: &[Pin] = &[Pin {
    arch: "x86_64",
    package: "microsandbox",
    package_version: "0.7.11",
    wheel_name: "microsandbox-0.7.11-cp310-abi3-manylinux_2_28_x86_64.whl",
    wheel_size: 48_148_484,
    wheel_sha256: "65f1e4bbf8d721c9f7f557329fb6c8cf41f554c1c6942eac8b941198fa283fe0",
    version: "5.6.1",
    library_sha256: "3854efcd3fe625528fa00207d97586d9790db8c436bb6881a43986604336d18e",
}];

/// The copy in `<home>/lib`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub path: PathBuf,
    /// `sha256:<hex>`.
    pub digest: String,
    /// Known for pinned copies only.
    pub version: Option<&'static str>,
    /// The copy was there before; nothing was fetched or changed.
    pub already: bool,
}

/// The copy for this machine, if one is known.
pub fn pin() -> Option<&'static Pin> {
    PINS.iter().find(|pin| pin.arch == std::env::consts::ARCH)
}

/// Fetches the pinned copy with the pip of `python`, unless it is there already.
pub async fn from_index(config: &LocalConfig, python: &Path, progress: Progress<'_>) -> MicrosandboxResult<Installed> {
    let pin = pin().ok_or_else(|| {
        MicrosandboxError::unsupported(
            format!("fetching libkrunfw for {}", std::env::consts::ARCH),
            "when a copy for it is pinned; get the library elsewhere and give it with `msb install libkrunfw --from FILE`",
        )
    })?;
    pinned(config, python, pin, progress).await
}

/// As [`from_index`], for a stated copy.
pub(super) async fn pinned(
    config: &LocalConfig,
    python: &Path,
    pin: &Pin,
    progress: Progress<'_>,
) -> MicrosandboxResult<Installed> {
    let path = home_path(config);
    if let Ok(bytes) = std::fs::read(&path)
        && hex::encode(sha2::Sha256::digest(&bytes)) == pin.library_sha256
    {
        return Ok(Installed { already: true, ..described(path, pin.library_sha256) });
    }
    let folder = folder(config)?;
    let scratch = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&folder);
    let scratch = scratch.map_err(|e| MicrosandboxError::io("make a directory in", &folder, e))?;
    let fetched = fetch::wheel(python, pin, scratch.path(), progress).await?;
    let (sha256, file) = digest_of(&fetched)?;
    expect(pin.wheel_name, &sha256, pin.wheel_sha256)?;
    let bytes = wheel::library(file).map_err(|reason| unusable(&fetched, &reason))?;
    expect(FILE_NAME, &hex::encode(sha2::Sha256::digest(&bytes)), pin.library_sha256)?;
    publish(config, &fetched, &bytes)
}

/// Takes the library from a file of the user's: the library itself, or a wheel that holds it. Needs no network. A copy that
/// is not the pinned one is accepted if it is a usable library: the user vouches for it.
pub fn from_file(config: &LocalConfig, source: &Path) -> MicrosandboxResult<Installed> {
    let mut file = File::open(source).map_err(|e| MicrosandboxError::io("open", source, e))?;
    let meta = file.metadata().map_err(|e| MicrosandboxError::io("read", source, e))?;
    if !meta.is_file() {
        return Err(unusable(source, "which is not a regular file"));
    }
    let mut start = Vec::new();
    let failed = |e| MicrosandboxError::io("read", source, e);
    (&mut file).take(4).read_to_end(&mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let bytes = match start.as_slice() {
        b"PK\x03\x04" => wheel::library(file).map_err(|reason| unusable(source, &reason))?,
        b"\x7fELF" => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(failed)?;
            bytes
        }
        _ => return Err(unusable(source, "which is neither a shared library nor a wheel")),
    };
    publish(config, source, &bytes)
}

fn folder(config: &LocalConfig) -> MicrosandboxResult<PathBuf> {
    let folder = config.home.join("lib");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|e| MicrosandboxError::io("create", &folder, e))?;
    sweep(&folder);
    Ok(folder)
}

/// Removes what killed installations left. A failure leaves it for the next one.
fn sweep(folder: &Path) {
    let stale = |entry: &std::fs::DirEntry| {
        let age = entry.metadata().ok()?.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok())?;
        (age > STALE && entry.file_name().to_str()?.starts_with(TEMPORARY)).then_some(())
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| stale(entry).is_some()) {
        let _ = microsandbox_rooted::remove::tree(&entry.path());
    }
}

/// Writes, checks and renames, so that a reader always finds the old copy or the new one, complete.
fn publish(config: &LocalConfig, source: &Path, bytes: &[u8]) -> MicrosandboxResult<Installed> {
    let lacking = |lack: Lack| unusable(source, &format!("{}; {}", lack.reason, lack.hint));
    let layout = inspect::layout(bytes).map_err(lacking)?;
    let (folder, path) = (folder(config)?, home_path(config));
    let failed = |e| MicrosandboxError::io("write", &path, e);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    load::kernel(file.as_file(), &layout).map_err(lacking)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(described(path, &hex::encode(sha2::Sha256::digest(bytes))))
}

fn described(path: PathBuf, sha256: &str) -> Installed {
    let version = PINS.iter().find(|pin| pin.library_sha256 == sha256).map(|pin| pin.version);
    Installed { path, digest: format!("sha256:{sha256}"), version, already: false }
}

/// The digest in hex, and the file from its beginning.
fn digest_of(path: &Path) -> MicrosandboxResult<(String, File)> {
    let failed = |e| MicrosandboxError::io("read", path, e);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    file.rewind().map_err(failed)?;
    Ok((hex::encode(hasher.finalize()), file))
}

fn expect(what: &str, found: &str, expected: &str) -> MicrosandboxResult<()> {
    if found == expected {
        return Ok(());
    }
    Err(MicrosandboxError::Runtime(format!(
        "libkrunfw was not installed: {what} has sha256 {found} instead of {expected}; the package index served \
         something else than what this version knows: use another index, or --from FILE with a copy that you trust"
    )))
}

fn unusable(source: &Path, reason: &str) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(format!("libkrunfw was not installed from {}, {reason}", source.display()))
}
