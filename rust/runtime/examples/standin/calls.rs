//! Every system call number, made for real through each of the three entries of the processor, in a child of its own with all
//! arguments zero: one line per number, the answers in the order x86-64, x32, 32-bit.
#![allow(unsafe_code, reason = "system calls by number, through every entry")]

use std::arch::asm;
use std::fmt::Write;

/// Numbers from here on are those of the x32 interface (`__X32_SYSCALL_BIT`).
const X32: u64 = 0x4000_0000;
/// More than any kernel has.
pub const NUMBERS: u64 = 1024;
/// A call that waits for ever has passed the filter.
const PATIENCE_US: libc::suseconds_t = 100_000;

/// Which instruction enters the kernel.
#[derive(Clone, Copy)]
enum Entry {
    Syscall,
    Interrupt,
}

pub fn all() -> String {
    let mut out = String::new();
    for number in 0..NUMBERS {
        let own = answer(Entry::Syscall, number);
        let x32 = answer(Entry::Syscall, number | X32);
        let old = answer(Entry::Interrupt, number);
        let _ = writeln!(out, "{number} {own} {x32} {old}");
    }
    out
}

/// The errno of the call, 0 for success, or 1000 + the signal that ended the child.
fn answer(entry: Entry, number: u64) -> i32 {
    // SAFETY: this program has one thread. The child makes the one call and leaves; neither touches the memory of this process,
    // but for `vfork`, whose child runs on this stack without returning from the function it is in.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork");
        if child == 0 {
            let wait = libc::timeval { tv_sec: 0, tv_usec: PATIENCE_US };
            let once = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: wait };
            libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const once, 0);
            enter_and_leave(entry, number)
        }
        let mut status = 0;
        // A call may have stopped being this process's child, or made another one: only the own one counts.
        while libc::waitpid(child, &mut status, 0) < 0 && *libc::__errno_location() == libc::EINTR {}
        if libc::WIFSIGNALED(status) { 1000 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
    }
}

/// Makes the call; its errno becomes the exit status. One piece of assembly, so that nothing depends on the stack after a call
/// that splits the process or takes its memory away.
fn enter_and_leave(entry: Entry, number: u64) -> ! {
    // SAFETY: with null pointers and zeros the kernel has nothing of this process to write to; whatever the call does to it, the
    // process does nothing else but leave.
    unsafe {
        match entry {
            Entry::Syscall => asm!(
                "syscall",
                "xor ecx, ecx", "mov rdi, rax", "neg rdi", "test rax, rax", "cmovns rdi, rcx",
                "mov eax, 60", "syscall", "ud2",
                in("rax") number, in("rdi") 0, in("rsi") 0, in("rdx") 0, in("r10") 0, in("r8") 0, in("r9") 0,
                options(noreturn)
            ),
            Entry::Interrupt => asm!(
                "xor ebx, ebx", "xor ebp, ebp",
                "int 0x80",
                "movsxd rax, eax", "xor ecx, ecx", "mov rdi, rax", "neg rdi", "test rax, rax", "cmovns rdi, rcx",
                "mov eax, 60", "syscall", "ud2",
                in("rax") number, in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0,
                options(noreturn)
            ),
        }
    }
}
