//! One TLS configuration for requests and WebSockets: the trust anchors of the machine (`SSL_CERT_FILE` is respected), and
//! those that the caller adds. Verification cannot be switched off.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

/// How long the machine's trust anchors are taken as read: reading them takes longer than a request on this machine.
const FRESH: Duration = Duration::from_secs(60);

/// The configuration without anchors of a caller, when it was made, and for which variables.
type Recent = (Instant, [Option<OsString>; 2], Arc<ClientConfig>);
static RECENT: Mutex<Option<Recent>> = Mutex::new(None);

pub fn client_config(ca_certs: &[Vec<u8>]) -> MicrosandboxResult<Arc<ClientConfig>> {
    if !ca_certs.is_empty() {
        return read(ca_certs);
    }
    let variables = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os);
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((made, of, config)) = &*recent
        && made.elapsed() < FRESH
        && *of == variables
    {
        return Ok(config.clone());
    }
    let config = read(ca_certs)?;
    *recent = Some((Instant::now(), variables, config.clone()));
    Ok(config)
}

fn read(ca_certs: &[Vec<u8>]) -> MicrosandboxResult<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut extra = Vec::new();
    for pem in ca_certs {
        let before = extra.len();
        for cert in CertificateDer::pem_slice_iter(pem) {
            extra.push(cert.map_err(|error| invalid(format!("a CA certificate is not PEM: {error}")))?);
        }
        if extra.len() == before {
            return Err(invalid("a CA certificate contains no PEM block".into()));
        }
    }
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone()).map_err(|error| {
        invalid(format!("certificates cannot be verified on this machine: {error}: install ca-certificates"))
    })?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn invalid(text: String) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(text)
}

/// For plain HTTP only: the default would look for trust anchors, which plain HTTP does not need.
pub fn without_trust() -> MicrosandboxResult<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}

/// The error of a handshake, at any depth of the chain of causes.
pub fn failure(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    if let Some(failure) = error.downcast_ref::<rustls::Error>() {
        return Some(failure.clone());
    }
    // An I/O error does not report the error that it wraps as its source.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match wrapped {
        Some(inner) => failure(inner),
        None => failure(error.source()?),
    }
}

/// How to fix a failed handshake.
pub fn hint(text: &str) -> &'static str {
    if text.contains("NotValidYet")
        || text.contains("not valid yet")
        || text.contains("Expired")
        || text.contains("expired")
    {
        "; the certificate is not yet valid or has expired: check the clock of this machine, then the certificate"
    } else if text.contains("NotValidForName") || text.contains("not valid for name") {
        "; the certificate is for another name: use a name that it contains"
    } else if text.contains("UnknownIssuer") || text.contains("CaUsedAsEndEntity") {
        "; no trusted authority signed the certificate: set SSL_CERT_FILE to its file if you trust it"
    } else if text.contains("invalid peer certificate") {
        "; the certificate is not accepted"
    } else {
        ""
    }
}
