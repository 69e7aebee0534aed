//! The ladder: which backend is meant, from variables and the configuration document. First match wins.
//!
//! 1. `MSB_BACKEND=local`: this machine; the document is not read.
//! 2. `MSB_BACKEND=cloud` with `MSB_API_KEY`: the service, at `MSB_API_URL` if set; the document is not read.
//! 3. `MSB_PROFILE`, else `active_profile` of the document: that profile; with `MSB_BACKEND=cloud` it must be a cloud one.
//! 4. `MSB_BACKEND=cloud` and nothing of that: an error, never this machine.
//! 5. Nothing: this machine.
//!
//! Credentials alone select nothing.

use super::BackendInfo;
use crate::backend::{BackendKind, LocalBackend, SharedBackend, available_when};
use crate::config::{DEFAULT_CLOUD_API_URL, Environment, Profile, ProfileBackend, SdkConfig, config_path};
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// What the ladder found, or why it found nothing, and by which rung.
pub struct Resolution {
    pub backend: MicrosandboxResult<SharedBackend>,
    pub info: BackendInfo,
}

/// Climbs the ladder in this environment. Opens no database and makes no request.
pub fn resolve_from(environment: &Environment) -> Resolution {
    let mut info = BackendInfo { kind: BackendKind::Local, api_url: None, source: "default", profile: None };
    let choice = choose(environment, &mut info);
    if matches!(choice, Ok(BackendKind::Cloud)) {
        info.kind = BackendKind::Cloud;
    }
    let backend = choice.and_then(|kind| match kind {
        BackendKind::Local => Ok(LocalBackend::lazy().into()),
        BackendKind::Cloud => Err(MicrosandboxError::unsupported("CloudBackend", available_when::CLOUD)),
    });
    Resolution { backend, info }
}

fn choose(environment: &Environment, info: &mut BackendInfo) -> MicrosandboxResult<BackendKind> {
    let demanded = demanded_kind(environment, info)?;
    if demanded == Some(BackendKind::Local) {
        return Ok(BackendKind::Local);
    }
    if demanded.is_some() && environment.text("MSB_API_KEY").is_some() {
        let url = environment.text("MSB_API_URL").unwrap_or_else(|| DEFAULT_CLOUD_API_URL.into());
        info.api_url = Some(crate::config::normalise_url(&url)?);
        return Ok(BackendKind::Cloud);
    }
    let document = SdkConfig::load_from(environment)?;
    let named = environment.text("MSB_PROFILE").map(|name| ("MSB_PROFILE", name));
    let Some((source, name)) = named.or(document.active_profile.map(|name| ("active_profile", name))) else {
        return match demanded {
            None => Ok(BackendKind::Local),
            Some(_) => Err(invalid(
                "MSB_BACKEND is cloud, but there is neither MSB_API_KEY nor a profile; set MSB_API_KEY, or MSB_PROFILE to \
                 a cloud profile",
            )),
        };
    };
    info.source = source;
    info.profile = Some(name.clone());
    let Some(profile) = document.profiles.get(&name) else {
        return Err(crate::config::unknown_profile(&name, &config_path(environment)?));
    };
    by_profile(profile, &name, demanded, environment, info)
}

fn demanded_kind(environment: &Environment, info: &mut BackendInfo) -> MicrosandboxResult<Option<BackendKind>> {
    let Some(value) = environment.raw("MSB_BACKEND") else { return Ok(None) };
    info.source = "MSB_BACKEND";
    match value.to_string_lossy().trim().to_ascii_lowercase().as_str() {
        "local" => Ok(Some(BackendKind::Local)),
        "cloud" => Ok(Some(BackendKind::Cloud)),
        other => Err(invalid(&format!("MSB_BACKEND is {other:?}; use local or cloud, or unset it"))),
    }
}

fn by_profile(
    profile: &Profile,
    name: &str,
    demanded: Option<BackendKind>,
    environment: &Environment,
    info: &mut BackendInfo,
) -> MicrosandboxResult<BackendKind> {
    match profile.backend {
        ProfileBackend::Local if demanded == Some(BackendKind::Cloud) => {
            Err(invalid(&format!("MSB_BACKEND is cloud, but profile {name:?} is a local one; name a cloud profile")))
        }
        ProfileBackend::Local => Ok(BackendKind::Local),
        ProfileBackend::Cloud => {
            let Some(reference) = &profile.api_key_ref else {
                return Err(invalid(&format!("cloud profile {name:?} has no api_key_ref; add one, such as env:NAME")));
            };
            info.api_url = Some(profile.api_url()?);
            // Found here so that a key that is missing is known before the first request; the client will take it from here.
            reference.resolve(name, environment)?;
            Ok(BackendKind::Cloud)
        }
    }
}

fn invalid(message: &str) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(message.to_owned())
}
