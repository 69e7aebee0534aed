//! Who a process is: pid, start time and boot id. Only all three together name one process for good.

use microsandbox_contract::ProcessIdentity;

/// The identity of a live process; `None` when it is gone.
pub fn of(pid: i32) -> Option<ProcessIdentity> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the last `)` ends it. Field 22 is the 20th after it.
    let start_time = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    Some(ProcessIdentity { pid, start_time, boot_id })
}
