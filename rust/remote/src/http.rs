//! One request: the key, limits of time and size, retries where they are safe, redirects within the origin only.
//!
//! Retries and redirects are kept by hand: a client library turns a redirected DELETE into a GET, and does not know which
//! requests of this wire are idempotent.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use url::Url;

use super::errors::{Route, refusal};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_https::{cause, pause, tls};

/// Largest response that is read into memory.
const RESPONSE_MAX: usize = 16 << 20;
/// Largest error body.
const ERROR_MAX: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Further attempts of a request that may be retried.
const RETRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// If the service asks for a longer pause, the call fails instead.
const PAUSE_MAX: Duration = Duration::from_secs(10);
const REDIRECTS_MAX: usize = 5;
/// A shorter key could be an ordinary word of the message.
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

/// When a request may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After no response, or one that asks to retry later: the request is idempotent.
    Safe,
    /// Only if the service cannot have processed it.
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
    pub retry: Retry,
}

impl<'a> Call<'a> {
    pub fn new(method: Method, path: String, route: Route<'a>) -> Self {
        let retry = if method == Method::GET { Retry::Safe } else { Retry::Unsent };
        Call { method, path, route, query: Vec::new(), headers: Vec::new(), body: None, timeout: None, retry }
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
    pub fn idempotent(mut self) -> Self {
        self.retry = Retry::Safe;
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
            // Followed in `send`: reqwest would turn a redirected DELETE into a GET that succeeds.
            .redirect(redirect::Policy::none());
        let tls =
            if settings.base.starts_with("https:") { Some(tls::client_config(&settings.ca_certs)?) } else { None };
        if let Some(tls) = &tls {
            builder = builder.tls_backend_preconfigured(rustls::ClientConfig::clone(tls));
        } else {
            // The default would look for trust anchors that plain HTTP does not need.
            builder = builder.tls_backend_preconfigured(tls::without_trust()?);
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
    /// The timeout of a call that is not a stream.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    pub fn user_agent() -> &'static str {
        USER_AGENT
    }

    /// Sends a call whose response is JSON.
    pub async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> MicrosandboxResult<T> {
        let label = call.route.label;
        let (headers, body) = self.unary(call).await?;
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
        if !is_json(kind) {
            return Err(MicrosandboxError::Custom(format!(
                "{label}: the service responded with {:?} instead of JSON: check that the URL is that of its API",
                super::errors::cut(&self.without_key(kind))
            )));
        }
        serde_json::from_slice(&body).map_err(|error| {
            MicrosandboxError::Custom(format!(
                "{label}: the response of the service cannot be decoded: {}",
                super::errors::cut(&self.without_key(&error.to_string()))
            ))
        })
    }

    /// Sends a call of which only the status matters.
    pub async fn done(&self, call: Call<'_>) -> MicrosandboxResult<()> {
        self.unary(call).await.map(drop)
    }

    /// Sends a call and reads the response, within the limits of time and size.
    pub async fn unary(&self, call: Call<'_>) -> MicrosandboxResult<(HeaderMap, Bytes)> {
        let limit = call.timeout.unwrap_or(self.timeout);
        let label = call.route.label;
        let work = async {
            let mut response = self.open(&call).await?;
            let headers = std::mem::take(response.headers_mut());
            let body = read_bounded(&mut response, RESPONSE_MAX, label).await?;
            Ok((headers, body))
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_elapsed| {
            Err(MicrosandboxError::Http(format!(
                "{label}: no response from {} within {} s",
                self.base,
                limit.as_secs_f64()
            )))
        })
    }

    /// Sends a call and returns the 2xx response before its body, without a limit of time.
    pub async fn open(&self, call: &Call<'_>) -> MicrosandboxResult<Response> {
        let mut wait_next = FIRST_PAUSE;
        for attempt in 0.. {
            let last = attempt == RETRIES;
            let (error, wait) = match self.send(call).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let wait = patience(&response, call.retry);
                    (self.refused(response, &call.route).await, wait)
                }
                Err(Failed::Transport(error)) => {
                    let again = error.is_connect() || (call.retry == Retry::Safe && is_without_response(&error));
                    (self.no_response_to(call.route.label, &error), again.then_some(None))
                }
                Err(Failed::Redirect(why)) => (self.no_response(call.route.label, &why), None),
            };
            let Some(asked) = wait.filter(|_| !last) else { return Err(error) };
            let wait = asked.unwrap_or_else(|| pause::jittered(wait_next));
            if wait > PAUSE_MAX {
                return Err(error);
            }
            tracing::debug!(route = call.route.label, attempt, wait_ms = wait.as_millis() as u64, "retrying");
            tokio::time::sleep(wait).await;
            wait_next *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    /// Sends a body piece by piece. An empty piece marks its end; a queue that closes without one aborts the request, so that a
    /// partial file is never accepted as complete.
    pub async fn stream_body(&self, call: Call<'_>, queue: mpsc::Receiver<Bytes>) -> MicrosandboxResult<()> {
        let pieces = futures::stream::try_unfold(queue, |mut queue| async move {
            match queue.recv().await {
                Some(piece) if piece.is_empty() => Ok(None),
                Some(piece) => Ok(Some((piece, queue))),
                None => Err(std::io::Error::other("the body was not finished")),
            }
        });
        let response = self.request(&call, &self.url(&call)).body(reqwest::Body::wrap_stream(pieces)).send().await;
        let response = response.map_err(|error| self.no_response_to(call.route.label, &error))?;
        if response.status().is_success() { Ok(()) } else { Err(self.refused(response, &call.route).await) }
    }

    /// Sends a call and follows redirects within the origin, with the same method and the same body or not at all.
    async fn send(&self, call: &Call<'_>) -> Result<Response, Failed> {
        let mut url = self.url(call);
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.request(call, &url);
            if let Some(body) = &call.body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(Failed::Transport)?;
            match elsewhere(&response, &call.method)? {
                Some(next) => url = next.into(),
                None => return Ok(response),
            }
        }
        Err(Failed::Redirect(format!("more than {REDIRECTS_MAX} redirects")))
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

    /// The error of a call that the service refused. The key is removed from the text, so that no log receives it.
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

    /// The error of a call without a response.
    fn no_response_to(&self, label: &str, error: &reqwest::Error) -> MicrosandboxError {
        match tls::failure(error) {
            Some(failure) => MicrosandboxError::Tls {
                message: self.no_response(label, &failure.to_string()).to_string(),
                source: Box::new(failure),
            },
            None => {
                let failure = self.no_response(label, &cause::root(error));
                match cause::os_error(error).filter(|_| error.is_connect()) {
                    Some(source) => MicrosandboxError::Unreachable { message: failure.to_string(), source },
                    None => failure,
                }
            }
        }
    }

    fn no_response(&self, label: &str, why: &str) -> MicrosandboxError {
        let hint = tls::hint(why);
        MicrosandboxError::Http(format!("{label}: no response from {}: {}{hint}", self.base, super::errors::cut(why)))
    }
}

/// Why there is no response to a request.
enum Failed {
    Transport(reqwest::Error),
    /// A redirect that is not followed.
    Redirect(String),
}

/// The target of a redirect that may be followed: any for a GET; for other methods only 307 and 308, which keep the method.
fn elsewhere(response: &Response, method: &Method) -> Result<Option<Url>, Failed> {
    let kept = match response.status().as_u16() {
        307 | 308 => true,
        301..=303 => *method == Method::GET,
        _ => false,
    };
    let location = response.headers().get(LOCATION).filter(|_| kept);
    let Some(location) = location.and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let next = response
        .url()
        .join(location)
        .map_err(|_error| Failed::Redirect("it redirects to an invalid address".into()))?;
    if next.origin() != response.url().origin() || !next.username().is_empty() || next.password().is_some() {
        let elsewhere = next.origin().ascii_serialization();
        return Err(Failed::Redirect(format!(
            "it redirects to {elsewhere}, where the API key was not sent: use that URL if it is the right one"
        )));
    }
    Ok(Some(next))
}

/// The pause before a retry: `Some(None)` ours, `Some(Some(…))` that of the header Retry-After, `None`: no retry.
fn patience(response: &Response, retry: Retry) -> Option<Option<Duration>> {
    let again = match response.status() {
        // The service did not process the request.
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => retry == Retry::Safe,
        _ => false,
    };
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| pause::retry_after(value.to_str().ok()?, SystemTime::now()));
    again.then_some(after)
}

fn is_without_response(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_redirect() && !error.is_timeout()
}

async fn read_bounded(response: &mut Response, limit: usize, label: &str) -> MicrosandboxResult<Bytes> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                return Err(MicrosandboxError::Custom(format!(
                    "{label}: the response of the service is larger than {limit} bytes"
                )));
            }
            Ok(Some(chunk)) if body.is_empty() && response.content_length() == Some(chunk.len() as u64) => {
                return Ok(chunk);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(error) => {
                return Err(MicrosandboxError::Http(format!(
                    "{label}: the connection closed before the end of the response: {}",
                    broken(&error)
                )));
            }
        }
    }
}

/// Why a body ended before its last byte.
pub fn broken(error: &reqwest::Error) -> String {
    super::errors::cut(&cause::root(error))
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || (kind.starts_with("application/") && kind.ends_with("+json"))
}
