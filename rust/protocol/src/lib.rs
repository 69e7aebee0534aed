//! The language spoken between the host and the agent inside a sandbox.
//!
//! | module | holds |
//! |---|---|
//! | [`frame`] | framing: length, correlation id, flags, `{v, t, p}` envelope; all limits are checked before allocation |
//! | [`message`] | every payload that travels in a frame |
//! | [`log_budget`] | how much output of programs a sandbox logs |
//! | [`version`] | the wire generation, our extension number and how two sides agree on them |
//! | [`names`] | file names as text, also those that are not UTF-8 |
//! | [`machine`] | what a microVM and its agent agree on beforehand |
//! | [`capabilities`] | what root among the programs inside may do |
//!
//! No I/O and no async here: both sides feed bytes in and take frames out. Each side treats the other as hostile.

pub mod capabilities;
pub mod frame;
pub mod log_budget;
pub mod machine;
pub mod message;
pub mod names;
pub mod version;

pub use frame::{Flags, Frame, FrameDecoder, Message, ProtocolError};
pub use message::Kind;
