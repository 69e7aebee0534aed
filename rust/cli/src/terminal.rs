//! The user's terminal, or the pipes in its place, and a program bound to it.
//!
//! | module | holds |
//! |---|---|
//! | `console` | the standard streams of one invocation |
//! | `session` | one program of `run` or `exec`, from its flags to its exit status |
//! | `attach` | input, output, signals and window size between a program and this terminal |
//! | `input` | standard input as a stream that can be cancelled |
//! | `raw_mode`, `detach_keys` | the terminal's mode, and the keys that detach |
//! | `signals` | signals as a stream; the earlier handlers are restored |

pub mod attach;
pub mod console;
pub mod detach_keys;
pub mod input;
pub mod raw_mode;
pub mod session;
pub mod signals;
