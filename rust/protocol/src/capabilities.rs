//! What root among the programs inside may do: in a container always, in a microVM with `security=RESTRICTED`.

/// `CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `FSETID`, `KILL`, `SETGID`, `SETUID` and `NET_BIND_SERVICE`, as the bits of
/// capabilities(7); the numbers are those of `linux/capability.h`.
pub const PROGRAM_CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10;
