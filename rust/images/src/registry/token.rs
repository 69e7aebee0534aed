//! What a request is authorised with: a password, or a token of the registry's token service, fetched when the registry asks
//! for one and renewed before it expires.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::challenge::Challenge;
use super::client::Client;
use crate::credentials::Credential;
use crate::failure::Failure;
use microsandbox_core::error::ImageErrorKind;

/// Largest response of a token service.
pub const RESPONSE_MAX: usize = 256 << 10;
/// Where a token service does not say how long a token is good (distribution specification, token authentication).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);
/// Secrets that are remembered for their removal from texts: the credentials, and tokens.
const SECRETS_MAX: usize = 16;
/// A shorter secret could be an ordinary word of a message.
const ECHO_MIN: usize = 8;

pub struct Auth {
    credential: Option<Credential>,
    state: Mutex<State>,
    /// Every secret that was sent: removed from texts of the registry.
    secrets: std::sync::Mutex<Vec<String>>,
}

enum State {
    Anonymous,
    Fixed(HeaderValue),
    Token { value: HeaderValue, renew_at: Instant, challenge: TokenChallenge },
}

#[derive(Clone)]
struct TokenChallenge {
    realm: Url,
    service: Option<String>,
    scope: String,
}

#[derive(Deserialize)]
struct TokenResponse {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Auth {
    pub fn new(credential: Option<Credential>) -> Auth {
        let (mut state, mut secrets) = (State::Anonymous, Vec::new());
        match &credential {
            Some(Credential::Bearer(token)) => {
                secrets.push(token.clone());
                if let Some(value) = bearer(token) {
                    state = State::Fixed(value);
                }
            }
            Some(Credential::Basic { password, .. }) => secrets.push(password.clone()),
            Some(Credential::IdentityToken(token)) => secrets.push(token.clone()),
            None => {}
        }
        Auth { credential, state: Mutex::new(state), secrets: std::sync::Mutex::new(secrets) }
    }

    /// The header of the next request.
    pub async fn authorization(&self, client: &Client) -> Result<Option<HeaderValue>, Failure> {
        let mut state = self.state.lock().await;
        let due = match &*state {
            State::Anonymous => return Ok(None),
            State::Fixed(value) => return Ok(Some(value.clone())),
            State::Token { value, renew_at, .. } if Instant::now() < *renew_at => return Ok(Some(value.clone())),
            State::Token { challenge, .. } => challenge.clone(),
        };
        *state = self.fetch(client, due).await?;
        Ok(state.header())
    }

    /// Reacts to a 401 for a request that was sent with `used`. True: there is another authorization to try.
    pub async fn answer(
        &self,
        client: &Client,
        challenge: Option<Challenge>,
        used: Option<&HeaderValue>,
    ) -> Result<bool, Failure> {
        let mut state = self.state.lock().await;
        if state.header().as_ref() != used {
            // Another request of this pull was first.
            return Ok(true);
        }
        match challenge {
            Some(Challenge::Basic) if used.is_none() => {
                let Some(Credential::Basic { username, password }) = &self.credential else { return Ok(false) };
                *state = State::Fixed(basic(username, password));
                Ok(true)
            }
            Some(Challenge::Bearer { realm, service, scope }) if !matches!(*state, State::Fixed(_)) => {
                let realm = self.realm(client, &realm)?;
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", client.settings.repository));
                *state = self.fetch(client, TokenChallenge { realm, service, scope }).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The address of the token service, if a registry may send us there.
    fn realm(&self, client: &Client, text: &str) -> Result<Url, Failure> {
        let refused = |why: &str| {
            let host = &client.settings.host;
            Failure::of(ImageErrorKind::Denied, format!("{host} names a token service that is not used: {why}"))
        };
        let realm = Url::parse(text).map_err(|_| refused("its address is invalid"))?;
        let allowed = realm.scheme() == "https" || realm.scheme() == "http" && client.is_plain();
        if !allowed {
            return Err(refused("its address is not encrypted"));
        }
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(refused("its address has a user name"));
        }
        let host = realm.host_str().unwrap_or_default();
        if self.credential.is_some() && !is_trusted(client, &realm) {
            return Err(refused(&format!(
                "the credentials of {own} are not sent to {host}; if it belongs to the registry, set \
                 registries.hosts.{own}.token_host",
                own = client.settings.host
            )));
        }
        Ok(realm)
    }

    async fn fetch(&self, client: &Client, challenge: TokenChallenge) -> Result<State, Failure> {
        let mut url = challenge.realm.clone();
        let service = challenge.service.iter().map(|service| ("service", service.as_str()));
        let pairs: Vec<(&str, &str)> = service.chain([("scope", challenge.scope.as_str())]).collect();
        let (status, body) = match &self.credential {
            Some(Credential::IdentityToken(token)) => {
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(&pairs)
                    .extend_pairs([
                        ("grant_type", "refresh_token"),
                        ("client_id", "microsandbox"),
                        ("refresh_token", token),
                    ])
                    .finish();
                client.token_request(url, Some(form), None).await?
            }
            Some(Credential::Basic { username, password }) => {
                url.query_pairs_mut().extend_pairs(&pairs);
                client.token_request(url, None, Some(&basic(username, password))).await?
            }
            Some(Credential::Bearer(_)) | None => {
                url.query_pairs_mut().extend_pairs(&pairs);
                client.token_request(url, None, None).await?
            }
        };
        let what = format!("a token of {}", challenge.realm.host_str().unwrap_or_default());
        if status != StatusCode::OK {
            return Err(client.unexpected(&what, status, &body));
        }
        let wrong = |why: &str| Failure::of(ImageErrorKind::Transport, format!("{what}: the response {why}"));
        let response: TokenResponse = serde_json::from_slice(&body).map_err(|_| wrong("is not the JSON of a token"))?;
        let token = response.token.or(response.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| wrong("has no token"))?;
        let value = bearer(&token).ok_or_else(|| wrong("has a token with characters that no token has"))?;
        let mut secrets = self.secrets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        secrets.truncate(SECRETS_MAX);
        secrets.push(token);
        drop(secrets);
        let life = response.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(LONGEST_LIFE);
        Ok(State::Token { value, renew_at: Instant::now() + life.mul_f64(0.8), challenge })
    }

    /// A text of the registry without the secrets that it was sent.
    pub fn hide(&self, text: &str) -> String {
        let secrets = self.secrets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let long = secrets.iter().filter(|secret| secret.len() >= ECHO_MIN);
        long.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[secret]"))
    }
}

impl State {
    fn header(&self) -> Option<HeaderValue> {
        match self {
            State::Anonymous => None,
            State::Fixed(value) | State::Token { value, .. } => Some(value.clone()),
        }
    }
}

/// Whether the token service may receive the credentials of the registry: it is the same host, a parent of it (as
/// `example.org` of `registry.example.org`), that of Docker's own registry, or named in the configuration.
fn is_trusted(client: &Client, realm: &Url) -> bool {
    let host = realm.host_str().unwrap_or_default();
    let with_port = realm.port_or_known_default().map(|port| format!("{host}:{port}")).unwrap_or_default();
    let is = |named: &str| named.eq_ignore_ascii_case(host) || named.eq_ignore_ascii_case(&with_port);
    let own = client.host();
    let is_parent = host.contains('.')
        && host.parse::<std::net::IpAddr>().is_err()
        && own.strip_suffix(host).is_some_and(|rest| rest.ends_with('.'));
    own.eq_ignore_ascii_case(host)
        || is_parent
        || (own, host) == ("registry-1.docker.io", "auth.docker.io")
        || client.settings.token_host.as_deref().is_some_and(is)
}

fn basic(username: &str, password: &str) -> HeaderValue {
    // Base64 is made of characters that a header may have.
    let text = format!("Basic {}", STANDARD.encode(format!("{username}:{password}")));
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
