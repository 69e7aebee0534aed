//! What a file must be before anything of it is loaded or mapped: read, never executed.
//!
//! The dynamic loader trusts program headers: a segment beyond the end of a truncated file would be mapped, and touching
//! it kills the process (SIGBUS). So everything is checked on the bytes first.

use elf::ElfBytes;
use elf::abi;
use elf::endian::LittleEndian;

use super::{ABI, FILE_NAME, INSTALL_HINT};
use microsandbox_core::error::Lack;

/// What the library has to export.
const EXPORTS: [&str; 3] = ["krunfw_get_version", "krunfw_get_kernel", BUNDLE];
/// The object with the kernel's image.
pub const BUNDLE: &str = "KERNEL_BUNDLE";

#[cfg(target_arch = "x86_64")]
const MACHINE: (u16, &str) = (abi::EM_X86_64, "x86-64");
#[cfg(target_arch = "aarch64")]
const MACHINE: (u16, &str) = (abi::EM_AARCH64, "aarch64");

/// Positions of parts of the library, in its file and in its own address space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Loaded segments with what is behind them in the file.
    pub segments: Vec<Segment>,
    /// Address and size of [`BUNDLE`].
    pub bundle: (u64, u64),
}

/// A part of the file that is loaded at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub address: u64,
    pub file_size: u64,
}

type Elf<'a> = ElfBytes<'a, LittleEndian>;

/// Checks `bytes`, the whole file. The error completes the sentence "the file …, ".
pub fn layout(bytes: &[u8]) -> Result<Layout, Lack> {
    if bytes.get(..4) != Some(b"\x7fELF") {
        return Err(wrong("which is not an ELF file"));
    }
    // e_ident: 64 bits, little-endian (elf(5)).
    if bytes.get(4..6) != Some(&[2, 1]) {
        return Err(other_machine("another kind of machine"));
    }
    let file =
        Elf::minimal_parse(bytes).map_err(|error| truncated(&format!("its headers cannot be read ({error})")))?;
    if file.ehdr.e_machine != MACHINE.0 {
        return Err(other_machine(&machine_name(file.ehdr.e_machine)));
    }
    if file.ehdr.e_type != abi::ET_DYN {
        return Err(wrong("which is an ELF file but no shared library"));
    }
    let segments = segments(&file, bytes.len() as u64)?;
    let (symbols, names) = file
        .dynamic_symbol_table()
        .map_err(|error| truncated(&format!("its symbols cannot be read ({error})")))?
        .ok_or_else(|| wrong("which exports nothing"))?;
    let mut bundle = None;
    for export in EXPORTS {
        let symbol = symbols.iter().find(|symbol| {
            !symbol.is_undefined() && names.get(symbol.st_name as usize).is_ok_and(|name| name == export)
        });
        let symbol = symbol.ok_or_else(|| wrong(&format!("which is not libkrunfw: it exports no {export}")))?;
        if export == BUNDLE {
            bundle = Some((symbol.st_value, symbol.st_size));
        }
    }
    soname(&file, |offset| names.get(offset).ok())?;
    // Found by the loop: BUNDLE is one of EXPORTS.
    bundle.map(|bundle| Layout { segments, bundle }).ok_or_else(|| wrong("which exports no kernel"))
}

fn segments(file: &Elf<'_>, length: u64) -> Result<Vec<Segment>, Lack> {
    let table = file.segments().ok_or_else(|| wrong("which has nothing to load"))?;
    let mut segments = Vec::new();
    for header in table.iter().filter(|header| header.p_type == abi::PT_LOAD) {
        let end = header.p_offset.checked_add(header.p_filesz);
        if end.is_none_or(|end| end > length) || header.p_filesz > header.p_memsz {
            return Err(truncated(&format!("its contents should reach beyond its {length} bytes")));
        }
        let (offset, address, file_size) = (header.p_offset, header.p_vaddr, header.p_filesz);
        segments.push(Segment { offset, address, file_size });
    }
    Ok(segments)
}

/// The name that the library gives itself carries the version of its binary interface.
fn soname<'a>(file: &Elf<'_>, name: impl Fn(usize) -> Option<&'a str>) -> Result<(), Lack> {
    let table = file.dynamic().map_err(|error| truncated(&format!("its dynamic section cannot be read ({error})")))?;
    let entry = table.and_then(|table| table.iter().find(|entry| entry.d_tag == abi::DT_SONAME));
    let soname = entry.and_then(|entry| name(usize::try_from(entry.d_val()).ok()?));
    match soname {
        Some(FILE_NAME) => Ok(()),
        Some(other) => match other.strip_prefix("libkrunfw.so.") {
            Some(abi) => Err(other_abi(abi)),
            None => Err(wrong(&format!("which is not libkrunfw: it calls itself {other}"))),
        },
        None => Err(wrong("which is not libkrunfw: it has no name of its own (SONAME)")),
    }
}

fn wrong(reason: &str) -> Lack {
    Lack::new(reason, INSTALL_HINT)
}

fn truncated(what: &str) -> Lack {
    Lack::new(
        format!("which is truncated or damaged: {what}"),
        "copy it again, or bring it in with `msb install libkrunfw`",
    )
}

fn other_machine(which: &str) -> Lack {
    Lack::new(
        format!("which was built for {which}, not for this machine's 64-bit {}", MACHINE.1),
        format!("take the {FILE_NAME} of this architecture"),
    )
}

/// The library is of another generation.
pub fn other_abi(abi: &str) -> Lack {
    Lack::new(
        format!("which has ABI {abi} instead of {ABI}"),
        format!("this version works with {FILE_NAME}: `msb install libkrunfw` brings it in"),
    )
}

fn machine_name(machine: u16) -> String {
    match machine {
        abi::EM_X86_64 => "x86-64".into(),
        abi::EM_AARCH64 => "aarch64".into(),
        abi::EM_RISCV => "RISC-V".into(),
        abi::EM_386 => "32-bit x86".into(),
        other => format!("machine type {other}"),
    }
}
