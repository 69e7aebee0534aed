//! Sandboxes of a control plane, over HTTP: a client of the wire in `microsandbox-wire`.
//!
//! Two dialects behind one client ([`Wire`]). In `spec`, the default, programs, terminals and files use the agent protocol
//! over a WebSocket, as the local backend uses it over a Unix socket; in `flat` a program is one request.
//!
//! The service is not trusted: the size of every body is limited, the key is never sent to another origin after a redirect,
//! and what a response says about a sandbox is a claim.
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | validation of the URL and the key |
//! | [`http`] | one request: limits, retries, redirects |
//! | [`errors`] | error responses as [`MicrosandboxError`] |
//! | [`dialect`] | a specification as a create request: `spec` and `flat` |
//! | [`response`] | responses about sandboxes as records |
//! | [`agent_socket`], [`socket`] | connections to agents over a WebSocket |
//! | [`logs`], [`events`] | captured output; server-sent events |
//! | [`operations`], [`volumes`] | the backend traits |

mod address;
mod agent_socket;
mod dialect;
mod errors;
mod events;
mod http;
mod logs;
mod operations;
mod response;
mod socket;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use microsandbox_core::agent::connections::Connections;
use microsandbox_core::backend::{Backend, BackendKind, RemoteAddress, SandboxBackend, SharedBackend, VolumeBackend};
pub use microsandbox_core::config::Wire;
use microsandbox_core::config::{DEFAULT_CLOUD_API_URL, Environment, SdkConfig, config_path};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

/// Longest wait for the response to one call.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one control plane with one key. Constructing it sends no request. Clones share everything.
#[derive(Clone)]
pub struct CloudBackend {
    http: Arc<http::Client>,
    wire: Wire,
    sockets: Arc<Connections<socket::Socket>>,
    profile: Option<String>,
}

impl std::fmt::Debug for CloudBackend {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudBackend").field("url", &self.url()).field("wire", &self.wire).finish_non_exhaustive()
    }
}

impl CloudBackend {
    /// The dialect `spec` at this address.
    pub fn new(url: &str, api_key: &str) -> MicrosandboxResult<Self> {
        CloudBackend::builder().url(url).api_key(api_key).build()
    }

    /// The hosted service.
    pub fn with_api_key(api_key: &str) -> MicrosandboxResult<Self> {
        CloudBackend::builder().api_key(api_key).build()
    }

    /// `MSB_API_KEY`, and `MSB_API_URL` if set.
    pub fn from_env() -> MicrosandboxResult<Self> {
        let environment = Environment::Process;
        let Some(key) = environment.text("MSB_API_KEY") else {
            return Err(MicrosandboxError::InvalidConfig("MSB_API_KEY is not set: set it to an API key".into()));
        };
        let url = environment.text("MSB_API_URL").unwrap_or_else(|| DEFAULT_CLOUD_API_URL.into());
        CloudBackend::new(&url, &key)
    }

    /// A cloud profile of the configuration file.
    pub fn from_profile(name: &str) -> MicrosandboxResult<Self> {
        let environment = Environment::Process;
        let document = SdkConfig::load_from(&environment)?;
        let Some(profile) = document.profiles.get(name) else {
            return Err(microsandbox_core::config::unknown_profile(name, &config_path(&environment)?));
        };
        CloudBackend::of_profile(profile, name, &environment)
    }

    /// A profile that was read from the configuration document.
    pub fn of_profile(
        profile: &microsandbox_core::config::Profile,
        name: &str,
        environment: &Environment,
    ) -> MicrosandboxResult<Self> {
        if profile.backend != microsandbox_core::config::ProfileBackend::Cloud {
            return Err(MicrosandboxError::InvalidConfig(format!(
                "profile {name:?} is a local profile: name a cloud profile"
            )));
        }
        let Some(reference) = &profile.api_key_ref else {
            return Err(MicrosandboxError::InvalidConfig(format!(
                "cloud profile {name:?} has no api_key_ref: add one, such as env:NAME"
            )));
        };
        let mut backend = CloudBackend::builder()
            .url(profile.api_url()?)
            .api_key(reference.resolve(name, environment)?)
            .wire(profile.wire)
            .build()?;
        backend.profile = Some(name.to_owned());
        Ok(backend)
    }

    pub fn builder() -> CloudBackendBuilder {
        CloudBackendBuilder::default()
    }

    /// The address, without trailing slashes.
    pub fn url(&self) -> &str {
        self.http.base()
    }
    pub fn wire(&self) -> Wire {
        self.wire
    }
    /// The name of the profile that it was built from.
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }
}

/// Options of a [`CloudBackend`]; all but the key have defaults.
#[derive(Default)]
pub struct CloudBackendBuilder {
    url: Option<String>,
    api_key: String,
    wire: Wire,
    request_timeout: Option<Duration>,
    user_agent: Option<String>,
    ca_certs: Vec<Vec<u8>>,
}

impl CloudBackendBuilder {
    /// The hosted service by default.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }
    /// Required.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = key.into();
        self
    }
    pub fn wire(mut self, wire: Wire) -> Self {
        self.wire = wire;
        self
    }
    /// Timeout of a call that is not a stream; 30 s by default. Calls that wait for a boot have at least 95 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.user_agent = Some(text.into());
        self
    }
    /// Certificates, in PEM, that are trusted in addition to those of the machine. Verification cannot be switched off.
    pub fn ca_cert_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certs.push(pem.into());
        self
    }

    /// Validates all options; opens no connection.
    pub fn build(self) -> MicrosandboxResult<CloudBackend> {
        let base = address::base_url(self.url.as_deref().unwrap_or(DEFAULT_CLOUD_API_URL))?;
        let key = address::bearer(&self.api_key)?;
        let http = http::Client::new(http::Settings {
            base,
            key,
            user_agent: self.user_agent,
            timeout: self.request_timeout.unwrap_or(REQUEST_TIMEOUT),
            ca_certs: self.ca_certs,
        })?;
        Ok(CloudBackend { http: Arc::new(http), wire: self.wire, sockets: Arc::default(), profile: None })
    }
}

impl Backend for CloudBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Cloud
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self
    }
    fn volumes(&self) -> &dyn VolumeBackend {
        self
    }
    fn remote_address(&self) -> Option<RemoteAddress> {
        Some(RemoteAddress { url: self.url().to_owned(), wire: self.wire, profile: self.profile.clone() })
    }
}

impl From<CloudBackend> for SharedBackend {
    fn from(backend: CloudBackend) -> Self {
        Arc::new(backend)
    }
}
