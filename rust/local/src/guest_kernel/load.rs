//! The two functions of the library, called: where its kernel lies and where it wants to be.

#![allow(unsafe_code, reason = "the library's interface is C")]

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use microsandbox_protocol::launch::KernelSpec;

use super::ABI;
use super::inspect::{BUNDLE, Layout, Segment, other_abi};
use microsandbox_core::error::Lack;

type GetVersion = unsafe extern "C" fn() -> c_int;
type GetKernel = unsafe extern "C" fn(*mut u64, *mut u64, *mut usize) -> *const c_char;

/// What the library says about its kernel.
struct Claim {
    /// Address of the image in the library's own address space.
    address: u64,
    size: u64,
    guest_addr: u64,
    entry_addr: u64,
}

/// Loads `file`, whose bytes are [`super::inspect::layout`]'s, asks it, and unloads it.
pub fn kernel(file: &File, layout: &Layout) -> Result<KernelSpec, Lack> {
    place(&ask(file, layout)?, layout)
}

fn ask(file: &File, layout: &Layout) -> Result<Claim, Lack> {
    let hint = "is it on a file system mounted noexec, or for another C library? `msb install libkrunfw` brings one in";
    let fail = |error: libloading::Error| Lack::new(format!("which cannot be loaded: {error}"), hint);
    // Through the descriptor: what was checked is what is loaded.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the file is a complete shared library of this machine that exports libkrunfw's interface; its constructors
    // are the C runtime's. RTLD_LOCAL keeps its names out of the way of the caller's libraries.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(fail)?;
    // SAFETY: the signatures are those of libkrunfw 4 and 5; the version is asked first and has had this form always.
    // The three out-pointers live until the call returns. The address of the object is only compared, never read.
    unsafe {
        let version: Symbol<GetVersion> = library.get(b"krunfw_get_version\0").map_err(fail)?;
        let version = version();
        if u32::try_from(version) != Ok(ABI) {
            return Err(other_abi(&version.to_string()));
        }
        let bundle: Symbol<*const c_void> = library.get(b"KERNEL_BUNDLE\0").map_err(fail)?;
        let bundle = bundle.into_raw() as u64;
        let get_kernel: Symbol<GetKernel> = library.get(b"krunfw_get_kernel\0").map_err(fail)?;
        let (mut guest_addr, mut entry_addr, mut size) = (0, 0, 0);
        let image = get_kernel(&mut guest_addr, &mut entry_addr, &mut size) as u64;
        // From where the loader put the library back to the addresses of its file.
        let address = image.wrapping_sub(bundle).wrapping_add(layout.bundle.0);
        Ok(Claim { address, size: size as u64, guest_addr, entry_addr })
    }
}

/// The claim against the file: every byte of the image has to be there, and on pages.
fn place(claim: &Claim, layout: &Layout) -> Result<KernelSpec, Lack> {
    let Claim { address, size, guest_addr, entry_addr } = *claim;
    let absurd = |what: &str| {
        Err(Lack::new(
            format!("whose kernel cannot be used: {what}"),
            "the file is damaged or of a build that this version does not know; `msb install libkrunfw` brings one in",
        ))
    };
    let page = rustix::param::page_size() as u64;
    let within = |start: u64, length: u64| {
        address >= start && address.checked_add(size).is_some_and(|end| end <= start.saturating_add(length))
    };
    if size == 0 || !within(layout.bundle.0, layout.bundle.1) {
        return absurd(&format!("its image does not lie in {BUNDLE}"));
    }
    let home = layout.segments.iter().find(|segment| within(segment.address, segment.file_size));
    let Some(Segment { offset, address: base, .. }) = home else {
        return absurd("its image does not lie in the file");
    };
    let offset = offset + (address - base);
    if [offset, size, guest_addr].iter().any(|number| number % page != 0) {
        return absurd("its image does not lie on whole pages");
    }
    if guest_addr.checked_add(size).is_none_or(|end| !(guest_addr..end).contains(&entry_addr)) {
        return absurd("its entry point lies outside of its image");
    }
    Ok(KernelSpec { offset, size, guest_addr, entry_addr })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn layout() -> Layout {
        let segments = vec![
            Segment { offset: 0, address: 0, file_size: PAGE },
            Segment { offset: 2 * PAGE, address: 16 * PAGE, file_size: 4 * PAGE },
        ];
        Layout { segments, bundle: (16 * PAGE, 4 * PAGE + 1) }
    }

    fn claim() -> Claim {
        Claim { address: 17 * PAGE, size: 2 * PAGE, guest_addr: 256 * PAGE, entry_addr: 256 * PAGE + 0x123 }
    }

    #[test]
    fn an_image_is_found_in_the_file() {
        let spec = place(&claim(), &layout()).unwrap();
        let expected =
            KernelSpec { offset: 3 * PAGE, size: 2 * PAGE, guest_addr: 256 * PAGE, entry_addr: 256 * PAGE + 0x123 };
        assert_eq!(spec, expected);
    }

    #[test]
    fn claims_beyond_the_file_or_off_pages_are_refused() {
        let wrong = [
            (Claim { size: 4 * PAGE, ..claim() }, "does not lie in KERNEL_BUNDLE"),
            (Claim { size: 0, ..claim() }, "does not lie in KERNEL_BUNDLE"),
            (Claim { address: u64::MAX - PAGE, ..claim() }, "does not lie in KERNEL_BUNDLE"),
            (Claim { address: 0, ..claim() }, "does not lie in KERNEL_BUNDLE"),
            (Claim { size: PAGE + 1, ..claim() }, "whole pages"),
            (Claim { guest_addr: 1, ..claim() }, "whole pages"),
            (Claim { entry_addr: 0, ..claim() }, "entry point"),
            (Claim { guest_addr: u64::MAX - PAGE + 1, ..claim() }, "entry point"),
        ];
        for (claim, expected) in wrong {
            let lack = place(&claim, &layout()).unwrap_err();
            assert!(lack.reason.contains(expected), "{lack:?}");
        }
        let mut short = layout();
        short.segments[1].file_size = PAGE;
        assert!(place(&claim(), &short).unwrap_err().reason.contains("in the file"));
    }
}
