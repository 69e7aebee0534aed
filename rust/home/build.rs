//! Builds the three static programs that the extension embeds: `msb-agent`, `msb-runtime` and `msb-vmm`.
//!
//! They need `-C target-feature=+crt-static` and an explicit target, which the extension (a cdylib) must not have, so
//! they come from a cargo invocation of their own with its own target directory. A packager may hand them over ready
//! made: `MSB_EMBED_DIR` names a directory that holds them.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    println!("cargo:rerun-if-env-changed=MSB_EMBED_DIR");
    let out = PathBuf::from(variable("OUT_DIR"));
    let built = match std::env::var_os("MSB_EMBED_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            nested_build(&PathBuf::from(variable("CARGO_MANIFEST_DIR")), &out, &variable("CARGO"), &variable("TARGET"))
        }
    };
    for program in ["msb-agent", "msb-runtime", "msb-vmm"] {
        let source = built.join(program);
        println!("cargo:rerun-if-changed={}", source.display());
        std::fs::copy(&source, out.join(program)).unwrap_or_else(|e| panic!("copy {}: {e}", source.display()));
    }
}

/// Returns the directory with the finished programs.
#[allow(clippy::disallowed_methods, reason = "a build script runs cargo")]
fn nested_build(manifest_dir: &Path, out: &Path, cargo: &str, target: &str) -> PathBuf {
    let workspace = manifest_dir.join("../..");
    let crates = ["agent", "runtime", "vmm", "protocol", "contract", "jail", "cgroups", "sys", "rooted"];
    for input in crates.map(|name| format!("rust/{name}")).into_iter().chain(["Cargo.lock".into(), "Cargo.toml".into()])
    {
        println!("cargo:rerun-if-changed={}", workspace.join(&input).display());
    }
    // `<target>/<profile>/build/<unit>/out`. Lints and tests build this crate with other features of its dependencies, each a unit of
    // its own; the programs are the same for all.
    let target_dir = out.ancestors().nth(3).unwrap_or(out).join("guest");
    // One program out of all crates, optimised as a whole, costs minutes: a wheel to install has it, tests and lints do not.
    let profile =
        if std::env::var("OPT_LEVEL").is_ok_and(|level| level == "3") { "embedded" } else { "embedded-tested" };
    let mut command = Command::new(cargo);
    // What the outer invocation chose for the cdylib must not leak in.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_ENCODED") || text.starts_with("CARGO_PROFILE") || text.starts_with("CARGO_BUILD") {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(&workspace)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .args(["build", "--locked", "--profile", profile, "--target", target, "--target-dir"])
        .arg(&target_dir)
        .args(["-p", "microsandbox-agent", "-p", "microsandbox-runtime", "-p", "microsandbox-vmm", "--bins"]);
    if std::env::var_os("CARGO_FEATURE_FAILPOINTS").is_some() {
        command.args(["--features", "microsandbox-runtime/failpoints"]);
    }
    let status = command.status().unwrap_or_else(|e| panic!("run cargo for the embedded programs: {e}"));
    assert!(status.success(), "building the embedded programs failed: {status}");
    target_dir.join(target).join(profile)
}
