//! What a specification must satisfy before anything is created.

pub mod mounts;

use std::collections::BTreeMap;
use std::path::Path;

use microsandbox_rooted::named::Named;
use rustix::fs::FileType;

use crate::config::LocalConfig;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::guest_dirs::GuestDirs;
use crate::model::{ImageSource, SandboxSpec, SecurityProfile, validate_stored_name};

/// Ids in one sandbox: 0 to 65535.
pub const ID_RANGE: u32 = 65_536;
/// Below this a guest cannot even hold its agent (`sandbox.memory_min`).
pub const MEMORY_MIN_MIB: u32 = 16;
/// The same for a guest with a kernel of its own.
pub const MICROVM_MEMORY_MIN_MIB: u32 = 64;
/// All of `env` together (`sandbox.env_total`).
pub const ENV_TOTAL: usize = 1 << 20;
/// Linux's `HOST_NAME_MAX`.
const HOSTNAME_MAX: usize = 64;

/// Checks everything that can be checked without touching anything.
pub fn spec(spec: &SandboxSpec, config: &LocalConfig) -> MicrosandboxResult<()> {
    validate_stored_name("sandbox", &spec.name)?;
    resources(spec)?;
    environment(spec)?;
    labels(spec)?;
    lifecycle(spec)?;
    runtime(spec)?;
    init(spec)?;
    mounts::check(&spec.mounts, config)?;
    image(&spec.image, config)
}

pub(crate) fn invalid<T>(text: String) -> MicrosandboxResult<T> {
    Err(MicrosandboxError::InvalidConfig(text))
}

fn resources(spec: &SandboxSpec) -> MicrosandboxResult<()> {
    let resources = &spec.resources;
    let host_mib = host_memory_mib();
    if resources.cpus == 0 {
        return invalid("cpus must be 1 to 255: got 0".into());
    }
    if resources.memory_mib < MEMORY_MIN_MIB || u64::from(resources.memory_mib) > host_mib {
        return invalid(format!(
            "memory must be {MEMORY_MIN_MIB} to {host_mib} MiB (the memory of this machine): got {}",
            resources.memory_mib
        ));
    }
    if resources.max_cpus < resources.cpus || resources.max_memory_mib < resources.memory_mib {
        return invalid("max_cpus and max_memory must not be below cpus and memory".into());
    }
    for limit in &spec.rlimits {
        if limit.soft > limit.hard {
            return invalid(format!("rlimit {}: soft {} is above hard {}", limit.resource, limit.soft, limit.hard));
        }
    }
    Ok(())
}

/// What a machine needs beyond what every sandbox needs.
pub fn microvm(spec: &SandboxSpec) -> MicrosandboxResult<()> {
    let resources = &spec.resources;
    if resources.memory_mib < MICROVM_MEMORY_MIN_MIB {
        return invalid(format!(
            "memory of a microVM must be {MICROVM_MEMORY_MIN_MIB} to {} MiB (the memory of this machine), because its kernel \
             needs some itself: got {}",
            host_memory_mib(),
            resources.memory_mib
        ));
    }
    // A program that wants two has them on a machine with one, too; many more would only wait for each other.
    let most = 2 * host_cpus();
    if usize::from(resources.cpus) > most {
        return invalid(format!(
            "cpus of a microVM must be 1 to {most} (twice the processors of this machine): got {}",
            resources.cpus
        ));
    }
    Ok(())
}

/// Processors that are online, whatever share of them this process has.
fn host_cpus() -> usize {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let counted = online.and_then(|text| cpus_in(text.trim()));
    counted.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1)
}

/// How many processors a list like `0-3,8` names (cpuset(7), list format).
fn cpus_in(list: &str) -> Option<usize> {
    list.split(',').try_fold(0, |count, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(count + last.checked_sub(first)? + 1)
    })
}

fn host_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map_or(u64::from(u32::MAX), |kib| kib / 1024)
}

fn environment(spec: &SandboxSpec) -> MicrosandboxResult<()> {
    let mut total = 0;
    for var in &spec.env {
        variable(&var.key, &var.value)?;
        if var.key.starts_with("MSB_") {
            return invalid(format!("environment variable {}: names that begin with MSB_ are reserved", var.key));
        }
        total += var.key.len() + var.value.len() + 2;
    }
    if total > ENV_TOTAL {
        return invalid(format!("the environment is {total} bytes; sandbox.env_total is {ENV_TOTAL}"));
    }
    Ok(())
}

fn init(spec: &SandboxSpec) -> MicrosandboxResult<()> {
    let Some(init) = &spec.init else { return Ok(()) };
    if spec.security_profile == SecurityProfile::Restricted {
        return invalid("init: an init system mounts and starts services with privileges of their own; security=RESTRICTED refuses both, so give one of the two".into());
    }
    if init.cmd != "auto" && !init.cmd.starts_with('/') {
        return invalid(format!("init: cmd must be an absolute path inside, or \"auto\": got {:?}", init.cmd));
    }
    if std::iter::once(&init.cmd).chain(&init.args).any(|word| word.contains('\0')) {
        return invalid("init: cmd and args must not hold NUL bytes".into());
    }
    let total: usize = init.args.iter().map(|word| word.len() + 1).sum();
    if total > ENV_TOTAL {
        return invalid(format!("init: args are {total} bytes; the limit is {ENV_TOTAL}"));
    }
    init.env.iter().try_for_each(|(key, value)| variable(key, value))
}

/// One `K=V`: what `execve(2)` can carry.
pub fn variable(key: &str, value: &str) -> MicrosandboxResult<()> {
    if key.is_empty() || key.contains(['=', '\0']) {
        return invalid(format!("environment variable name {key:?} must not be empty or hold = or NUL"));
    }
    if value.contains('\0') {
        return invalid(format!("the value of environment variable {key} holds NUL"));
    }
    Ok(())
}

fn labels(spec: &SandboxSpec) -> MicrosandboxResult<()> {
    label_keys(&spec.labels)
}

/// Of sandboxes and volumes alike.
pub fn label_keys(labels: &BTreeMap<String, String>) -> MicrosandboxResult<()> {
    const RESERVED: [&str; 3] = ["sandbox.", "microsandbox.", "service."];
    for key in labels.keys() {
        if key.is_empty() {
            return invalid("a label key must not be empty".into());
        }
        if let Some(prefix) = RESERVED.iter().find(|prefix| key.starts_with(**prefix)) {
            return invalid(format!("label key {key:?}: the prefix {prefix} is reserved"));
        }
    }
    Ok(())
}

fn lifecycle(spec: &SandboxSpec) -> MicrosandboxResult<()> {
    let policy = &spec.lifecycle;
    for (what, value) in [("max_duration", policy.max_duration_secs), ("idle_timeout", policy.idle_timeout_secs)] {
        if let Some(secs) = value
            && !(secs.is_finite() && secs > 0.0)
        {
            return invalid(format!("{what} must be a positive number of seconds: got {secs}"));
        }
    }
    Ok(())
}

fn runtime(spec: &SandboxSpec) -> MicrosandboxResult<()> {
    let options = &spec.runtime;
    if let Some(hostname) = &options.hostname
        && (hostname.is_empty() || hostname.len() > HOSTNAME_MAX || hostname.contains(['\0', '/', '\n', ' ']))
    {
        return invalid(format!(
            "hostname must be 1 to {HOSTNAME_MAX} bytes without spaces or slashes: got {hostname:?}"
        ));
    }
    if let Some(workdir) = &options.workdir
        && (!workdir.starts_with('/') || workdir.contains('\0'))
    {
        return invalid(format!("workdir must be an absolute path in the sandbox: got {workdir:?}"));
    }
    if let Some(user) = &options.user {
        user_text(user)?;
    }
    for name in options.scripts.keys() {
        if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
            return invalid(format!("script name {name:?} must be a plain file name"));
        }
    }
    Ok(())
}

/// A user as `name`, `uid`, `uid:gid` or `name:group`; strict, whole string or error.
pub fn user_text(user: &str) -> MicrosandboxResult<()> {
    let fail = || invalid(format!("user {user:?} must be a name, a uid, or uid:gid (ids 0 to 4294967294)"));
    let mut parts = user.split(':');
    let (first, second, rest) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    if rest.is_some() {
        return fail();
    }
    for part in std::iter::once(first).chain(second) {
        let numeric = part.bytes().all(|b| b.is_ascii_digit());
        let named = part.bytes().enumerate().all(|(at, b)| {
            b.is_ascii_alphabetic() || b == b'_' || (at > 0 && (b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'$')))
        });
        let in_range = !numeric || part.parse::<u32>().is_ok_and(|id| id != u32::MAX);
        if part.is_empty() || !(numeric || named) || !in_range {
            return fail();
        }
    }
    Ok(())
}

fn image(image: &ImageSource, config: &LocalConfig) -> MicrosandboxResult<()> {
    match image {
        ImageSource::Oci { reference } if reference.trim().is_empty() => invalid("image must not be empty".into()),
        ImageSource::Bind { path } => directory_root(path, config).map(drop),
        ImageSource::DiskImage { .. } => {
            Err(MicrosandboxError::unsupported("disk-image rootfs", crate::backend::available_when::DISK_IMAGES))
        }
        ImageSource::Host { .. } | ImageSource::Oci { .. } => Ok(()),
    }
}

/// A directory as root file system must not contain a state directory, nor be inside one. It is resolved once: what is checked here
/// is what becomes the root.
pub fn directory_root(path: &Path, config: &LocalConfig) -> MicrosandboxResult<Named> {
    if matches!(path.metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        return invalid(format!("rootfs bind path does not exist: {}", path.display()));
    }
    let path = std::path::absolute(path).unwrap_or(path.to_owned());
    let named = GuestDirs::of(&config.home)?.resolve("rootfs bind path", &path)?;
    if FileType::from_raw_mode(named.stat.st_mode) != FileType::Directory {
        return invalid(format!("rootfs bind path is not a directory: {}", path.display()));
    }
    if let Some(state) = mounts::overlapping_state(&named, config) {
        return invalid(format!(
            "rootfs bind path {} overlaps the state directory {}; choose a directory of its own",
            path.display(),
            state.display()
        ));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(memory_mib: u32, cpus: u8) -> SandboxSpec {
        let mut spec = SandboxSpec { name: "box".into(), ..SandboxSpec::default() };
        (spec.resources.memory_mib, spec.resources.cpus) = (memory_mib, cpus);
        spec
    }

    fn refused(spec: &SandboxSpec) -> String {
        let error = microvm(spec).unwrap_err();
        assert!(matches!(error, MicrosandboxError::InvalidConfig(_)), "{error:?}");
        error.to_string()
    }

    #[test]
    fn a_machine_has_room_for_its_kernel() {
        let text = refused(&with(MICROVM_MEMORY_MIN_MIB - 1, 1));
        assert!(text.contains("64 to ") && text.contains("got 63"), "{text}");
        microvm(&with(MICROVM_MEMORY_MIN_MIB, 1)).unwrap();
    }

    #[test]
    fn a_machine_has_at_most_twice_the_processors_of_the_host() {
        let most = 2 * host_cpus();
        microvm(&with(512, u8::try_from(most.min(255)).unwrap())).unwrap();
        if let Ok(beyond) = u8::try_from(most + 1) {
            let text = refused(&with(512, beyond));
            assert!(text.contains(&format!("1 to {most} ")) && text.contains(&format!("got {beyond}")), "{text}");
        }
    }

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(cpus_in("0"), Some(1));
        assert_eq!(cpus_in("0-3,8,10-11"), Some(7));
        assert_eq!(cpus_in(""), None);
        assert_eq!(cpus_in("3-1"), None);
    }
}
