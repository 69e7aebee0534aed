//! The freezer of version 2 (`cgroup.freeze`, kernel documentation admin-guide/cgroup-v2): every process of the group is
//! stopped and keeps its memory.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The group of one run that can be frozen.
#[derive(Debug, Clone)]
pub struct Freezer(PathBuf);

impl Freezer {
    /// The first of these groups that can be frozen.
    pub fn find(groups: &[PathBuf]) -> Option<Freezer> {
        groups.iter().find(|group| group.join("cgroup.freeze").exists()).cloned().map(Freezer)
    }

    /// The file that freezes and thaws, for errors.
    pub fn file(&self) -> PathBuf {
        self.0.join("cgroup.freeze")
    }

    /// Asks the kernel to freeze the group. See [`Freezer::is_frozen`].
    pub fn freeze(&self) -> io::Result<()> {
        self.release_kernel_threads();
        fs::write(self.file(), "1")
    }

    pub fn thaw(&self) -> io::Result<()> {
        fs::write(self.file(), "0")
    }

    /// Whether every process of the group is stopped by now.
    pub fn is_frozen(&self) -> io::Result<bool> {
        Ok(fs::read_to_string(self.0.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"))
    }

    /// KVM puts a kernel thread of its own into the group of a monitor (`kvm-nx-lpage-recovery`), and such a thread is
    /// never frozen: the kernel would report the group as running for ever. The thread has nothing of the sandbox and is moved
    /// to a group further up.
    fn release_kernel_threads(&self) {
        let members = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter(|pid| is_kernel_thread(pid)) {
            // The groups above may have controllers and take no threads; the topmost one always does.
            let _ = self.0.ancestors().skip(1).find(|above| fs::write(above.join("cgroup.procs"), pid).is_ok());
        }
    }
}

/// By the flags in `/proc/<pid>/stat`, see proc(5).
fn is_kernel_thread(pid: &str) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields.split_whitespace().nth(6).and_then(|flags| flags.parse::<u32>().ok()).is_some_and(|f| f & PF_KTHREAD != 0)
}
