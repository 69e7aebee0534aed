//! The wire between a client and a control plane: JSON shapes, paths and header names, for both sides.
//!
//! Two dialects of one wire: `spec` (nested create request, everything live over the agent WebSocket) and `flat` (the older
//! request of fifteen keys, programs over plain HTTP). They share paths, answers and errors; what differs is in
//! [`create`] and [`flat`]. Decoders take the superset and tolerate unknown keys in answers; requests refuse them where
//! the contract says so. Whatever changes here must change in the control plane, too.
//!
//! | module | holds |
//! |---|---|
//! | [`create`] | the create request of `spec` |
//! | [`flat`] | the create request of `flat`, and its programs and logs |
//! | [`sandbox`] | the answer about a sandbox, pages, log events |
//! | [`volume`] | volumes and their files |
//! | [`error`] | error bodies and their codes |
//! | [`paths`] | every path and header |

pub mod create;
pub mod error;
pub mod flat;
pub mod paths;
pub mod sandbox;
pub mod volume;
