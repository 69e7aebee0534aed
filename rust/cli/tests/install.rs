//! `msb install` from files, on a home of the test's own. The download is tested in the core.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, local, msb, msb_alone};
use microsandbox_core::SharedBackend;
use microsandbox_fake::MemoryBackend;

const SOURCE: &str = "
__attribute__((aligned(4096))) char KERNEL_BUNDLE[4097] = {1};
int krunfw_get_version(void) { return 5; }
char *krunfw_get_kernel(unsigned long long *load, unsigned long long *entry, unsigned long *size)
{ *load = *entry = 0x1000000; *size = 4096; return KERNEL_BUNDLE; }
";

/// A library without a kernel, but with everything else.
fn library(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("lib.c"), dir.join("lib.so"));
    std::fs::write(&source, SOURCE).unwrap();
    #[allow(clippy::disallowed_methods, reason = "libraries come from a compiler")]
    let status = Command::new("cc")
        .args(["-shared", "-nostdlib", "-fPIC", "-w", "-Wl,-soname,libkrunfw.so.5", "-o"])
        .args([&library, &source])
        .status()
        .expect("cc must be there: it links Rust programs as well");
    assert!(status.success());
    library
}

#[test]
fn a_file_is_installed_and_the_doctor_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let (home, library) = (dir.path().join("home"), library(dir.path()));
    let backend = local(&home);
    let ran = msb(&backend, &["install", "libkrunfw", "--from", library.to_str().unwrap()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let installed = home.join("lib/libkrunfw.so.5");
    let mut lines = ran.out.lines();
    assert_eq!(lines.next().unwrap(), installed.to_str().unwrap());
    assert_eq!(lines.next().unwrap(), "installed: not verified: its digest is not known to this version");
    assert!(lines.next().unwrap().starts_with("sha256:"));
    assert!(lines.next().unwrap().contains("LGPL-2.1-only") && ran.out.contains("GPL-2.0-only"), "{}", ran.out);
    let ran = msb(&backend, &["install", "libkrunfw", "--format", "json", "--from", library.to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["path"].as_str(), installed.to_str());
}

#[test]
fn a_file_other_than_a_library_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let backend = local(&dir.path().join("home"));
    let Ran { code, out, err } = msb(&backend, &["install", "libkrunfw", "--from", file.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(file.to_str().unwrap()) && err.contains("neither a shared library nor a wheel"), "{err}");
    assert!(!dir.path().join("home").exists(), "a refusal creates nothing");
    let ran = msb(&backend, &["install", "libkrunfw", "--from", "/nonexistent/file"]);
    assert!(ran.code == 1 && ran.err.contains("/nonexistent/file"), "{ran:?}");
}

#[test]
fn libkrunfw_is_for_the_local_backend_only() {
    let backend: SharedBackend = std::sync::Arc::new(MemoryBackend::new());
    let ran = msb(&backend, &["install", "libkrunfw"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("sandboxes on this machine"), "{}", ran.err);
}

#[test]
fn commands_are_for_the_local_backend_only() {
    let memory: SharedBackend = std::sync::Arc::new(MemoryBackend::new());
    let ran = msb(&memory, &["install", "host", "-n", "x", "--", "true"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.starts_with("error: installed commands run in sandboxes of this machine"), "{}", ran.err);
    assert_eq!(msb_alone(&["install"]).code, 2);
}
