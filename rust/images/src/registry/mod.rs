//! Registries, by the OCI distribution specification: hostile until checked.
//!
//! | module | holds |
//! |---|---|
//! | [`upstream`] | a registry and its mirrors |
//! | [`client`] | one request: authentication, redirects, retries |
//! | [`transport`], [`reach`] | connections, proxies, and the addresses that a registry may lead to |
//! | [`challenge`], [`token`] | what a registry asks for, and what it is shown |
//! | [`patience`], [`pace`] | how long a pull waits |
//! | [`documents`], [`download`] | manifests, and layers |

mod challenge;
mod client;
mod documents;
mod download;
mod pace;
mod patience;
pub mod reach;
mod token;
mod transport;
mod upstream;

use std::time::Duration;

pub use client::{Client, Settings};
pub use documents::Document;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
pub use upstream::Upstream;

/// `registry.stall`: longest time in which next to nothing arrives.
pub const STALL: Duration = Duration::from_secs(60);
/// The one way to change it, in seconds.
pub const STALL_VARIABLE: &str = "MSB_REGISTRY_STALL";

/// The default, or what the environment says.
pub fn stall() -> MicrosandboxResult<Duration> {
    let Ok(text) = std::env::var(STALL_VARIABLE) else { return Ok(STALL) };
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    let seconds = seconds.ok_or_else(|| {
        MicrosandboxError::InvalidConfig(format!("{STALL_VARIABLE}: {text:?} is not a number of seconds up to 86400"))
    })?;
    Ok(microsandbox_core::seconds::duration(seconds))
}
