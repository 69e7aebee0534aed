//! Interpreter prefixes: which may be shown, and the directories to which their interpreters resolve.

use std::path::{Path, PathBuf};

use microsandbox_contract::BindSpec;

use super::machine::Machine;
use super::{is_bound, readonly, refused};
use microsandbox_core::error::MicrosandboxResult;

/// Never shown as a whole: they hold what belongs to the machine or to people.
const NEVER: [&str; 14] = [
    "/",
    "/home",
    "/mnt",
    "/media",
    "/opt",
    "/srv",
    "/tmp",
    "/var",
    "/var/lib",
    "/var/tmp",
    "/root",
    "/lost+found",
    "/snap",
    "/usr/home",
];
/// Never shown, nor anything beneath them.
const NEVER_BENEATH: [&str; 7] = ["/etc", "/proc", "/sys", "/dev", "/run", "/boot", "/.msb"];
/// Names of the interpreter in a prefix.
const INTERPRETERS: [&str; 2] = ["bin/python3", "bin/python"];

/// Adds binds for `prefixes` and for the installations their interpreters link to. Returns the prefixes, in order.
pub fn collect(machine: &Machine, binds: &mut Vec<BindSpec>, prefixes: &[PathBuf]) -> MicrosandboxResult<Vec<PathBuf>> {
    for prefix in prefixes {
        show(machine, binds, prefix)?;
        for interpreter in INTERPRETERS {
            for installation in installations(machine, &prefix.join(interpreter)) {
                show(machine, binds, &installation)?;
            }
        }
    }
    let mut shown = prefixes.to_vec();
    shown.dedup();
    Ok(shown)
}

/// Shows a directory at its own path, and also at its resolved path if links lead to it.
fn show(machine: &Machine, binds: &mut Vec<BindSpec>, path: &Path) -> MicrosandboxResult<()> {
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(refused(path, "it is not a plain absolute path"));
    }
    let real = machine.resolve(path).filter(|real| machine.is_dir(real));
    let real = real.ok_or_else(|| refused(path, "there is no such directory"))?;
    for target in [real.as_path(), path] {
        if is_bound(binds, target) {
            let hidden = machine.private_dirs().find(|dir| target.starts_with(dir) && is_bound(binds, dir));
            match hidden {
                Some(dir) => return Err(refused(path, &format!("it is inside {}, which stays hidden", dir.display()))),
                None => continue,
            }
        }
        check(machine, target).map_err(|why| refused(path, &why))?;
        binds.push(readonly(machine, &real, target));
    }
    Ok(())
}

/// Whether a directory that is not part of the system may be shown.
fn check(machine: &Machine, path: &Path) -> Result<(), String> {
    if path.to_str().is_none() {
        return Err("its path is not UTF-8".into());
    }
    if NEVER.iter().any(|dir| path == Path::new(dir)) || path.parent() == Some(Path::new("/home")) {
        return Err("it holds more than an interpreter".into());
    }
    if let Some(dir) = NEVER_BENEATH.iter().find(|dir| path.starts_with(dir)) {
        return Err(format!("nothing beneath {dir} is ever shown"));
    }
    if let Some(home) = machine.homes().iter().find(|home| home.starts_with(path)) {
        return Err(if home == path { "it is a home directory".into() } else { "a home directory is in it".into() });
    }
    if let Some(dir) = machine.product().iter().find(|dir| dir.starts_with(path) || path.starts_with(dir)) {
        return Err(format!("it overlaps the microsandbox directory {}", dir.display()));
    }
    Ok(())
}

/// The installation directories (above `bin`) of every path that leads to the interpreter, except its own.
fn installations(machine: &Machine, interpreter: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut add = |path: &Path| {
        let bin = path.parent().filter(|dir| dir.file_name().is_some_and(|name| name == "bin"));
        if let Some(root) = bin.and_then(Path::parent) {
            let root = root.to_owned();
            if !found.contains(&root) {
                found.push(root);
            }
        }
    };
    let real = machine.resolve_visiting(interpreter, &mut add);
    let Some(real) = real.filter(|real| machine.metadata(real).is_some_and(|meta| meta.is_file())) else {
        return Vec::new();
    };
    add(&real);
    // `bin/../bin`: a path with a step back is reached through the plain ones.
    found.retain(|path| path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir));
    found
}
