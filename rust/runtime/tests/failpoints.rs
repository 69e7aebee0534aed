//! L1, L2: the runtime killed at every named step of a boot leaves nothing that lives and nothing that stays.

use std::collections::BTreeSet;

use crate::support::*;
use microsandbox_contract::{Job, LAUNCH_VERSION, RemoveTreeSpec, Report, Step};

fn mounts() -> BTreeSet<String> {
    read("/proc/self/mountinfo").lines().map(str::to_owned).collect()
}

/// Processes whose working directory lies in the sandbox: a child that has not executed the agent yet.
fn strays(sandbox: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().into_string().unwrap_or_default();
        if pid.parse::<i32>().is_ok()
            && let Ok(cwd) = std::fs::read_link(entry.path().join("cwd"))
            && cwd.starts_with(sandbox)
        {
            found.push(pid);
        }
    }
    found
}

// hazard: L1
#[test]
fn a_kill_at_any_step_leaves_only_files() {
    if !is_root() {
        return;
    }
    let before = mounts();
    for step in Step::ALL.iter().filter(|step| !step.is_of_machine()) {
        let scratch = Scratch::new("failpoint");
        let sandbox = scratch.sandbox("s");
        let mut failing = spec(&sandbox, "");
        failing.fail_at = Some(*step);
        let mut runtime = Runtime::launch(&failing);
        assert_eq!(runtime.wait(), -libc::SIGKILL, "{step:?}");
        eventually(&format!("{step:?} leaves processes"), || strays(&sandbox).is_empty());
        // What cannot vanish with a process is written down.
        for group in cgroups_of(&sandbox) {
            eventually(&format!("{step:?} leaves processes in {}", group.display()), || {
                read(group.join("cgroup.procs")).is_empty()
            });
        }
        let runtime = Runtime::launch(&spec(&sandbox, ""));
        let ready = runtime.ready();
        assert_eq!(runtime.end(), 0, "{step:?}: the next start fails");
        assert!(ready.identity.cgroups.iter().all(|path| !path.exists()), "{step:?} leaves control groups");
        let job = RemoveTreeSpec { version: LAUNCH_VERSION, ids: failing.ids, path: sandbox.clone() };
        let mut removal = start(&Job::RemoveTree(job), None);
        assert!(matches!(removal.report(), Report::Done), "{step:?}");
        assert_eq!(removal.wait(), 0);
        assert!(!sandbox.exists());
    }
    assert_eq!(mounts(), before);
}
