//! What a microVM and its agent agree on before the first frame.

use std::ffi::CStr;

/// Where the agent listens for clients (vsock port).
pub const AGENT_PORT: u32 = 1024;
/// Where the agent finds its runtime (vsock port of the host).
pub const CONTROL_PORT: u32 = 1025;
/// The address of the guest on its own vsock device (`VMADDR_CID_HOST` + 1); each machine has a device of its own.
pub const GUEST_CID: u32 = 3;
/// Name of the agent in the root directory; it can be looked up once.
pub const INIT_NAME: &CStr = c".msb-init";
/// The argument of an agent in a virtual machine; without it, the agent expects the descriptors of a container.
pub const INIT_ARGUMENT: &str = "machine";
/// The argument that makes the agent leave its place as first process to an init
/// ([`crate::message::Bootstrap::init`]).
pub const HANDOVER_ARGUMENT: &CStr = c"handover";
/// Status with which a machine ends whose agent did not end it: a panic of its kernel, a power-off by a program.
pub const ENDED_WITHOUT_AGENT: u8 = 86;
