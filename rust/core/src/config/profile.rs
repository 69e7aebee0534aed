//! The view of profiles: named ways to choose a backend.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::{Environment, config_path, document};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Where the hosted service answers when no URL is given.
pub const DEFAULT_CLOUD_API_URL: &str = "https://api.microsandbox.dev";

/// `active_profile` and `profiles` of the document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SdkConfig {
    /// Used when nothing else is said; blank counts as absent.
    #[serde(deserialize_with = "blank_as_absent")]
    pub active_profile: Option<String>,
    #[serde(deserialize_with = "each_name_once")]
    pub profiles: BTreeMap<String, Profile>,
}

/// Which dialect the service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    #[default]
    Spec,
    /// The older one: no live programs, no files, no volumes.
    Flat,
}

impl Wire {
    pub fn as_str(self) -> &'static str {
        match self {
            Wire::Spec => "spec",
            Wire::Flat => "flat",
        }
    }

    pub fn parse(text: &str) -> MicrosandboxResult<Wire> {
        match text {
            "spec" => Ok(Wire::Spec),
            "flat" => Ok(Wire::Flat),
            other => Err(MicrosandboxError::InvalidConfig(format!("wire is {other:?}; use spec or flat"))),
        }
    }
}

/// A named way to choose a backend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Profile {
    pub backend: ProfileBackend,
    /// Absent: [`DEFAULT_CLOUD_API_URL`].
    #[serde(default)]
    pub url: Option<String>,
    /// Needed for the cloud.
    #[serde(default)]
    pub api_key_ref: Option<ApiKeyRef>,
    /// Which dialect the service speaks.
    #[serde(default)]
    pub wire: Wire,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileBackend {
    Local,
    Cloud,
}

impl SdkConfig {
    /// The file that this process's environment points at.
    pub fn load() -> MicrosandboxResult<SdkConfig> {
        SdkConfig::load_from(&Environment::Process)
    }

    pub fn load_from(environment: &Environment) -> MicrosandboxResult<SdkConfig> {
        Ok(document::read(&config_path(environment)?)?.unwrap_or_default())
    }
}

/// No profile of this name is in the file.
pub fn unknown(name: &str, path: &Path) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(format!(
        "there is no profile {name:?} in {}; `msb profile list` shows the ones there are",
        path.display()
    ))
}

impl Profile {
    /// The address, without trailing slashes.
    pub fn api_url(&self) -> MicrosandboxResult<String> {
        match &self.url {
            None => Ok(DEFAULT_CLOUD_API_URL.to_owned()),
            Some(url) => normalise_url(url),
        }
    }
}

pub fn normalise_url(url: &str) -> MicrosandboxResult<String> {
    let url = url.trim().trim_end_matches('/');
    if url.is_empty() {
        return Err(MicrosandboxError::InvalidConfig("the URL of the service is empty".into()));
    }
    Ok(url.to_owned())
}

/// Largest file that is taken for a key.
const KEY_FILE_MAX: u64 = 8192;

/// The key in a file that only its owner may read.
fn key_file(path: &str, environment: &Environment) -> Result<String, String> {
    use std::io::Read as _;
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    let path = match path.strip_prefix("~/") {
        Some(rest) => environment.path("HOME").ok_or("begins with ~, but HOME is not set")?.join(rest),
        None => Path::new(path).to_owned(),
    };
    let shown = path.display();
    if !path.is_absolute() {
        return Err("file: needs an absolute path, or one that begins with ~/".into());
    }
    let failed = |error: std::io::Error| format!("names the file {shown}, which cannot be read: {error}");
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = std::fs::File::options().read(true).custom_flags(flags).open(&path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || meta.len() > KEY_FILE_MAX {
        return Err(format!("names {shown}, which is no file of at most {KEY_FILE_MAX} bytes"));
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.mode() & 0o077 != 0 || ![me, 0].contains(&meta.uid()) {
        return Err(format!("names the file {shown}, which others may read or own; chmod 600 it"));
    }
    let mut text = String::new();
    file.take(KEY_FILE_MAX).read_to_string(&mut text).map_err(failed)?;
    match text.trim() {
        "" => Err(format!("names the file {shown}, which is empty")),
        key => Ok(key.to_owned()),
    }
}

/// Where an API key is found: `env:NAME`, `file:PATH`, `inline:KEY` or `keyring:<service>:<name>`. Never printed as written.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ApiKeyRef(String);

impl ApiKeyRef {
    pub fn new(reference: impl Into<String>) -> Self {
        ApiKeyRef(reference.into())
    }

    /// Safe to show: an inline key, or anything that might be one, is replaced.
    pub fn redacted(&self) -> String {
        match self.0.split_once(':') {
            Some(("env" | "keyring" | "file", _)) => self.0.clone(),
            Some(("inline", _)) => "inline:[redacted]".into(),
            _ => "[redacted]".into(),
        }
    }

    /// The key. An inline one is warned about, by profile name; one of the keyring may take 10 s to be unlocked.
    pub fn resolve(&self, profile: &str, environment: &Environment) -> MicrosandboxResult<String> {
        let invalid = |what: &str| {
            Err(MicrosandboxError::InvalidConfig(format!("profile {profile:?}: the API key reference {what}")))
        };
        match self.0.split_once(':') {
            Some(("env", name)) if name.trim().is_empty() => invalid("env: names no variable"),
            Some(("env", name)) => match environment.text(name.trim()) {
                Some(key) => Ok(key),
                None => invalid(&format!("names the variable {}, which is unset or empty", name.trim())),
            },
            Some(("inline", key)) if key.trim().is_empty() => invalid("inline: has no key"),
            Some(("inline", key)) => {
                tracing::warn!(profile, "the API key of this profile is in the configuration file; prefer env:NAME");
                Ok(key.trim().to_owned())
            }
            Some(("file", path)) => match key_file(path.trim(), environment) {
                Ok(key) => Ok(key),
                Err(why) => invalid(&why),
            },
            Some(("keyring", place)) => match place.split_once(':') {
                Some((service, name)) if !service.trim().is_empty() && !name.trim().is_empty() => {
                    let (service, name) = (service.trim(), name.trim());
                    match super::keyring::secret(service, name) {
                        Ok(key) => Ok(key),
                        Err(why) => invalid(&format!("keyring:{service}:{name} {why}")),
                    }
                }
                _ => invalid("must be keyring:<service>:<name>"),
            },
            _ => invalid("has no known scheme; use env:NAME"),
        }
    }
}

impl std::fmt::Debug for ApiKeyRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// Refuses two profiles of one name: which of the two was meant is unknown, so neither wins silently.
fn each_name_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Profile>, D::Error> {
    struct Profiles;
    impl<'de> serde::de::Visitor<'de> for Profiles {
        type Value = BTreeMap<String, Profile>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of profiles by name")
        }
        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut profiles = BTreeMap::new();
            while let Some((name, profile)) = map.next_entry::<String, Profile>()? {
                if profiles.contains_key(&name) {
                    let text = format!("duplicate field: the profile {name:?} is there twice");
                    return Err(serde::de::Error::custom(text));
                }
                profiles.insert(name, profile);
            }
            Ok(profiles)
        }
    }
    deserializer.deserialize_any(Profiles)
}

fn blank_as_absent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}
