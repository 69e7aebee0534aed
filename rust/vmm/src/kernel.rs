//! The guest kernel and the agent, mapped from the files that hold them: nothing is copied before the guest runs it.
#![allow(unsafe_code, reason = "mmap")]

use microsandbox_contract::KernelSpec;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Maps the kernel's image, private and writable: the guest runs in it, the file never changes. The address.
pub fn map(library: &OwnedFd, spec: &KernelSpec) -> Result<u64, Errno> {
    let size = usize::try_from(spec.size).map_err(|_| Errno::OVERFLOW)?;
    let length = rustix::fs::fstat(library)?.st_size as u64;
    if spec.size == 0 || spec.offset.checked_add(spec.size).is_none_or(|end| end > length) {
        return Err(Errno::INVAL);
    }
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice; nothing of this process lies there. It is never unmapped.
    let address =
        unsafe { mmap(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, flags, library, spec.offset)? };
    Ok(address as u64)
}

/// A sealed file as bytes that stay for the life of the process.
pub fn map_whole(file: &OwnedFd) -> Result<&'static [u8], Errno> {
    let size = usize::try_from(rustix::fs::fstat(file)?.st_size).map_err(|_| Errno::OVERFLOW)?;
    if size == 0 {
        return Err(Errno::NOEXEC);
    }
    // SAFETY: a new read-only mapping of a file that is sealed against writing and shrinking, so the bytes behind the
    // slice neither change nor vanish; it is never unmapped.
    unsafe {
        let address = mmap(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::SHARED, file, 0)?;
        Ok(std::slice::from_raw_parts(address.cast::<u8>(), size))
    }
}

/// Asks for large pages behind memory that is mapped already.
pub fn advise_huge(start: *mut u8, size: usize) {
    // SAFETY: changes how the kernel backs the pages of a live mapping, never what is in them.
    let _ = unsafe { rustix::mm::madvise(start.cast(), size, rustix::mm::Advice::LinuxHugepage) };
}
