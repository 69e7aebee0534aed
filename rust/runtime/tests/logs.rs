//! The captured log: every byte, in order, bounded, and honest about what a full disk cost.

use std::collections::BTreeMap;

use crate::support::*;
use microsandbox_contract::ExitReason;

fn run(
    name: &str,
    standin: &str,
    change: impl FnOnce(&mut microsandbox_contract::LaunchSpec),
) -> (Scratch, std::path::PathBuf) {
    let scratch = Scratch::new(name);
    let sandbox = scratch.sandbox("s");
    let mut spec = spec(&sandbox, standin);
    change(&mut spec);
    let mut runtime = Runtime::launch(&spec);
    runtime.ready();
    assert_eq!(runtime.wait(), 0);
    (scratch, sandbox)
}

#[test]
fn every_line_arrives_in_order_between_the_markers() {
    if !is_root() {
        return;
    }
    let (_scratch, sandbox) = run("lines", "lines:200000", |_| {});
    let expected: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(logged(&sandbox, 1, "stdout"), expected);
    assert_eq!(logged(&sandbox, 0, "system"), "--- sandbox started ------ sandbox stopped ---");
}

#[test]
fn characters_survive_the_seams_and_other_bytes_are_base64() {
    if !is_root() {
        return;
    }
    let (_scratch, sandbox) = run("seams", "seams", |_| {});
    assert_eq!(logged(&sandbox, 3, "stdout"), "€uro ☃\n");
    assert_eq!(logged(&sandbox, 4, "stderr"), "/wD+");
    assert_eq!(logged(&sandbox, 5, "stdout"), "ww==");
}

/// G2: the cap holds and the newest lines are kept.
// hazard: G2
#[test]
fn rotation_keeps_the_newest_within_its_cap() {
    if !is_root() {
        return;
    }
    let (_scratch, sandbox) = run("rotate", "lines:200000", |spec| {
        spec.logs.max_bytes = 100_000;
        spec.logs.rotations = 2;
    });
    let sizes: BTreeMap<String, u64> = std::fs::read_dir(sandbox.join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .filter(|(name, _)| name.starts_with("exec.log"))
        .collect();
    assert_eq!(sizes.keys().collect::<Vec<_>>(), ["exec.log", "exec.log.1", "exec.log.2"]);
    assert!(sizes.values().all(|&size| size <= 100_000), "{sizes:?}");
    let mut text = String::new();
    for name in ["exec.log.2", "exec.log.1", "exec.log"] {
        for line in read(sandbox.join("logs").join(name)).lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["id"] == 1 {
                text.push_str(line["d"].as_str().unwrap());
            }
        }
    }
    let all: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    assert!(text.len() > 100_000 && all.ends_with(&text), "a gap in the newest lines");
}

/// G1, S1: a full disk costs output, never the sandbox, and the log says how much.
// hazard: G1
#[test]
fn a_full_disk_is_counted_not_fatal() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("full");
    let sandbox = scratch.sandbox("s");
    let logs = sandbox.join("logs");
    std::fs::create_dir(&logs).unwrap();
    let options = c"size=1m";
    rustix::mount::mount("tmpfs", &logs, "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
    let mut runtime = Runtime::launch(&spec(&sandbox, "flood:3"));
    runtime.ready();
    assert_eq!(runtime.wait(), 0);
    let record = exit_record(&sandbox);
    let lines: Vec<String> = read(logs.join("exec.log")).lines().map(str::to_owned).collect();
    rustix::mount::unmount(&logs, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(record.reason, ExitReason::Completed);
    let mut kept = 0;
    for line in &lines {
        let line: serde_json::Value = serde_json::from_str(line).expect("a torn line");
        if line["id"] == 9 {
            kept += line["d"].as_str().unwrap().len();
        }
    }
    let lost: usize = record
        .detail
        .as_deref()
        .and_then(|text| text.split(' ').find_map(|word| word.parse().ok()))
        .expect("the loss is not reported");
    // The stand-in sends 16 chunks of 63 KiB for each mebibyte asked for.
    assert_eq!(kept + lost, 3 * 16 * (63 << 10), "{:?}", record.detail);
}

/// An agent that asks for the log to be complete and does not read the answers makes nothing grow outside.
#[test]
fn marks_whose_answers_are_not_read_cost_no_memory() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("marks");
    let sandbox = scratch.sandbox("s");
    let runtime = Runtime::launch(&spec(&sandbox, "marks:1000"));
    let ready = runtime.ready();
    eventually("the stand-in has asked", || logged(&sandbox, 6, "stdout") == "asked\n");
    let status = read(format!("/proc/{}/status", ready.identity.runtime.pid));
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 16 << 10, "{kib} KiB");
    assert_eq!(runtime.end(), 0);
}

/// M8: an agent that keeps to no budget costs the host half of a processor and a bounded log.
#[test]
fn a_flood_of_output_costs_a_bounded_part_of_the_host() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("flood");
    let sandbox = scratch.sandbox("s");
    let runtime = Runtime::launch(&spec(&sandbox, "pour:60000"));
    runtime.ready();
    let pid = runtime.child.id();
    let entered = || std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().contains(".supervisor");
    let begun = std::time::Instant::now();
    while !entered() {
        assert!(begun.elapsed() < DEADLINE, "the supervisor never enters a group of its own");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let before = (processor_ticks(pid), std::time::Instant::now());
    std::thread::sleep(std::time::Duration::from_secs(2));
    let used = (processor_ticks(pid) - before.0) as f64 / 100.0;
    let share = used / before.1.elapsed().as_secs_f64();
    assert!(share < 0.6, "{share} of a processor");
    let groups = cgroups_of(&sandbox);
    assert!(groups.iter().any(|group| group.to_string_lossy().ends_with(".supervisor")), "{groups:?}");
    runtime.end();
    let written: u64 =
        std::fs::read_dir(sandbox.join("logs")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(written < 250 << 20, "{written} bytes");
    let gap = logged(&sandbox, 1, "gap");
    assert!(gap.contains("bytes of output (session 1) were dropped"), "{gap}");
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

/// User and system time, see proc(5).
fn processor_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
