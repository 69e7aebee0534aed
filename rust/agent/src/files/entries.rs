//! Descriptions of files for the client: `stat` and listings.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;

use microsandbox_protocol::message::FsEntry;
use microsandbox_protocol::names;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::error::{FsError, check_path};
use super::handles::Handle;
use super::root::Root;

/// Entries of one page.
const MAX_PAGE: usize = 1000;
/// Encoded size of a page or list: it must fit into one frame of 4 MiB.
const MAX_PAGE_BYTES: usize = 2 << 20;
const MAX_LIST_BYTES: usize = 3 << 20;
/// What an entry takes besides its path, encoded; an upper bound.
const ENTRY_BYTES: usize = 160;

/// One file.
pub fn stat(root: &Root, path: &str, follow: bool) -> Result<FsEntry, FsError> {
    let fd = open_path(root, path, follow, "cannot stat")?;
    describe(fd.as_fd(), c"", path.to_owned()).map_err(|e| FsError::at(e, "cannot stat", path))
}

/// An open file.
pub fn fstat(handle: &Handle) -> Result<FsEntry, FsError> {
    describe(handle.fd.as_fd(), c"", handle.path.clone()).map_err(|e| FsError::at(e, "cannot stat", &handle.path))
}

/// An `O_PATH` descriptor of any kind of file.
pub fn open_path(root: &Root, path: &str, follow: bool, verb: &str) -> Result<OwnedFd, FsError> {
    check_path(path)?;
    let last = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    root.open(path, OFlags::PATH | OFlags::CLOEXEC | last, Mode::empty()).map_err(|e| FsError::at(e, verb, path))
}

/// A whole directory, sorted by name.
pub fn list(root: &Root, path: &str) -> Result<Vec<FsEntry>, FsError> {
    let handle = open_dir(root, path)?;
    let mut entries = page_of(&handle, usize::MAX, MAX_LIST_BYTES)?;
    if entries.iter().map(size).sum::<usize>() > MAX_LIST_BYTES {
        return Err(FsError::limit(format!("{path} has more entries than fit into one answer; list it in pages")));
    }
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// A directory to be read in pages.
pub fn open_dir(root: &Root, path: &str) -> Result<Handle, FsError> {
    check_path(path)?;
    let failed = |e| FsError::at(e, "cannot list", path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = root.open(path, flags, Mode::empty()).map_err(failed)?;
    let listing = Dir::read_from(&fd).map_err(failed)?;
    Ok(Handle { fd, path: path.to_owned(), listing: Some(listing.into()) })
}

/// The next entries in the directory's own order; an empty page is the end.
pub fn page(handle: &Handle, limit: u32) -> Result<Vec<FsEntry>, FsError> {
    page_of(handle, (limit as usize).clamp(1, MAX_PAGE), MAX_PAGE_BYTES)
}

fn page_of(handle: &Handle, limit: usize, max_bytes: usize) -> Result<Vec<FsEntry>, FsError> {
    let Some(listing) = &handle.listing else {
        return Err(FsError::at(Errno::NOTDIR, "cannot list", &handle.path));
    };
    let mut listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
    let mut entries = Vec::new();
    let mut bytes = 0;
    while entries.len() < limit && bytes <= max_bytes {
        let Some(next) = listing.read() else { break };
        let next = next.map_err(|e| FsError::at(e, "cannot list", &handle.path))?;
        let name = next.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match describe(handle.fd.as_fd(), name, join(&handle.path, name)) {
            Ok(entry) => {
                bytes += size(&entry);
                entries.push(entry);
            }
            // Removed since it was read.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(FsError::at(error, "cannot list", &handle.path)),
        }
    }
    Ok(entries)
}

fn size(entry: &FsEntry) -> usize {
    entry.path.len() + ENTRY_BYTES
}

fn join(dir: &str, name: &CStr) -> String {
    format!("{}/{}", dir.trim_end_matches('/'), names::to_text(name.to_bytes()))
}

/// Describes `name` in `dir`, or `dir` itself if the name is empty.
fn describe(dir: BorrowedFd<'_>, name: &CStr, path: String) -> Result<FsEntry, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let stat = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    Ok(entry(&stat, path))
}

fn entry(stat: &Statx, path: String) -> FsEntry {
    let kind = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "symlink",
        _ => "other",
    };
    let born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    FsEntry {
        path,
        kind: kind.to_owned(),
        size: stat.stx_size,
        mode: u32::from(stat.stx_mode),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        atime: Some(stat.stx_atime.tv_sec),
        mtime: Some(stat.stx_mtime.tv_sec),
        modified: Some(stat.stx_mtime.tv_sec),
        created: born.then_some(stat.stx_btime.tv_sec),
        mtime_nanos: Some(stat.stx_mtime.tv_nsec).filter(|nanos| *nanos != 0),
    }
}
