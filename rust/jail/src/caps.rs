//! Capabilities and resource limits of the sandbox's init, and of the runtime itself after the boot.

use microsandbox_protocol::capabilities::PROGRAM_CAPABILITIES;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What root inside a container may do, within its own user namespace.
pub const PROGRAMS: CapabilitySet = CapabilitySet::from_bits_retain(PROGRAM_CAPABILITIES);

/// What a virtual machine monitor needs to serve the guest's files with their owners, within its own user namespace.
pub const MONITOR: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// Leaves only `kept` in every set, none inheritable or ambient, and refuses privilege gain on exec for good.
pub fn drop_to(kept: CapabilitySet) -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    for number in 0..64u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            // The kernel knows no capability of this number, nor any beyond it.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    set_no_new_privs(true)
}

/// Leaves the runtime of host root what supervising takes: ending processes of mapped ids, writing in its own home.
pub fn drop_to_supervisor() -> Result<(), Errno> {
    let kept = CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE;
    let now = rustix::thread::capabilities(None)?;
    let permitted = now.permitted & kept;
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() })?;
    set_no_new_privs(true)
}

/// Leaves this process no capability at all, and refuses privilege gain on exec for good.
pub fn drop_all() -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)
}

/// Bounds the processes of each user inside this user namespace, in place of a control group that is not available.
pub fn limit_processes(pids: u32) -> Result<(), Errno> {
    lower(Resource::Nproc, u64::from(pids))
}

/// Bounds the private memory of each process, in place of a control group that is not available.
pub fn limit_data(memory_mib: u64) -> Result<(), Errno> {
    lower(Resource::Data, memory_mib.saturating_mul(1 << 20))
}

/// To `most`, or to what this process may have where that is less.
fn lower(resource: Resource, most: u64) -> Result<(), Errno> {
    let limit = Some(getrlimit(resource).maximum.map_or(most, |host| host.min(most)));
    setrlimit(resource, Rlimit { current: limit, maximum: limit })
}

/// As many open files as this process may have.
pub fn raise_files() -> Result<(), Errno> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
}
