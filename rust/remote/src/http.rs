//! One request: the key, limits in time and size, repeats where they are safe, redirects within the origin only.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use url::Url;

use super::errors::{Route, refusal};
use super::tls;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

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
/// A shorter key could be a word of the message.
const ECHO_MIN: usize = 8;
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
            // Followed here: the client would turn a DELETE that is sent elsewhere into a GET that succeeds.
            .redirect(redirect::Policy::none());
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
    /// Of a call that is not a stream.
    pub fn timeout(&self) -> Duration {
        self.timeout
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
                super::errors::cut(&self.without_key(kind))
            )));
        }
        serde_json::from_slice(&body).map_err(|error| {
            MicrosandboxError::Custom(format!(
                "{label}: the service's answer cannot be read: {}",
                super::errors::cut(&self.without_key(&error.to_string()))
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
                Err(Unsent::Broken(error)) => {
                    let again = error.is_connect() || (call.repeat == Repeat::Safe && is_unanswered(&error));
                    (self.unanswered(call.route.label, &error), again.then_some(None))
                }
                Err(Unsent::Astray(why)) => (self.no_answer(call.route.label, &why), None),
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
        let response = self.request(&call, &self.url(&call)).body(reqwest::Body::wrap_stream(pieces)).send().await;
        let response = response.map_err(|error| self.unanswered(call.route.label, &error))?;
        if response.status().is_success() { Ok(()) } else { Err(self.refused(response, &call.route).await) }
    }

    /// Sends it, and after a redirect within the origin again: the same method with the same body, or not at all.
    async fn send(&self, call: &Call<'_>) -> Result<Response, Unsent> {
        let mut url = self.url(call);
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.request(call, &url);
            if let Some(body) = &call.body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(Unsent::Broken)?;
            match elsewhere(&response, &call.method)? {
                Some(next) => url = next.into(),
                None => return Ok(response),
            }
        }
        Err(Unsent::Astray(format!("more than {REDIRECTS_MAX} redirects")))
    }

    fn request(&self, call: &Call<'_>, url: &str) -> reqwest::RequestBuilder {
        let mut request = self.client.request(call.method.clone(), url).header(AUTHORIZATION, self.key.clone());
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
        self.refusal(route, status.as_u16(), &body)
    }

    /// The error of a refused call. A service that echoes the key does not get it into a log.
    pub fn refusal(&self, route: &Route<'_>, status: u16, body: &[u8]) -> MicrosandboxError {
        refusal(route, status, self.without_key(&String::from_utf8_lossy(body)).as_bytes())
    }

    fn without_key<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let key = self.key.to_str().unwrap_or_default().trim_start_matches("Bearer ");
        if key.len() < ECHO_MIN || !text.contains(key) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.replace(key, "[API key]"))
    }

    /// No answer at all.
    fn unanswered(&self, label: &str, error: &reqwest::Error) -> MicrosandboxError {
        match tls::failure(error) {
            Some(failure) => MicrosandboxError::Tls {
                message: self.no_answer(label, &failure.to_string()).to_string(),
                source: Box::new(failure),
            },
            None => {
                let answer = self.no_answer(label, &root_cause(error));
                match os_error(error).filter(|_| error.is_connect()) {
                    Some(source) => MicrosandboxError::Unreachable { message: answer.to_string(), source },
                    None => answer,
                }
            }
        }
    }

    fn no_answer(&self, label: &str, why: &str) -> MicrosandboxError {
        let hint = tls::hint(why);
        MicrosandboxError::Http(format!("{label}: no answer from {}: {}{hint}", self.base, super::errors::cut(why)))
    }
}

/// Why a request came to nothing.
enum Unsent {
    Broken(reqwest::Error),
    /// A redirect that is not followed.
    Astray(String),
}

/// Where a redirect leads that may be followed: what a GET asks may be asked elsewhere; anything else only if the service
/// says that it stays what it is.
fn elsewhere(response: &Response, method: &Method) -> Result<Option<Url>, Unsent> {
    let kept = match response.status().as_u16() {
        307 | 308 => true,
        301..=303 => *method == Method::GET,
        _ => false,
    };
    let location = response.headers().get(LOCATION).filter(|_| kept);
    let Some(location) = location.and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let next = response.url().join(location).map_err(|_error| Unsent::Astray("it redirects to no address".into()))?;
    if next.origin() != response.url().origin() || !next.username().is_empty() || next.password().is_some() {
        let elsewhere = next.origin().ascii_serialization();
        return Err(Unsent::Astray(format!(
            "it redirects to {elsewhere}, where the API key was not sent; use that URL if it is right"
        )));
    }
    Ok(Some(next))
}

/// The next pause: `Some(None)` one of ours, `Some(Some(…))` what the service asked for, `None`: not again.
fn patience(response: &Response, repeat: Repeat) -> Option<Option<Duration>> {
    let again = match response.status() {
        // It says that it did nothing.
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            repeat == Repeat::Safe
        }
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
    super::errors::cut(&root_cause(error))
}

/// The innermost cause: the outer ones only say that a request failed.
fn root_cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The error of the operating system in the chain of causes.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<std::io::Error> {
    let errno = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    match errno {
        Some(errno) => Some(std::io::Error::from_raw_os_error(errno)),
        None => os_error(error.source()?),
    }
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
