//! The nouns that users hold: plain data, no I/O. Serialised forms are those of `config_json`.

mod boot;
mod config;
mod exec;
mod files;
mod image;
mod isolation;
mod logs;
mod metrics;
mod name;
mod patch;
mod status;
mod volume;

pub use boot::*;
pub use config::*;
pub use exec::*;
pub use files::*;
pub use image::*;
pub use isolation::*;
pub use logs::*;
pub use metrics::*;
pub use name::*;
pub use patch::*;
pub use status::*;
pub use volume::*;
