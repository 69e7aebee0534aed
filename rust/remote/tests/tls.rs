//! Who the cloud client talks to over TLS: only servers with a valid certificate; the error names the remedy.

use std::sync::Arc;

use crate::service::{self, KEY, answer, exec, soon, whole_answer};
use microsandbox_core::backend::SharedBackend;
use microsandbox_core::{MicrosandboxError, Sandbox};
use microsandbox_remote::CloudBackend;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

struct Secure {
    url: String,
    pem: String,
    task: JoinHandle<()>,
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Secure {
    /// A service with a certificate of its own making, for `name`, valid between two years.
    async fn new(name: &str, years: (i32, i32)) -> Secure {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = [0; 4096];
                    let length = stream.read(&mut head).await.unwrap_or(0);
                    let said = if head[..length].windows(6).any(|word| word == b"/agent") {
                        "HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n".into()
                    } else {
                        whole_answer(&answer("running").to_string())
                    };
                    let _ = stream.write_all(said.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Secure { url, pem: certificate.pem(), task }
    }

    fn client(&self, trusting: bool) -> SharedBackend {
        let builder = CloudBackend::builder().url(&self.url).api_key(KEY);
        let builder = if trusting { builder.ca_cert_pem(self.pem.clone()) } else { builder };
        builder.build().unwrap().into()
    }
}

async fn failure(backend: &SharedBackend) -> String {
    match soon(Sandbox::get(backend, "box")).await {
        Err(error @ (MicrosandboxError::Http(_) | MicrosandboxError::Tls { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Requests and WebSockets trust the same certificates.
#[tokio::test]
async fn a_certificate_that_was_given_is_trusted() {
    let service = Secure::new("localhost", (2020, 2099)).await;
    let backend = service.client(true);
    soon(Sandbox::get(&backend, "box")).await.unwrap();
    let error = exec(&backend, "true").await.unwrap_err();
    // Refused by the service, not by TLS.
    assert!(matches!(error, MicrosandboxError::CloudHttp { status: 409, .. }), "{error:?}");
}

// hazard: C1
#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    let service = Secure::new("localhost", (2020, 2099)).await;
    let error = soon(Sandbox::get(&service.client(false), "box")).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
}

// hazard: C1
#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let service = Secure::new("elsewhere.test", (2020, 2099)).await;
    let text = failure(&service.client(true)).await;
    assert!(text.contains("another name"), "{text}");
}

// hazard: C1
#[tokio::test]
async fn a_certificate_outside_its_dates_names_the_clock() {
    for years in [(2001, 2002), (2098, 2099)] {
        let service = Secure::new("localhost", years).await;
        let text = failure(&service.client(true)).await;
        assert!(text.contains("clock"), "{years:?}: {text}");
    }
}

// hazard: C1
#[tokio::test]
async fn plain_http_where_tls_is_spoken_and_the_other_way_round() {
    let service = Secure::new("localhost", (2020, 2099)).await;
    let plain: SharedBackend = CloudBackend::new(&service.url.replace("https:", "http:"), KEY).unwrap().into();
    failure(&plain).await;
    let server = service::with_status("running").await;
    let secure: SharedBackend = CloudBackend::new(&server.uri().replace("http:", "https:"), KEY).unwrap().into();
    failure(&secure).await;
    assert_eq!(service::requests(&server).await.len(), 0);
}

#[test]
fn an_invalid_certificate_file_is_refused_when_read() {
    for bad in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n***\n-----END CERTIFICATE-----\n"] {
        let built = CloudBackend::builder().url("https://localhost").api_key(KEY).ca_cert_pem(bad).build();
        assert!(matches!(built, Err(MicrosandboxError::InvalidConfig(_))), "{bad:?}");
    }
}
