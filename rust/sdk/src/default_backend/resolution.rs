//! The ladder: which backend is meant, from variables and the configuration document. First match wins.
//!
//! 1. `MSB_BACKEND=local`: this machine; the document is not read.
//! 2. `MSB_BACKEND=cloud` with `MSB_API_KEY`: the service, at `MSB_API_URL` if set; the document is not read.
//! 3. `MSB_API_URL` and `MSB_API_KEY`, both: that service; the document is not read. Either alone selects nothing.
//! 4. `MSB_PROFILE`, else `active_profile` of the document: that profile; with `MSB_BACKEND=cloud` it must be a cloud one.
//! 5. `MSB_BACKEND=cloud` and nothing of that: an error, never this machine.
//! 6. Nothing: this machine.
//!
//! Every error begins with the rung that it comes from.

use super::BackendInfo;
use microsandbox_core::backend::{BackendKind, SharedBackend};
use microsandbox_core::config::{DEFAULT_CLOUD_API_URL, Environment, Profile, ProfileBackend, SdkConfig, config_path};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_local::LocalBackend;
use microsandbox_remote::CloudBackend;

/// What the ladder found, or why it found nothing, and by which rung.
pub struct Resolution {
    pub backend: MicrosandboxResult<SharedBackend>,
    pub info: BackendInfo,
}

/// Climbs the ladder in this environment. Opens no database and makes no request.
pub fn resolve_from(environment: &Environment) -> Resolution {
    let mut info = BackendInfo { kind: BackendKind::Local, api_url: None, source: "default", profile: None };
    let backend = choose(environment, &mut info).map_err(|error| by_rung(info.source, error));
    if let Ok(backend) = &backend {
        info.kind = backend.kind();
    }
    Resolution { backend, info }
}

/// Says which rung failed.
fn by_rung(source: &str, error: MicrosandboxError) -> MicrosandboxError {
    match error {
        MicrosandboxError::InvalidConfig(why) if source != "default" => {
            MicrosandboxError::InvalidConfig(format!("the default backend, chosen by {source}: {why}"))
        }
        MicrosandboxError::InvalidConfig(why) => {
            MicrosandboxError::InvalidConfig(format!("the default backend: {why}"))
        }
        other => other,
    }
}

fn choose(environment: &Environment, info: &mut BackendInfo) -> MicrosandboxResult<SharedBackend> {
    let demanded = demanded_kind(environment, info)?;
    if demanded == Some(BackendKind::Local) {
        return Ok(LocalBackend::lazy().into());
    }
    let url = environment.text("MSB_API_URL");
    if let Some(key) = environment.text("MSB_API_KEY")
        && (demanded.is_some() || url.is_some())
    {
        if demanded.is_none() {
            info.source = "MSB_API_KEY";
        }
        let url = url.unwrap_or_else(|| DEFAULT_CLOUD_API_URL.into());
        return cloud(CloudBackend::new(&url, &key), info);
    }
    let document = SdkConfig::load_from(environment)?;
    let named = environment.text("MSB_PROFILE").map(|name| ("MSB_PROFILE", name));
    let Some((source, name)) = named.or(document.active_profile.map(|name| ("active_profile", name))) else {
        return match demanded {
            None => Ok(LocalBackend::lazy().into()),
            Some(_) => Err(invalid(
                "MSB_BACKEND=cloud requires a non-empty MSB_API_KEY or a cloud profile; set MSB_API_KEY, or MSB_PROFILE to \
                 a cloud profile",
            )),
        };
    };
    info.source = source;
    info.profile = Some(name.clone());
    let Some(profile) = document.profiles.get(&name) else {
        return Err(microsandbox_core::config::unknown_profile(&name, &config_path(environment)?));
    };
    by_profile(profile, &name, demanded, environment, info)
}

/// Notes the address, never the key.
fn cloud(made: MicrosandboxResult<CloudBackend>, info: &mut BackendInfo) -> MicrosandboxResult<SharedBackend> {
    let backend = made?;
    info.api_url = Some(backend.url().to_owned());
    Ok(backend.into())
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
) -> MicrosandboxResult<SharedBackend> {
    match profile.backend {
        ProfileBackend::Local if demanded == Some(BackendKind::Cloud) => {
            Err(invalid(&format!("MSB_BACKEND is cloud, but profile {name:?} is a local one; name a cloud profile")))
        }
        ProfileBackend::Local => Ok(LocalBackend::lazy().into()),
        ProfileBackend::Cloud => {
            info.api_url = profile.api_url().ok();
            cloud(CloudBackend::of_profile(profile, name, environment), info)
        }
    }
}

fn invalid(message: &str) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(message.to_owned())
}
