//! The wire between a client and a control plane: JSON shapes, paths and header names, for both sides.
//!
//! Two dialects of one wire: `spec` (nested create request, everything live over the agent WebSocket) and `flat` (the older
//! request of fifteen keys, programs over plain HTTP). They share paths, responses and errors; the differences are in
//! [`create`] and [`flat`]. Decoders accept both and ignore unknown keys in responses; requests refuse unknown keys where the
//! contract says so. Each change here must be made in the control plane, too.
//!
//! | module | holds |
//! |---|---|
//! | [`create`] | the create request of `spec` |
//! | [`flat`] | the create request of `flat`, and its programs and logs |
//! | [`sandbox`] | the response about a sandbox, pages, log events |
//! | [`volume`] | volumes and their files |
//! | [`error`] | error bodies and their codes |
//! | [`paths`] | every path and header |

pub mod create;
pub mod error;
pub mod flat;
pub mod paths;
pub mod sandbox;
pub mod volume;
