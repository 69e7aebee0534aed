//! Certificates: given by the user, or generated once and kept. The whole program uses one cryptographic provider: ring.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use microsandbox_core::{MicrosandboxError, MicrosandboxResult, private};
use microsandbox_home::make_private_directory;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

/// A larger file is no certificate.
const FILE_MAX: u64 = 1 << 20;

/// The configuration for connections, and the certificate to report to the user.
#[derive(Debug, Clone)]
pub struct Tls {
    pub config: Arc<ServerConfig>,
    pub certificate: PathBuf,
    /// SHA-256 of the certificate, as `AB:CD:…`.
    pub fingerprint: String,
}

/// A certificate chain and its key, both PEM.
pub fn load(certificate: &Path, key: &Path) -> MicrosandboxResult<Tls> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(certificate, "certificate", &error))?;
    let Some(first) = chain.first() else {
        return Err(unusable(certificate, "certificate", &"it holds none"));
    };
    let digest = Sha256::digest(first);
    let fingerprint = digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| unusable(key, "private key", &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(certificate, "certificate", &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| unusable(certificate, "certificate", &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(config), certificate: certificate.to_path_buf(), fingerprint })
}

/// The certificate of this home, generated when there is none: for `localhost`, both loopback addresses, the name of this
/// machine and `listen`.
pub fn self_signed(directory: &Path, listen: IpAddr) -> MicrosandboxResult<Tls> {
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    if !(certificate.exists() && key.exists()) {
        make(directory, &certificate, &key, listen)?;
    }
    load(&certificate, &key)
}

fn make(directory: &Path, certificate: &Path, key: &Path, listen: IpAddr) -> MicrosandboxResult<()> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.extend(rustix::system::uname().nodename().to_str().ok().filter(|name| !name.is_empty()).map(str::to_owned));
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names.sort();
    names.dedup();
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| MicrosandboxError::Runtime(format!("a certificate cannot be generated: {error}")))?;
    make_private_directory(directory)?;
    private::write(key, made.signing_key.serialize_pem().as_bytes())?;
    private::write(certificate, made.cert.pem().as_bytes())
}

fn read(path: &Path) -> MicrosandboxResult<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(|e| MicrosandboxError::io("open", path, e))?;
    let mut content = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut content).map_err(|e| MicrosandboxError::io("read", path, e))?;
    Ok(content)
}

fn unusable(path: &Path, what: &str, why: &dyn std::fmt::Display) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(format!("{} is not a usable {what} in PEM form: {why}", path.display()))
}
