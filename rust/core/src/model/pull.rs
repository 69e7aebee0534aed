//! Fetching an image from a registry: what is asked for, and what is reported on the way.

use super::PullPolicy;

/// A user name and a password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How a registry is reached, beyond what the configuration says of it. Never stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistryAccess {
    /// Before every stored credential.
    pub auth: Option<RegistryAuth>,
    /// Plain HTTP, for the registry of this image only.
    pub insecure: bool,
    /// Certificate authorities to trust as well, each a PEM text.
    pub ca_certs: Vec<Vec<u8>>,
    /// Without a credential, also without a stored one.
    pub anonymous: bool,
    /// The registry must have a public address, unless the configuration allows it to clients: for requests of others, who could
    /// otherwise make this machine talk to what only it can reach.
    pub public_only: bool,
}

/// An image to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullRequest {
    pub reference: String,
    pub policy: PullPolicy,
    pub access: RegistryAccess,
    /// `os/architecture[/variant]` instead of this machine's own.
    pub platform: Option<String>,
}

/// How far a pull is. `Resolving` comes first, `Complete` last; an image that needs no request has no events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    Resolving {
        reference: String,
    },
    Resolved {
        reference: String,
        manifest_digest: String,
        layer_count: usize,
        /// Of the layers that are not on this machine.
        total_download_bytes: Option<u64>,
    },
    LayerDownloadProgress {
        layer_index: usize,
        digest: String,
        downloaded_bytes: u64,
        total_bytes: Option<u64>,
    },
    /// Its digest is verified.
    LayerDownloadComplete {
        layer_index: usize,
        digest: String,
        downloaded_bytes: u64,
    },
    LayerMaterializeStarted {
        layer_index: usize,
        diff_id: String,
    },
    LayerMaterializeProgress {
        layer_index: usize,
        diff_id: String,
        bytes_read: u64,
        total_bytes: u64,
    },
    LayerMaterializeComplete {
        layer_index: usize,
        diff_id: String,
    },
    Complete {
        reference: String,
        layer_count: usize,
    },
}
