//! SQLite in a forked child.
//!
//! SQLite keeps a list of the files that the process has open, by inode, with the locks and descriptors that all its
//! connections share. A fork copies the list but not the locks: a child that opens the parent's database would find the lock
//! "held already" and take none, and would lock the index of the log by a number that a daemon has closed, or that is
//! another file by now. Other processes could then write at the same time, or remove the log. So each generation of a
//! process sees other inode numbers: it finds nothing of its parent's in the list and opens everything anew.

use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libsqlite3_sys::{SQLITE_OK, sqlite3_syscall_ptr, sqlite3_vfs_find};

/// The process that the generation belongs to, and above it the generation.
static STATE: AtomicU64 = AtomicU64::new(0);

/// To be called before a database is opened, in every process.
pub fn separate_from_parent() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    // A thread that comes while this is being done opens in the first generation, in which nothing is different.
    if !INSTALLED.swap(true, Ordering::AcqRel) {
        install();
    }
    let pid = u64::from(std::process::id());
    let before = STATE.load(Ordering::Acquire);
    if before & 0xffff_ffff == pid {
        return;
    }
    let generation = if before == 0 { 0 } else { (before >> 32) + 1 };
    // Where this fails, another thread of this process was faster.
    let _ = STATE.compare_exchange(before, generation << 32 | pid, Ordering::AcqRel, Ordering::Acquire);
}

fn salted(inode: u64) -> u64 {
    // The constant spreads small numbers over all bits (Knuth, The Art of Computer Programming 3, 6.4).
    inode ^ (STATE.load(Ordering::Acquire) >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

unsafe extern "C" fn fstat(fd: c_int, stat: *mut libc::stat) -> c_int {
    // SAFETY: SQLite calls this as fstat(2): `stat` is room for one.
    let result = unsafe { libc::fstat(fd, stat) };
    if result == 0 {
        // SAFETY: the kernel filled it.
        unsafe { (*stat).st_ino = salted((*stat).st_ino) };
    }
    result
}

unsafe extern "C" fn stat(path: *const c_char, stat: *mut libc::stat) -> c_int {
    // SAFETY: SQLite calls this as stat(2): a path that ends with a zero, and room for one.
    let result = unsafe { libc::stat(path, stat) };
    if result == 0 {
        // SAFETY: the kernel filled it.
        unsafe { (*stat).st_ino = salted((*stat).st_ino) };
    }
    result
}

/// Replaces two system calls of SQLite's default file system by the salted ones.
fn install() {
    type Fstat = unsafe extern "C" fn(c_int, *mut libc::stat) -> c_int;
    type Stat = unsafe extern "C" fn(*const c_char, *mut libc::stat) -> c_int;
    // SAFETY: both are function pointers; SQLite calls each by the type that it stores under that name.
    let (fstat, stat): (sqlite3_syscall_ptr, sqlite3_syscall_ptr) = unsafe {
        (
            std::mem::transmute::<Fstat, sqlite3_syscall_ptr>(fstat),
            std::mem::transmute::<Stat, sqlite3_syscall_ptr>(stat),
        )
    };
    let calls: [(&CStr, sqlite3_syscall_ptr); 2] = [(c"fstat", fstat), (c"stat", stat)];
    // SAFETY: without a name it gives the default, which lives as long as the process.
    let vfs = unsafe { sqlite3_vfs_find(std::ptr::null()) };
    // SAFETY: the pointer is null or a file system of SQLite's.
    let Some(set) = (unsafe { vfs.as_ref() }).and_then(|vfs| vfs.xSetSystemCall) else { return };
    for (name, call) in calls {
        // SAFETY: the file system is alive, the name is one that it knows, the function has the type of that name.
        let done = unsafe { set(vfs, name.as_ptr(), call) };
        debug_assert_eq!(done, SQLITE_OK, "{name:?}");
    }
}
