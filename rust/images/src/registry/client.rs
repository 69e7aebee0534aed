//! One repository of one registry: a request with its authentication, redirects and retries. Every request is a GET or a HEAD,
//! so each may be repeated.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderName, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use microsandbox_https::{cause, tls};
use reqwest::Response;
use url::Url;

use super::challenge::Challenge;
use super::pace::{Broken, Pace};
use super::patience::{self, Patience};
use super::reach::Reach;
use super::token::Auth;
use super::transport::Transport;
use crate::credentials::Credential;
use crate::failure::Failure;
use microsandbox_core::error::{ImageErrorKind, MicrosandboxResult};

const REDIRECTS_MAX: usize = 5;
/// Largest error body that is read.
const ERROR_MAX: usize = 64 << 10;
/// Longest text of a registry in an error.
const SAID_MAX: usize = 300;

/// How a registry is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As in the reference, or of a mirror: a host, with its port unless it is that of the scheme.
    pub host: String,
    pub repository: String,
    /// Plain HTTP.
    pub insecure: bool,
    pub ca_certs: Vec<Vec<u8>>,
    pub credential: Option<Credential>,
    /// A host beside its own that may receive its credentials for a token.
    pub token_host: Option<String>,
    /// Of a mirror: the registry whose images it repeats.
    pub mirrored: Option<String>,
    /// The most internal address that the registry itself may have.
    pub most_internal: Reach,
    /// Longest time in which next to nothing arrives (`registry.stall`).
    pub stall: Duration,
}

pub struct Client {
    pub settings: Settings,
    transport: Transport,
    auth: Auth,
    /// `host[:port]` of the requests.
    authority: String,
    plain: AtomicBool,
}

/// A request below `/v2/<repository>/`.
pub struct Request<'a> {
    pub method: Method,
    pub path: String,
    pub accept: &'a str,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For errors: `manifest latest`, `layer sha256:…`.
    pub what: &'a str,
}

/// Why there is no response.
enum Failed {
    Transport(reqwest::Error),
    Stalled,
    /// Not to be repeated.
    Refused(String),
}

impl Client {
    pub fn new(settings: Settings) -> MicrosandboxResult<Client> {
        let authority = match settings.host.as_str() {
            // Its name as a registry is not that of the machine which serves it.
            "docker.io" => "registry-1.docker.io".to_owned(),
            host => host.to_owned(),
        };
        let transport = Transport::new(host_of(&authority), &settings.ca_certs, settings.most_internal)?;
        let auth = Auth::new(settings.credential.clone());
        let plain = AtomicBool::new(settings.insecure);
        Ok(Client { settings, transport, auth, authority, plain })
    }

    pub fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// The host of the requests, without its port.
    pub fn host(&self) -> &str {
        host_of(&self.authority)
    }

    /// The response to a request: success, or a refusal that only the caller can judge (404, 416 …).
    pub async fn send(&self, request: &Request<'_>, patience: &mut Patience) -> Result<Response, Failure> {
        let mut authenticated = false;
        loop {
            let used = self.auth.authorization(self).await?;
            let (failure, asked) = match self.attempt(request, used.as_ref()).await {
                Ok((response, own)) => match response.status() {
                    StatusCode::UNAUTHORIZED if own && !authenticated => {
                        authenticated = true;
                        let challenge = Challenge::of(response.headers());
                        match self.auth.answer(self, challenge, used.as_ref()).await? {
                            true => continue,
                            false => return Err(self.refused(request, response).await),
                        }
                    }
                    status if may_pass(status) => {
                        let asked = patience::asked(&response);
                        (self.refused(request, response).await, asked)
                    }
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if own => {
                        return Err(self.refused(request, response).await);
                    }
                    // Elsewhere an address has expired that the registry gives anew.
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (self.refused(request, response).await, None),
                    _ => return Ok(response),
                },
                Err(Failed::Refused(why)) => return Err(self.no_response(request.what, &why)),
                Err(Failed::Stalled) => (self.stalled(request.what), None),
                Err(Failed::Transport(error)) => {
                    if self.falls_back(&error) {
                        continue;
                    }
                    if tls::failure(&error).is_some() {
                        return Err(self.no_response_to(request.what, &error));
                    }
                    if error.is_connect() {
                        patience.hurry();
                    }
                    (self.no_response_to(request.what, &error), None)
                }
            };
            if !patience.wait(asked).await {
                return Err(failure);
            }
            tracing::debug!(what = request.what, host = self.authority, "asking the registry again");
        }
    }

    /// One attempt, redirects followed; whether the response is the registry's own.
    async fn attempt(
        &self,
        request: &Request<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, bool), Failed> {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let mirrored = self.settings.mirrored.as_deref().map(|host| format!("?ns={host}")).unwrap_or_default();
        let (authority, repository) = (&self.authority, &self.settings.repository);
        let text = format!("{scheme}://{authority}/v2/{repository}/{}{mirrored}", request.path);
        let url = Url::parse(&text).map_err(|error| Failed::Refused(format!("{text}: {error}")))?;
        let mut headers = vec![(ACCEPT_ENCODING, HeaderValue::from_static("identity"))];
        headers.extend(HeaderValue::from_str(request.accept).ok().map(|accept| (ACCEPT, accept)));
        headers.extend(request.headers.iter().cloned());
        self.follow(request.method.clone(), url, &headers, authorization).await
    }

    /// Sends a GET or HEAD and follows redirects. The authorization stays with the origin of `first`.
    async fn follow(
        &self,
        method: Method,
        first: Url,
        headers: &[(HeaderName, HeaderValue)],
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, bool), Failed> {
        let own = first.origin();
        let mut url = first;
        let mut at_home = true;
        for _ in 0..=REDIRECTS_MAX {
            let client = self.transport.client(&url).map_err(Failed::Refused)?;
            let mut request = client.request(method.clone(), url.clone());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            // What another host redirects back to is that host's choice.
            at_home &= url.origin() == own;
            if let Some(value) = authorization.filter(|_| at_home) {
                request = request.header(AUTHORIZATION, value);
            }
            let sent = tokio::time::timeout(self.settings.stall, request.send()).await;
            let response = sent.map_err(|_elapsed| Failed::Stalled)?.map_err(Failed::Transport)?;
            match elsewhere(&response)? {
                Some(next) => url = next,
                None => return Ok((response, at_home)),
            }
        }
        Err(Failed::Refused(format!("it redirects more than {REDIRECTS_MAX} times")))
    }

    /// A GET of the token service, or a POST with `form`; the response within the limits of a document.
    pub async fn token_request(
        &self,
        realm: Url,
        form: Option<String>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let what = format!("the token service {}", realm.host_str().unwrap_or_default());
        let mut patience = Patience::default();
        loop {
            let sent = match &form {
                None => self.follow(Method::GET, realm.clone(), &[], authorization).await.map(|(response, _)| response),
                Some(form) => self.post(&realm, form.clone()).await,
            };
            let (failure, asked) = match sent {
                Ok(response) => {
                    let status = response.status();
                    let asked = patience::asked(&response);
                    let body = self.bounded(response, super::token::RESPONSE_MAX, &what).await?;
                    if !may_pass(status) {
                        return Ok((status, body));
                    }
                    (self.unexpected(&what, status, &body), asked)
                }
                Err(Failed::Refused(why)) => return Err(self.no_response(&what, &why)),
                Err(Failed::Stalled) => (self.stalled(&what), None),
                Err(Failed::Transport(error)) if tls::failure(&error).is_some() => {
                    return Err(self.no_response_to(&what, &error));
                }
                Err(Failed::Transport(error)) => (self.no_response_to(&what, &error), None),
            };
            if !patience.wait(asked).await {
                return Err(failure);
            }
        }
    }

    /// A form with a secret goes to its address and nowhere else.
    async fn post(&self, url: &Url, form: String) -> Result<Response, Failed> {
        let client = self.transport.client(url).map_err(Failed::Refused)?;
        let kind = "application/x-www-form-urlencoded";
        let request = client.post(url.clone()).header(http::header::CONTENT_TYPE, kind).body(form);
        let sent = tokio::time::timeout(self.settings.stall, request.send()).await;
        sent.map_err(|_elapsed| Failed::Stalled)?.map_err(Failed::Transport)
    }

    /// A registry on a loopback address may speak plain HTTP without being named insecure, as with other tools: what it says
    /// does not leave the machine. Only where the other side does not speak TLS at all: a certificate that is refused stays
    /// an error.
    fn falls_back(&self, error: &reqwest::Error) -> bool {
        if self.is_plain() || !is_loopback(self.host()) || !error.is_connect() {
            return false;
        }
        let speaks_no_tls = match tls::failure(error) {
            Some(failure) => matches!(failure, rustls::Error::InvalidMessage(_)),
            None => cause::root(error).contains("eof") || cause::os_error(error).is_some_and(|e| is_closed(e.kind())),
        };
        if speaks_no_tls {
            self.plain.store(true, Ordering::Relaxed);
        }
        speaks_no_tls
    }

    /// The rest of a response, at most `limit` bytes.
    pub async fn bounded(&self, mut response: Response, limit: usize, what: &str) -> Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        let mut pace = Pace::new(self.settings.stall);
        loop {
            match pace.next(&mut response).await {
                Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                    return Err(crate::failure::limit(format!("{what} is larger than {limit} bytes")));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body.freeze()),
                Err(Broken::Stalled) => return Err(self.stalled(what)),
                Err(Broken::Transport(error)) => return Err(self.no_response_to(what, &error)),
            }
        }
    }

    /// The error of a response that is no success.
    pub async fn refused(&self, request: &Request<'_>, response: Response) -> Failure {
        let status = response.status();
        let body = self.bounded(response, ERROR_MAX, request.what).await.unwrap_or_default();
        self.unexpected(request.what, status, &body)
    }

    pub fn unexpected(&self, what: &str, status: StatusCode, body: &[u8]) -> Failure {
        let said = self.auth.hide(&said(body));
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let host = &self.settings.host;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let advice = match self.settings.credential {
                    Some(_) => "the stored credentials are not accepted for it; check them",
                    None => "it does not exist, or it needs credentials",
                };
                Failure::of(
                    ImageErrorKind::Denied,
                    format!("{what}: {host} refuses it ({status}{said}): {advice}: msb registry login {host}"),
                )
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Failure::of(
                ImageErrorKind::Denied,
                format!(
                    "{what}: the proxy on the way to {host} asks for credentials: write them into HTTPS_PROXY or HTTP_PROXY \
                     (http://user:password@proxy:port)"
                ),
            ),
            StatusCode::TOO_MANY_REQUESTS => Failure::of(
                ImageErrorKind::RateLimited,
                format!(
                    "{what}: {host} limits the number of requests ({status}{said}): log in (msb registry login {host}), or set \
                     registries.mirrors"
                ),
            ),
            _ => Failure::of(ImageErrorKind::Transport, format!("{what}: {host} responded with {status}{said}")),
        }
    }

    pub fn stalled(&self, what: &str) -> Failure {
        Failure::of(
            ImageErrorKind::Stalled,
            format!(
                "{what}: {} has sent next to nothing for {} s (registry.stall; raise it with {})",
                self.settings.host,
                self.settings.stall.as_secs_f64(),
                super::STALL_VARIABLE
            ),
        )
    }

    pub fn no_response(&self, what: &str, why: &str) -> Failure {
        let host = &self.settings.host;
        let why = cut(why);
        Failure::of(ImageErrorKind::Transport, format!("{what}: no response from {host}: {why}{}", tls::hint(&why)))
    }

    pub fn no_response_to(&self, what: &str, error: &reqwest::Error) -> Failure {
        self.no_response(what, &cause::root(error))
    }
}

/// Where a response redirects to, if that is a place that a registry may redirect to.
fn elsewhere(response: &Response) -> Result<Option<Url>, Failed> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let invalid = || Failed::Refused("it redirects to an invalid address".into());
    let next = response.url().join(location.to_str().map_err(|_| invalid())?).map_err(|_| invalid())?;
    let refused = |why: &str| {
        // Without the query: it may hold a signature that is as good as a password.
        let target = format!("{}://{}", next.scheme(), next.host_str().unwrap_or_default());
        Err(Failed::Refused(format!("it redirects to {target}, {why}")))
    };
    match next.scheme() {
        "https" => {}
        "http" if response.url().scheme() == "http" => {}
        "http" => return refused("which is not encrypted"),
        _ => return refused("which is no address of HTTP"),
    }
    if !next.username().is_empty() || next.password().is_some() {
        return refused("with a user name");
    }
    Ok(Some(next))
}

/// Whether another attempt may succeed.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// `host` of `host:port`; an IPv6 address keeps its brackets.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || literal.is_ok_and(|address| address.is_loopback())
}

fn is_closed(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof)
}

/// What an error body says: the registry's own words, else nothing.
fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Said>,
    }
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(body) else { return String::new() };
    let first = errors.into_iter().next().map(|said| format!("{} {}", said.code, said.message));
    cut(first.unwrap_or_default().trim())
}

fn cut(text: &str) -> String {
    text.chars().take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_a_host() {
        for (authority, host) in [("a:1", "a"), ("a", "a"), ("[::1]:5", "[::1]"), ("[::1]", "[::1]")] {
            assert_eq!(host_of(authority), host);
        }
        assert!(is_loopback("127.0.0.1") && is_loopback("[::1]") && is_loopback("localhost"));
        assert!(!is_loopback("10.0.0.1") && !is_loopback("localhost.example"));
    }

    #[test]
    fn only_the_registrys_own_words_are_quoted() {
        assert_eq!(said(br#"{"errors":[{"code":"DENIED","message":"no"}]}"#), "DENIED no");
        assert_eq!(said(b"<html>"), "");
        assert!(said(format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(9999)).as_bytes()).len() <= SAID_MAX);
    }
}
