//! One request: the key, limits in time and size, repeats where they are safe, redirects within the origin only.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::errors::{Route, refusal};
use super::tls;
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Largest answer that is read into memory.
const ANSWER_MAX: usize = 16 << 20;
/// Largest error body.
const ERROR_MAX: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Further attempts of a request that may be repeated.
const REPEATS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A service that asks for more patience than this gets an error instead.
const PAUSE_MAX: Duration = Duration::from_secs(10);
const REDIRECTS_MAX: usize = 5;
const USER_AGENT: &str = concat!("microsandbox-sdk/", env!("CARGO_PKG_VERSION"));

pub struct Settings {
    pub base: String,
    pub key: HeaderValue,
    pub user_agent: Option<String>,
    pub timeout: Duration,
    pub ca_certs: Vec<Vec<u8>>,
}

#[derive(Clone)]
pub struct Client {
    client: reqwest::Client,
    base: String,
    key: HeaderValue,
    timeout: Duration,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// When a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Whenever it got no answer, or one that says "later": it changes nothing, or the same again.
    Safe,
    /// Only if it cannot have been acted on.
    Unsent,
}

/// A request without its address and key.
pub struct Call<'a> {
    pub method: Method,
    pub path: String,
    pub route: Route<'a>,
    pub query: Vec<(&'static str, String)>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Bytes>,
    pub timeout: Option<Duration>,
    pub repeat: Repeat,
}

impl<'a> Call<'a> {
    pub fn new(method: Method, path: String, route: Route<'a>) -> Self {
        let repeat = if method == Method::GET { Repeat::Safe } else { Repeat::Unsent };
        Call { method, path, route, query: Vec::new(), headers: Vec::new(), body: None, timeout: None, repeat }
    }
    pub fn get(path: String, route: Route<'a>) -> Self {
        Call::new(Method::GET, path, route)
    }
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    pub fn json(mut self, body: &impl Serialize) -> MicrosandboxResult<Self> {
        let text = serde_json::to_vec(body).map_err(|error| MicrosandboxError::json("a request", error))?;
        self.body = Some(text.into());
        self.headers.push(("content-type", "application/json".into()));
        Ok(self)
    }
    pub fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Safe;
        self
    }
}

impl Client {
    pub fn new(settings: Settings) -> MicrosandboxResult<Client> {
        let failed = |error: reqwest::Error| MicrosandboxError::InvalidConfig(format!("the HTTP client: {error}"));
        let mut builder = reqwest::Client::builder()
            .user_agent(settings.user_agent.unwrap_or_else(|| USER_AGENT.into()))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(redirect::Policy::custom(same_origin));
        let tls =
            if settings.base.starts_with("https:") { Some(tls::client_config(&settings.ca_certs)?) } else { None };
        if let Some(tls) = &tls {
            builder = builder.tls_backend_preconfigured(rustls::ClientConfig::clone(tls));
        } else {
            // The default would look for trust anchors that plain HTTP does not need.
            builder = builder.tls_backend_preconfigured(no_tls()?);
        }
        Ok(Client {
            client: builder.build().map_err(failed)?,
            base: settings.base,
            key: settings.key,
            timeout: settings.timeout,
            tls,
        })
    }

    pub fn base(&self) -> &str {
        &self.base
    }
    pub fn key(&self) -> &HeaderValue {
        &self.key
    }
    pub fn tls(&self) -> Option<&Arc<rustls::ClientConfig>> {
        self.tls.as_ref()
    }
    pub fn user_agent() -> &'static str {
        USER_AGENT
    }

    /// An answer in JSON.
    pub async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> MicrosandboxResult<T> {
        let label = call.route.label;
        let (headers, body) = self.unary(call).await?;
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
        if !is_json(kind) {
            return Err(MicrosandboxError::Custom(format!(
                "{label}: the service answered {:?} where JSON was due; is the URL that of its API?",
                super::errors::cut(kind)
            )));
        }
        serde_json::from_slice(&body).map_err(|error| {
            MicrosandboxError::Custom(format!(
                "{label}: the service's answer cannot be read: {}",
                super::errors::cut(&error.to_string())
            ))
        })
    }

    /// Any 2xx answer; its body does not matter.
    pub async fn done(&self, call: Call<'_>) -> MicrosandboxResult<()> {
        self.unary(call).await.map(drop)
    }

    /// An answer within the time and size of a call.
    pub async fn unary(&self, call: Call<'_>) -> MicrosandboxResult<(HeaderMap, Bytes)> {
        let limit = call.timeout.unwrap_or(self.timeout);
        let label = call.route.label;
        let work = async {
            let mut response = self.open(&call).await?;
            let headers = std::mem::take(response.headers_mut());
            let body = read_bounded(&mut response, ANSWER_MAX, label).await?;
            Ok((headers, body))
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_elapsed| {
            Err(MicrosandboxError::Http(format!(
                "{label}: no answer from {} within {} s",
                self.base,
                limit.as_secs_f64()
            )))
        })
    }

    /// A 2xx answer whose body is still to come, without a limit in time.
    pub async fn open(&self, call: &Call<'_>) -> MicrosandboxResult<Response> {
        let mut pause = FIRST_PAUSE;
        for attempt in 0.. {
            let last = attempt == REPEATS;
            let (error, wait) = match self.send(call).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let wait = patience(&response, call.repeat);
                    (self.refused(response, &call.route).await, wait)
                }
                Err(error) => {
                    let again = error.is_connect() || (call.repeat == Repeat::Safe && is_unanswered(&error));
                    (self.unanswered(call.route.label, &error), again.then_some(None))
                }
            };
            let Some(asked) = wait.filter(|_| !last) else { return Err(error) };
            // A quarter more or less, so that clients that failed together do not come back together.
            let jittered = pause.mul_f64(0.75 + f64::from(jitter()) / 512.0);
            let wait = asked.unwrap_or(jittered);
            if wait > PAUSE_MAX {
                return Err(error);
            }
            tracing::debug!(route = call.route.label, attempt, wait_ms = wait.as_millis() as u64, "asking again");
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    /// Sends a body as its pieces come. An empty piece says that it is whole; a queue that ends without one breaks the
    /// request off, so that half a file never passes for one.
    pub async fn stream_body(&self, call: Call<'_>, queue: mpsc::Receiver<Bytes>) -> MicrosandboxResult<()> {
        let pieces = futures::stream::try_unfold(queue, |mut queue| async move {
            match queue.recv().await {
                Some(piece) if piece.is_empty() => Ok(None),
                Some(piece) => Ok(Some((piece, queue))),
                None => Err(std::io::Error::other("given up")),
            }
        });
        let response = self.request(&call).body(reqwest::Body::wrap_stream(pieces)).send().await;
        let response = response.map_err(|error| self.unanswered(call.route.label, &error))?;
        if response.status().is_success() { Ok(()) } else { Err(self.refused(response, &call.route).await) }
    }

    async fn send(&self, call: &Call<'_>) -> reqwest::Result<Response> {
        let mut request = self.request(call);
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        request.send().await
    }

    fn request(&self, call: &Call<'_>) -> reqwest::RequestBuilder {
        let mut request =
            self.client.request(call.method.clone(), self.url(call)).header(AUTHORIZATION, self.key.clone());
        if !call.headers.iter().any(|(name, _)| *name == "accept") {
            request = request.header(ACCEPT, "application/json");
        }
        for (name, value) in &call.headers {
            request = request.header(HeaderName::from_static(name), value);
        }
        request
    }

    fn url(&self, call: &Call<'_>) -> String {
        let mut url = format!("{}{}", self.base, call.path);
        if !call.query.is_empty() {
            let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&call.query).finish();
            url.push('?');
            url.push_str(&query);
        }
        url
    }

    async fn refused(&self, mut response: Response, route: &Route<'_>) -> MicrosandboxError {
        let status = response.status();
        let body = read_bounded(&mut response, ERROR_MAX, route.label).await.unwrap_or_default();
        refusal(route, status.as_u16(), &body)
    }

    /// No answer at all.
    fn unanswered(&self, label: &str, error: &reqwest::Error) -> MicrosandboxError {
        let mut text = String::new();
        let mut cause = error.source();
        while let Some(source) = cause {
            text = source.to_string();
            cause = source.source();
        }
        if text.is_empty() {
            text = error.to_string();
        }
        let hint = tls::hint(&text);
        MicrosandboxError::Http(format!("{label}: no answer from {}: {}{hint}", self.base, super::errors::cut(&text)))
    }
}

/// The next pause: `Some(None)` one of ours, `Some(Some(…))` what the service asked for, `None`: not again.
fn patience(response: &Response, repeat: Repeat) -> Option<Option<Duration>> {
    let again = match response.status() {
        // It says that it did nothing.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => repeat == Repeat::Safe,
        _ => false,
    };
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    again.then(|| seconds.map(Duration::from_secs))
}

fn is_unanswered(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_redirect() && !error.is_timeout()
}

fn jitter() -> u8 {
    let mut byte = [0];
    let _ = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
    byte[0]
}

fn same_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let first = attempt.previous().first().cloned();
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(format!("more than {REDIRECTS_MAX} redirects"));
    }
    match first {
        Some(first) if first.origin() == attempt.url().origin() => attempt.follow(),
        _ => {
            let elsewhere = attempt.url().origin().ascii_serialization();
            attempt.error(format!(
                "it redirects to {elsewhere}, where the API key was not sent; use that URL if it is right"
            ))
        }
    }
}

async fn read_bounded(response: &mut Response, limit: usize, label: &str) -> MicrosandboxResult<Bytes> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                return Err(MicrosandboxError::Custom(format!(
                    "{label}: the service's answer is larger than {limit} bytes"
                )));
            }
            Ok(Some(chunk)) if body.is_empty() && response.content_length() == Some(chunk.len() as u64) => {
                return Ok(chunk);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(error) => {
                return Err(MicrosandboxError::Http(format!("{label}: the answer broke off: {}", broken(&error))));
            }
        }
    }
}

/// Why a body ended early.
pub fn broken(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = source.to_string();
        cause = source.source();
    }
    super::errors::cut(&text)
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn no_tls() -> MicrosandboxResult<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| MicrosandboxError::InvalidConfig(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}
