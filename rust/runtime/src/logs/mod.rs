//! The logs of a sandbox: `exec.log`, a JSON line for what its programs print, and the text logs `kernel.log` and
//! `runtime.log`.

mod exec_log;
pub mod json_line;
mod text_log;

pub use exec_log::{ExecLog, Source};
pub use text_log::TextLog;
