//! The nouns that users hold: plain data, no I/O. Serialised forms are those of `config_json`.

mod boot;
mod config;
mod exec;
mod files;
mod image;
mod isolation;
mod jobs;
mod logs;
mod metrics;
mod modification;
mod name;
mod owner;
mod patch;
mod pull;
mod status;
mod storage;
mod volume;

pub use boot::*;
pub use config::*;
pub use exec::*;
pub use files::*;
pub use image::*;
pub use isolation::*;
pub use jobs::*;
pub use logs::*;
pub use metrics::*;
pub use modification::*;
pub use name::*;
pub use owner::*;
pub use patch::*;
pub use pull::*;
pub use status::*;
pub use storage::*;
pub use volume::*;
