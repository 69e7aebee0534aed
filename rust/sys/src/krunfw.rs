//! The two functions of libkrunfw, called.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

type GetVersion = unsafe extern "C" fn() -> c_int;
type GetKernel = unsafe extern "C" fn(*mut u64, *mut u64, *mut usize) -> *const c_char;

/// Why the library does not answer.
#[derive(Debug)]
pub enum Error {
    /// It cannot be loaded, or lacks a symbol.
    Load(libloading::Error),
    /// It has another version of its interface.
    Version(i32),
}

impl From<libloading::Error> for Error {
    fn from(error: libloading::Error) -> Error {
        Error::Load(error)
    }
}

/// What the library says about its kernel.
#[derive(Debug)]
pub struct Answer {
    /// Where the loader has placed the image, and the object that holds it.
    pub image: u64,
    pub bundle: u64,
    pub size: u64,
    pub guest_addr: u64,
    pub entry_addr: u64,
}

/// Loads the library at `path`, asks it, and unloads it. `abi` is the version of its interface.
///
/// The caller has checked that the file is a complete shared library of this machine that exports the interface of
/// libkrunfw: loading it runs its constructors.
pub fn ask(path: &Path, abi: u32) -> Result<Answer, Error> {
    // SAFETY: by contract the file is libkrunfw, whose constructors are the C runtime's. RTLD_LOCAL keeps its names out
    // of the way of the caller's libraries.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }?;
    // SAFETY: the signatures are those of libkrunfw 4 and 5; the version is asked first and has had this form always.
    // The three out-pointers live until the call returns. The address of the object is only compared, never read.
    unsafe {
        let version: Symbol<GetVersion> = library.get(b"krunfw_get_version\0")?;
        let version = version();
        if u32::try_from(version) != Ok(abi) {
            return Err(Error::Version(version));
        }
        let bundle: Symbol<*const c_void> = library.get(b"KERNEL_BUNDLE\0")?;
        let bundle = bundle.into_raw() as u64;
        let get_kernel: Symbol<GetKernel> = library.get(b"krunfw_get_kernel\0")?;
        let (mut guest_addr, mut entry_addr, mut size) = (0, 0, 0);
        let image = get_kernel(&mut guest_addr, &mut entry_addr, &mut size) as u64;
        Ok(Answer { image, bundle, size: size as u64, guest_addr, entry_addr })
    }
}
