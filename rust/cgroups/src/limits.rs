//! Limits of a sandbox: what each controller is given at the boot, and how a running sandbox is resized.

use std::path::{Path, PathBuf};
use std::{fs, io};

use microsandbox_contract::{MechanismName, ResourceLimits};

/// Memory on top of the sandbox's limit, for its init (the agent) and page tables.
const MEMORY_OVERHEAD: u64 = 8 << 20;
/// Processes on top of the sandbox's limit: its init.
const PIDS_OVERHEAD: u64 = 1;
/// Length of the accounting period of the processor quota, microseconds.
const CPU_PERIOD_US: u64 = 100_000;

fn memory_bytes(memory_mib: u64) -> u64 {
    memory_mib.saturating_mul(1 << 20).saturating_add(MEMORY_OVERHEAD)
}

fn cpu_quota_us(cpus: u32) -> u64 {
    u64::from(cpus.max(1)) * CPU_PERIOD_US
}

/// A controller whose limit we set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    pub const ALL: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Pids];

    /// As the kernel calls it.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }

    /// As a report of isolation calls its limit.
    pub fn mechanism(self) -> MechanismName {
        match self {
            Controller::Memory => MechanismName::MemoryLimit,
            Controller::Cpu => MechanismName::CpuLimit,
            Controller::Pids => MechanismName::PidsLimit,
        }
    }
}

/// Writes the limit; an error names the file. Files that only some kernels have are tried without insisting.
pub fn set_limit(
    path: &Path,
    v2: bool,
    controller: Controller,
    limits: &ResourceLimits,
) -> Result<(), (&'static str, io::Error)> {
    match controller {
        Controller::Memory => {
            let bytes = memory_bytes(limits.memory_mib);
            set_memory(path, v2, bytes)?;
            if v2 {
                may(path, "memory.swap.max", 0);
            } else {
                may(path, "memory.memsw.limit_in_bytes", bytes);
                may(path, "memory.swappiness", 0);
            }
            Ok(())
        }
        Controller::Cpu => set_quota(path, v2, cpu_quota_us(limits.cpus)),
        Controller::Pids => must(path, "pids.max", u64::from(limits.pids) + PIDS_OVERHEAD),
    }
}

fn set_memory(path: &Path, v2: bool, bytes: u64) -> Result<(), (&'static str, io::Error)> {
    must(path, if v2 { "memory.max" } else { "memory.limit_in_bytes" }, bytes)
}

/// `quota` in microseconds of each period.
fn set_quota(path: &Path, v2: bool, quota: u64) -> Result<(), (&'static str, io::Error)> {
    if v2 {
        return must(path, "cpu.max", format!("{quota} {CPU_PERIOD_US}"));
    }
    may(path, "cpu.cfs_period_us", CPU_PERIOD_US);
    must(path, "cpu.cfs_quota_us", quota)
}

fn must(path: &Path, file: &'static str, value: impl ToString) -> Result<(), (&'static str, io::Error)> {
    fs::write(path.join(file), value.to_string()).map_err(|error| (file, error))
}

fn may(path: &Path, file: &'static str, value: u64) {
    let _ = must(path, file, value);
}

/// Memory of the supervisor: its own few MiB, and the pages of a log that waits for the disk.
const SUPERVISOR_MEMORY: u64 = 128 << 20;
/// Processor time of the supervisor in each period, microseconds: half of one processor.
const SUPERVISOR_QUOTA_US: u64 = CPU_PERIOD_US / 2;

/// Bounds the group of a supervisor.
pub fn set_limit_of_supervisor(path: &Path, v2: bool, controller: Controller) -> Result<(), (&'static str, io::Error)> {
    match controller {
        Controller::Memory => set_memory(path, v2, SUPERVISOR_MEMORY),
        Controller::Cpu => set_quota(path, v2, SUPERVISOR_QUOTA_US),
        // It starts no process after the boot.
        Controller::Pids => Ok(()),
    }
}

/// Bytes that the sandbox is charged for now; `None` where no group counts.
pub fn memory_in_use(groups: &[PathBuf]) -> Option<u64> {
    let files = ["memory.current", "memory.usage_in_bytes"];
    groups.iter().find_map(|group| files.iter().find_map(|file| read_number(&group.join(file))))
}

/// Gives a running sandbox this many processors; the file that holds the limit. `None` where no group limits them.
pub fn resize_cpus(groups: &[PathBuf], cpus: u32) -> Option<Result<PathBuf, (PathBuf, io::Error)>> {
    let quota = cpu_quota_us(cpus);
    write_first(groups, &[("cpu.max", format!("{quota} {CPU_PERIOD_US}")), ("cpu.cfs_quota_us", quota.to_string())])
}

/// Gives a running sandbox this much memory; the file that holds the limit. `None` where no group limits it.
pub fn resize_memory(groups: &[PathBuf], memory_mib: u64) -> Option<Result<PathBuf, (PathBuf, io::Error)>> {
    let bytes = memory_bytes(memory_mib);
    // The limit with swap may not be the lower one at any moment: raised before, lowered after.
    for group in groups {
        let swap = group.join("memory.memsw.limit_in_bytes");
        if read_number(&swap).is_some_and(|now| now < bytes) {
            let _ = fs::write(swap, bytes.to_string());
        }
    }
    let written =
        write_first(groups, &[("memory.max", bytes.to_string()), ("memory.limit_in_bytes", bytes.to_string())]);
    if matches!(written, Some(Ok(_))) {
        for group in groups {
            // Not `write`, which would create the file in a directory that only looks like a group.
            let swap = group.join("memory.memsw.limit_in_bytes");
            let _ = fs::OpenOptions::new()
                .write(true)
                .open(swap)
                .and_then(|mut file| io::Write::write_all(&mut file, bytes.to_string().as_bytes()));
        }
    }
    written
}

/// Writes the first of these files that a group has.
fn write_first(groups: &[PathBuf], files: &[(&str, String)]) -> Option<Result<PathBuf, (PathBuf, io::Error)>> {
    let (path, value) = groups.iter().find_map(|group| {
        files.iter().map(|(file, value)| (group.join(file), value)).find(|(path, _)| path.exists())
    })?;
    Some(match fs::write(&path, value) {
        Ok(()) => Ok(path),
        Err(error) => Err((path, error)),
    })
}

fn read_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resize_writes_what_the_boot_writes() {
        let group = tempfile::tempdir().unwrap();
        let limits = ResourceLimits { cpus: 2, memory_mib: 64, pids: 9 };
        for (v2, memory, cpu) in [(true, "memory.max", "cpu.max"), (false, "memory.limit_in_bytes", "cpu.cfs_quota_us")]
        {
            let group = group.path().join(memory);
            fs::create_dir(&group).unwrap();
            let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
            set_limit(&group, v2, Controller::Memory, &limits).unwrap();
            set_limit(&group, v2, Controller::Cpu, &limits).unwrap();
            let boot = (read(memory), read(cpu));
            fs::write(group.join(memory), "1").unwrap();
            fs::write(group.join(cpu), "1").unwrap();
            let groups = [group.clone()];
            assert_eq!(resize_memory(&groups, 64).unwrap().unwrap(), group.join(memory));
            assert_eq!(resize_cpus(&groups, 2).unwrap().unwrap(), group.join(cpu));
            assert_eq!((read(memory), read(cpu)), boot);
        }
    }

    #[test]
    fn without_a_group_nothing_is_resized() {
        assert!(resize_memory(&["/nonexistent/group".into()], 64).is_none());
        assert!(resize_cpus(&[], 1).is_none() && memory_in_use(&[]).is_none());
    }
}
