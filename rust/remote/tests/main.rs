//! The tests of this crate, in one binary.

mod client;
mod faults;
mod handles;
mod logs;
mod options;
mod relay;
mod service;
mod tls;
