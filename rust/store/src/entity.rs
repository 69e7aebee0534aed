//! The tables as sea-orm entities, one a file. What a column may hold is in `migration`, which makes them.

pub mod config;
pub mod image_ref;
pub mod layer;
pub mod maintenance_lease;
pub mod manifest;
pub mod manifest_layer;
pub mod run;
pub mod sandbox;
pub mod sandbox_labels;
pub mod sandbox_rootfs;
pub mod snapshot_index;
pub mod volume;
pub mod volume_attach;
