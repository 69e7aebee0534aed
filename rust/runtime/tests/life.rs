//! The life of a sandbox: who ends it, when, and what is written down.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::*;
use microsandbox_contract::{ExitReason, Stage, Step};

fn ended(
    name: &str,
    standin: &str,
    change: impl FnOnce(&mut microsandbox_contract::LaunchSpec),
) -> microsandbox_contract::ExitRecord {
    let scratch = Scratch::new(name);
    let sandbox = scratch.sandbox("s");
    let mut spec = spec(&sandbox, standin);
    change(&mut spec);
    let mut runtime = Runtime::launch(&spec);
    let ready = runtime.ready();
    assert_eq!(runtime.wait(), 0);
    assert!(!is_alive(&ready.identity.init));
    assert!(ready.identity.cgroups.iter().all(|path| !path.exists()));
    exit_record(&sandbox)
}

/// L4: a killed supervisor takes its sandbox with it.
// hazard: L4
#[test]
fn killing_the_runtime_ends_the_sandbox() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("kill9");
    let sandbox = scratch.sandbox("s");
    let mut runtime = Runtime::launch(&spec(&sandbox, ""));
    let ready = runtime.ready();
    runtime.signal(libc::SIGKILL);
    assert_eq!(runtime.wait(), -libc::SIGKILL);
    eventually("the init outlived its supervisor", || !is_alive(&ready.identity.init));
    // What is left are files, and groups that the next run takes over and removes.
    let runtime = Runtime::launch(&spec(&sandbox, ""));
    let again = runtime.ready();
    assert_eq!(again.identity.cgroups, ready.identity.cgroups);
    assert_eq!(runtime.end(), 0);
    assert!(ready.identity.cgroups.iter().all(|path| !path.exists()));
}

#[test]
fn a_detached_sandbox_outlives_its_lifeline() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("detach");
    let sandbox = scratch.sandbox("s");
    let mut runtime = Runtime::launch(&spec(&sandbox, ""));
    let ready = runtime.ready();
    runtime.lifeline.take().unwrap().write_all(b"d").unwrap();
    eventually("the detachment is noted", || {
        std::fs::read_to_string(sandbox.join("logs/runtime.log")).is_ok_and(|text| text.contains("detached"))
    });
    assert!(is_alive(&ready.identity.init));
    runtime.signal(libc::SIGTERM);
    assert_eq!(runtime.wait(), 0);
    let record = exit_record(&sandbox);
    assert_eq!((record.reason, record.exit_code), (ExitReason::ShutdownRequested, Some(0)));
}

#[test]
fn an_idle_sandbox_ends_after_its_timeout() {
    if !is_root() {
        return;
    }
    let begin = Instant::now();
    let record = ended("idle", "", |spec| spec.lifecycle.idle_timeout_ms = Some(300));
    assert_eq!(record.reason, ExitReason::IdleTimeout);
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_busy_sandbox_ends_after_its_maximum_duration() {
    if !is_root() {
        return;
    }
    let record = ended("busy", "running", |spec| {
        spec.lifecycle.idle_timeout_ms = Some(100);
        spec.lifecycle.max_duration_ms = Some(600);
    });
    assert_eq!(record.reason, ExitReason::MaxDurationExceeded);
}

#[test]
fn an_agent_that_does_not_end_is_killed_after_the_grace() {
    if !is_root() {
        return;
    }
    let record = ended("stubborn", "stubborn", |spec| spec.lifecycle.max_duration_ms = Some(50));
    assert_eq!((record.reason, record.signal), (ExitReason::MaxDurationExceeded, Some(libc::SIGKILL)));
}

#[test]
fn the_exit_of_the_agent_has_its_own_reason() {
    if !is_root() {
        return;
    }
    let record = ended("exit0", "exit:0", |_| {});
    assert_eq!((record.reason, record.exit_code), (ExitReason::Completed, Some(0)));
    let record = ended("exit3", "exit:3", |_| {});
    assert_eq!((record.reason, record.exit_code), (ExitReason::Failed, Some(3)));
    // PID 1 does not die of its own ABRT; the C library then ends it by a fault.
    let record = ended("abort", "abort", |_| {});
    assert_eq!(record.reason, ExitReason::Signal);
    assert!(record.signal.is_some() && !record.oom_killed);
}

/// P1: garbage on the private channel ends the sandbox, not the runtime.
// hazard: P1
#[test]
fn an_agent_that_breaks_the_protocol_is_ended() {
    if !is_root() {
        return;
    }
    assert_eq!(ended("garbage", "garbage", |_| {}).reason, ExitReason::AgentUnresponsive);
    assert_eq!(ended("hangup", "hang-up", |_| {}).reason, ExitReason::AgentUnresponsive);
}

#[test]
fn a_silent_agent_is_a_boot_error_with_its_stage() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("silent");
    let sandbox = scratch.sandbox("s");
    let mut spec = spec(&sandbox, "silent");
    spec.lifecycle.ready_timeout_ms = 300;
    let mut runtime = Runtime::launch(&spec);
    let error = runtime.boot_error();
    assert_eq!((error.stage, error.step), (Stage::Agent, Step::WaitForAgent));
    assert!(error.message.contains("not ready in time"), "{error:?}");
    assert_eq!(runtime.wait(), 1);
    assert!(cgroups_of(&sandbox).is_empty());
}

#[test]
fn an_agent_that_ends_early_is_quoted_in_the_boot_error() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("early");
    let sandbox = scratch.sandbox("s");
    let mut runtime = Runtime::launch(&spec(&sandbox, "early-exit:4"));
    let error = runtime.boot_error();
    assert!(error.message.contains("status 4"), "{error:?}");
    assert!(error.log_tail.contains("the stand-in gives up"), "{error:?}");
    assert_eq!(runtime.wait(), 1);
}

/// R3: a memory bomb in PID 1 itself; the limit holds and the reason is reported.
// hazard: R3
#[test]
fn death_by_the_memory_limit_is_reported_as_such() {
    if !is_root() {
        return;
    }
    let record = ended("oom", "eat", |spec| spec.limits.memory_mib = 32);
    assert!(record.oom_killed && record.signal == Some(libc::SIGKILL), "{record:?}");
    assert!(record.detail.unwrap().contains("lack of memory"));
}

/// R1: a fork bomb meets the limit and leaves the host alone.
// hazard: R1
#[test]
fn a_fork_bomb_meets_the_process_limit() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("forks");
    let sandbox = scratch.sandbox("s");
    let script = "run:for i in $(seq 200); do sleep 20 & done; echo never";
    let mut runtime = Runtime::launch(&spec(&sandbox, script));
    runtime.ready();
    assert_eq!(runtime.wait(), 0);
    let said = logged(&sandbox, 7, "stderr");
    assert!(said.contains("fork"), "{said}");
}

/// What is built for users ignores the step that a crash test names.
#[cfg(not(feature = "failpoints"))]
#[test]
fn a_release_is_not_killed_at_a_failpoint() {
    let record = ended("no-failpoints", "", |spec| {
        spec.fail_at = Some(Step::MountOverlay);
        spec.lifecycle.max_duration_ms = Some(1);
    });
    assert_eq!(record.reason, ExitReason::MaxDurationExceeded);
}
