//! What the user reads.
//!
//! | module | holds |
//! |---|---|
//! | `tables`, `units` | results: tables, JSON, ages, sizes |
//! | `output_pump` | the guest's output on its way to the standard streams |
//! | `progress`, `logging`, `timings` | standard error: progress, log events, boot times |
//! | `failure` | errors, their hints, and the exit status |
//! | `tree` | what `--tree` prints |

pub mod failure;
pub mod logging;
pub mod output_pump;
pub mod progress;
pub mod tables;
pub mod timings;
pub mod tree;
pub mod units;
