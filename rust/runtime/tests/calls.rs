//! The answer to every system call number, through each entry of the processor, against the table in the tree.

use std::collections::BTreeMap;

use crate::support::*;

/// One line per number: number, name, and the answers through the x86-64, the x32 and the 32-bit entry. A name of an errno
/// is the filter's answer, `SIGSYS` that the process is killed, `done` that the filter reports success without doing anything,
/// `passes` that the kernel answers, whatever it answers. `passes?` is `passes` for a call that kernels before 6.12 may not know,
/// and `passes!` for one that the kernel itself answers with EPERM or ENOSYS when all arguments are zero. `unfiltered`: since 6.14
/// the kernel itself lets the two calls of its probes pass by every filter (`kernel/seccomp.c`); they do nothing for a caller that
/// has no probe.
const TABLE: &str = include_str!("../../../tests/security/system_calls.txt");

const NAMED: [(i32, &str); 4] =
    [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS"), (1000 + libc::SIGSYS, "SIGSYS"), (0, "done")];

fn agrees(expected: &str, answer: i32) -> bool {
    let refused = [libc::EPERM, libc::ENOSYS, 1000 + libc::SIGSYS].contains(&answer);
    match expected {
        "passes" => !refused,
        "passes?" => !refused || answer == libc::ENOSYS,
        "passes!" | "unfiltered" => answer != 1000 + libc::SIGSYS,
        other => NAMED.iter().any(|&(number, name)| name == other && number == answer),
    }
}

// hazard: E4, E7
#[test]
fn every_number_through_every_entry_is_answered_as_in_the_table() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("calls");
    let sandbox = scratch.sandbox("s");
    let mut runtime = Runtime::launch(&spec(&sandbox, "calls"));
    runtime.ready();
    assert_eq!(runtime.wait(), 0);
    let text = logged(&sandbox, 8, "stdout");
    let said: BTreeMap<u32, Vec<i32>> = text
        .lines()
        .map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<i32>>())
        .map(|numbers| (numbers[0] as u32, numbers[1..].to_vec()))
        .collect();
    let rows: Vec<Vec<&str>> =
        TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect()).collect();
    let numbers: Vec<u32> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(numbers, (0..1024).collect::<Vec<_>>(), "the table has each number once, in order");
    let wrong: Vec<String> = rows
        .iter()
        .zip(numbers)
        .filter(|(row, number)| {
            let answers = &said[number];
            answers.len() != 3 || !row[2..].iter().zip(answers).all(|(expected, answer)| agrees(expected, *answer))
        })
        .map(|(row, number)| format!("{} -> {:?}", row.join(" "), said[&number]))
        .collect();
    assert!(wrong.is_empty(), "answers (errno, or 1000 + signal) that the table does not give:\n{}", wrong.join("\n"));
}
