//! Compiles the system call table of a sandbox into BPF once, so that a boot only hands it to the kernel.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

include!("src/seccomp/table.rs");
include!("src/seccomp/monitor_table.rs");
include!("src/seccomp/worker_tables.rs");

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/seccomp/table.rs");
    println!("cargo::rerun-if-changed=src/seccomp/monitor_table.rs");
    println!("cargo::rerun-if-changed=src/seccomp/worker_tables.rs");
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    if arch != std::env::consts::ARCH {
        return Err(format!(
            "the system call numbers are those of the build machine ({}), not of {arch}",
            std::env::consts::ARCH
        )
        .into());
    }
    let arch = TargetArch::try_from(arch.as_str())?;
    // By number first, then what depends on arguments; where two filters refuse, the verdict of the one installed last counts.
    let filters = [
        ("BY_NUMBER", search_tree(&programs(), arch)?),
        ("FAMILY", compile(families()?, SeccompAction::Allow, SeccompAction::Errno(libc::EAFNOSUPPORT as u32), arch)?),
        ("REFUSE", compile(refused()?, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32), arch)?),
        ("MODE_UNSEEN", compile(unseen(), SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32), arch)?),
        ("MODE_GUARD", compile(set_ids()?, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32), arch)?),
        (
            "MONITOR_ALLOW",
            compile(monitor_allowed()?, SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow, arch)?,
        ),
        (
            "MONITOR_REFUSE",
            compile(monitor_confined()?, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32), arch)?,
        ),
        ("SUPERVISOR", search_tree(&worker(SUPERVISOR_ALLOWED), arch)?),
        ("UNPACKER", search_tree(&worker(UNPACKER_ALLOWED), arch)?),
        (
            "WORKER_REFUSE",
            compile(worker_refused()?, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32), arch)?,
        ),
    ];
    let mut text = String::new();
    for (name, program) in &filters {
        writeln!(text, "pub static {name}: [BpfInstruction; {}] = [", program.len())?;
        for i in program {
            writeln!(text, "    BpfInstruction {{ code: {}, jt: {}, jf: {}, k: {} }},", i.code, i.jt, i.jf, i.k)?;
        }
        writeln!(text, "];")?;
    }
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("seccomp.rs"), text)?;
    Ok(())
}

fn compile(rules: Rules, other: SeccompAction, listed: SeccompAction, arch: TargetArch) -> Result<BpfProgram, Failure> {
    Ok(SeccompFilter::new(rules, other, listed, arch)?.try_into()?)
}

/// The answers of a filter that looks at the number only (`linux/seccomp.h`).
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
/// What the numbers that have an answer of their own are answered with.
type Answers = BTreeMap<u32, u32>;

/// Of a sandbox's programs.
fn programs() -> Answers {
    let answer = |calls: &[Calls], answer: u32| -> Vec<(u32, u32)> {
        calls.iter().flat_map(|calls| calls.iter()).map(|&(_, number)| (number as u32, answer)).collect()
    };
    let all = [
        answer(&[ALLOWED, ALLOWED_OLD], ALLOW),
        answer(&[REFUSED, REFUSED_OLD], ERRNO | libc::EPERM as u32),
        answer(&[NEUTRAL], ERRNO),
    ];
    all.into_iter().flatten().collect()
}

/// What both of the runtime's own processes may, and what this one may besides.
fn worker(own: Calls) -> Answers {
    let all = WORKER_ALLOWED.iter().chain(WORKER_ALLOWED_OLD).chain(own);
    let conditional = MAPPINGS.iter().map(|&(number, _)| (number as u32, ALLOW));
    all.map(|&(_, number)| (number as u32, ALLOW)).chain(conditional).collect()
}

/// A filter that finds the number by halving; ENOSYS for what has no answer of its own, death for another architecture. The
/// kernel walks a filter once for every number when it is installed (`kernel/seccomp.c`, `seccomp_cache_prepare`), on the way of
/// every boot: a chain of comparisons, as seccompiler makes it, takes most of a millisecond.
fn search_tree(answers: &Answers, arch: TargetArch) -> Result<BpfProgram, Failure> {
    // `linux/bpf_common.h`, `linux/audit.h`; offsets in `struct seccomp_data`.
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    let own = match arch {
        TargetArch::x86_64 => 0xc000_003e,
        TargetArch::aarch64 => 0xc000_00b7,
        TargetArch::riscv64 => 0xc000_00f3,
    };
    let none = ERRNO | libc::ENOSYS as u32;
    // Where each run of numbers with the same answer begins.
    let mut runs: Vec<(u32, u32)> = vec![(0, none)];
    let mut next = 0;
    for (&number, &answer) in answers {
        if number > next {
            runs.push((next, none));
        }
        runs.push((number, answer));
        next = number + 1;
    }
    runs.push((next, none));
    runs.dedup_by(|later, earlier| {
        // An empty run gives way to the one that begins at the same number.
        let is_empty = later.0 == earlier.0;
        earlier.1 = if is_empty { later.1 } else { earlier.1 };
        is_empty || later.1 == earlier.1
    });
    let mut program = vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: ARCHITECTURE },
        sock_filter { code: IF_EQUAL, jt: 1, jf: 0, k: own },
        returned(KILL_PROCESS),
        sock_filter { code: LOAD, jt: 0, jf: 0, k: NUMBER },
    ];
    program.extend(halved(&runs)?);
    Ok(program)
}

/// Its depth is the logarithm of the number of runs.
fn halved(runs: &[(u32, u32)]) -> Result<BpfProgram, Failure> {
    const IF_AT_LEAST: u16 = 0x35;
    if let [(_, answer)] = runs {
        return Ok(vec![returned(*answer)]);
    }
    let (below, above) = runs.split_at(runs.len() / 2);
    let (lower, upper) = (halved(below)?, halved(above)?);
    let far = u8::try_from(lower.len())?;
    let mut program = vec![sock_filter { code: IF_AT_LEAST, jt: far, jf: 0, k: above[0].0 }];
    program.extend(lower);
    program.extend(upper);
    Ok(program)
}

fn returned(answer: u32) -> sock_filter {
    const RETURN: u16 = 0x06;
    sock_filter { code: RETURN, jt: 0, jf: 0, k: answer }
}

/// One allow list: sockets of the unix family only, requests to KVM only.
fn monitor_allowed() -> Result<Rules, Failure> {
    let all = MONITOR_ALLOWED.iter().chain(MONITOR_ALLOWED_OLD);
    let mut rules: Rules = all.map(|&(_, number)| (number, Vec::new())).collect();
    rules.insert(libc::SYS_socket, vec![rule(&[(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)])?]);
    let mut requests = vec![rule(&[(1, SeccompCmpOp::MaskedEq(IOCTL_TYPE_MASK), KVM_IOCTL_TYPE)])?];
    for request in MONITOR_IOCTLS {
        requests.push(rule(&[(1, SeccompCmpOp::Eq, *request)])?);
    }
    rules.insert(libc::SYS_ioctl, requests);
    Ok(rules)
}

/// Of the runtime's own processes: memory that can be executed; anything but a thread.
fn worker_refused() -> Result<Rules, Failure> {
    let executable = libc::PROT_EXEC as u64;
    let mut rules = Rules::new();
    for &(number, protection) in MAPPINGS {
        rules.insert(number, vec![rule(&[(protection, SeccompCmpOp::MaskedEq(executable), executable)])?]);
    }
    rules.insert(libc::SYS_clone, vec![rule(&[(0, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64), 0)])?]);
    Ok(rules)
}

/// What is taken away at the end, and new namespaces, which a thread has no need of.
fn monitor_confined() -> Result<Rules, Failure> {
    let mut rules: Rules = MONITOR_CONFINED.iter().map(|&(_, number)| (number, Vec::new())).collect();
    rules.insert(libc::SYS_clone, new_namespaces()?);
    Ok(rules)
}

/// `clone` with a flag that makes a namespace.
fn new_namespaces() -> Result<Vec<SeccompRule>, Failure> {
    let flag = |&flag: &i32| rule(&[(0, SeccompCmpOp::MaskedEq(flag as u32 as u64), flag as u32 as u64)]);
    REFUSED_CLONE_FLAGS.iter().map(flag).collect()
}

fn unseen() -> Rules {
    UNSEEN_MODE.iter().map(|&number| (number, Vec::new())).collect()
}

/// A set-id bit in a mode.
fn set_ids() -> Result<Rules, Failure> {
    let has = |index, bit: u64| (index, SeccompCmpOp::MaskedEq(bit), bit);
    let mut rules = Rules::new();
    for &(number, mode) in SET_MODE.iter().chain(SET_MODE_OLD) {
        let each = SET_IDS.iter().map(|&bit| rule(&[has(mode, bit.into())]));
        rules.insert(number, each.collect::<Result<_, _>>()?);
    }
    for &(number, flags, mode) in OPEN_MODE.iter().chain(OPEN_MODE_OLD) {
        let each = CREATES.iter().flat_map(|&creates| {
            SET_IDS.iter().map(move |&bit| rule(&[has(flags, creates as u64), has(mode, bit.into())]))
        });
        rules.insert(number, each.collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

fn refused() -> Result<Rules, Failure> {
    let mut rules = Rules::new();
    rules.insert(libc::SYS_clone, new_namespaces()?);
    let ioctl =
        REFUSED_IOCTLS.iter().map(|&request| rule(&[(1, SeccompCmpOp::Eq, request)])).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctl);
    let other: Vec<_> = ALLOWED_PERSONALITIES.iter().map(|&value| (0, SeccompCmpOp::Ne, value)).collect();
    rules.insert(libc::SYS_personality, vec![rule(&other)?]);
    let of_type = |kind: i32| (1, SeccompCmpOp::MaskedEq(SOCKET_TYPE_MASK), kind as u64);
    let types = REFUSED_SOCKET_TYPES
        .iter()
        .flat_map(|&kind| INTERNET.iter().map(move |&family| rule(&[of_family(family), of_type(kind)])))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_socket, types);
    Ok(rules)
}

/// The condition that a socket is of this family.
fn of_family(family: i32) -> (u8, SeccompCmpOp, u64) {
    (0, SeccompCmpOp::Eq, family as u64)
}

fn families() -> Result<Rules, Failure> {
    let other: Vec<_> = ALLOWED_FAMILIES.iter().map(|&family| (0, SeccompCmpOp::Ne, family as u64)).collect();
    let mut refused = vec![rule(&other)?];
    for &family in INTERNET {
        let mut protocol: Vec<_> =
            ALLOWED_PROTOCOLS.iter().map(|&number| (2, SeccompCmpOp::Ne, number as u64)).collect();
        protocol.push(of_family(family));
        refused.push(rule(&protocol)?);
    }
    refused.push(rule(&[of_family(libc::AF_NETLINK), (2, SeccompCmpOp::Ne, NETLINK_PROTOCOL as u64)])?);
    let mut rules = Rules::new();
    rules.insert(libc::SYS_socket, refused);
    rules.insert(libc::SYS_socketpair, vec![rule(&other)?]);
    Ok(rules)
}

/// A rule of conditions on arguments that must all hold; only the low 32 bits of an argument are compared.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, Failure> {
    let conditions = conditions
        .iter()
        .map(|(index, op, value)| SeccompCondition::new(*index, Dword, op.clone(), *value))
        .collect::<Result<_, _>>()?;
    Ok(SeccompRule::new(conditions)?)
}
