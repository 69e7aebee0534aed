//! Calls the two functions of the library, which report where its kernel is and where in the guest it has to be.

use std::fs::File;
use std::os::fd::AsRawFd;

use microsandbox_contract::KernelSpec;
use microsandbox_sys::krunfw;

use super::ABI;
use super::inspect::{BUNDLE, Layout, Segment, other_abi};
use microsandbox_core::error::Lack;

/// What the library says about its kernel.
struct Claim {
    /// Address of the image in the library's own address space.
    address: u64,
    size: u64,
    guest_addr: u64,
    entry_addr: u64,
}

/// Loads `file`, whose bytes passed [`super::inspect::layout`], calls its functions, and unloads it.
pub fn kernel(file: &File, layout: &Layout) -> Result<KernelSpec, Lack> {
    place(&ask(file, layout)?, layout)
}

fn ask(file: &File, layout: &Layout) -> Result<Claim, Lack> {
    let hint = "is it on a file system mounted noexec, or for another C library? `msb install libkrunfw` brings one in";
    // Through the descriptor: what was checked is what is loaded.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let answer = krunfw::ask(path.as_ref(), ABI).map_err(|error| match error {
        krunfw::Error::Load(error) => Lack::new(format!("which cannot be loaded: {error}"), hint),
        krunfw::Error::Version(version) => other_abi(&version.to_string()),
    })?;
    let krunfw::Answer { image, bundle, size, guest_addr, entry_addr } = answer;
    // From where the loader put the library back to the addresses of its file.
    let address = image.wrapping_sub(bundle).wrapping_add(layout.bundle.0);
    Ok(Claim { address, size, guest_addr, entry_addr })
}

/// Checks the claim against the file: every byte of the image has to be in the file, and the image on whole pages.
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
        return absurd(&format!("its image is not within {BUNDLE}"));
    }
    let home = layout.segments.iter().find(|segment| within(segment.address, segment.file_size));
    let Some(Segment { offset, address: base, .. }) = home else {
        return absurd("its image is not within the file");
    };
    let offset = offset + (address - base);
    if [offset, size, guest_addr].iter().any(|number| number % page != 0) {
        return absurd("its image is not aligned to whole pages");
    }
    if guest_addr.checked_add(size).is_none_or(|end| !(guest_addr..end).contains(&entry_addr)) {
        return absurd("its entry point is outside its image");
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
            (Claim { size: 4 * PAGE, ..claim() }, "is not within KERNEL_BUNDLE"),
            (Claim { size: 0, ..claim() }, "is not within KERNEL_BUNDLE"),
            (Claim { address: u64::MAX - PAGE, ..claim() }, "is not within KERNEL_BUNDLE"),
            (Claim { address: 0, ..claim() }, "is not within KERNEL_BUNDLE"),
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
