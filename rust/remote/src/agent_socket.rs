//! Connecting to the agent of a sandbox: name to id, TCP, TLS, the upgrade, the greeting; all within one deadline.

use std::time::Duration;

use http::header::{AUTHORIZATION, USER_AGENT};
use microsandbox_wire::paths;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use url::Url;

use super::CloudBackend;
use super::errors::{Route, cut};
use super::http::Client;
use super::socket::{Socket, Transport, limits};
use microsandbox_core::agent::AgentClient;
use microsandbox_core::api::DEFAULT_CONNECT_TIMEOUT;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_https::tls;

const LABEL: &str = "GET /v1/sandboxes/{id}/agent";

impl CloudBackend {
    /// A connection for one call: one that a finished call left open, or a new one.
    pub(super) async fn connection(&self, name: &str) -> MicrosandboxResult<AgentClient<Socket>> {
        match self.sockets.take(name, &[]) {
            Some(client) => Ok(client),
            None => self.dial(name, DEFAULT_CONNECT_TIMEOUT).await,
        }
    }

    /// A new connection.
    pub(super) async fn dial(&self, name: &str, budget: Duration) -> MicrosandboxResult<AgentClient<Socket>> {
        let deadline = Instant::now() + budget;
        let work = async {
            let sandbox = self.find(name).await?;
            let socket = self.upgrade(name, &sandbox.id).await?;
            AgentClient::relayed(name, socket, deadline).await
        };
        tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_elapsed| {
            Err(MicrosandboxError::Runtime(format!(
                "sandbox {name}: the connection to its agent through {} was not established within {} s",
                self.url(),
                budget.as_secs_f64()
            )))
        })
    }

    async fn upgrade(&self, name: &str, id: &str) -> MicrosandboxResult<Socket> {
        let failed = |what: &str, why: String| {
            let hint = tls::hint(&why);
            MicrosandboxError::Http(format!("{LABEL}: {what} {}: {}{hint}", self.url(), cut(&why)))
        };
        let malformed =
            || MicrosandboxError::InvalidConfig(format!("the URL {} cannot be used for a WebSocket", self.url()));
        let url = Url::parse(self.url()).map_err(|_error| malformed())?;
        let host = url.host_str().ok_or_else(malformed)?;
        let port = url.port_or_known_default().ok_or_else(malformed)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await.map_err(|source| MicrosandboxError::Unreachable {
            message: failed("cannot connect to", source.to_string()).to_string(),
            source,
        })?;
        let _ = stream.set_nodelay(true);
        let (scheme, transport) = match self.http.tls() {
            None => ("ws", Transport::Plain(stream)),
            Some(config) => {
                let server = ServerName::try_from(bare.to_owned()).map_err(|_error| malformed())?;
                let secured = TlsConnector::from(config.clone()).connect(server, stream).await;
                let secured = secured.map_err(|error| match tls::failure(&error) {
                    Some(failure) => MicrosandboxError::Tls {
                        message: failed("TLS handshake failed with", failure.to_string()).to_string(),
                        source: Box::new(failure),
                    },
                    None => failed("TLS handshake failed with", error.to_string()),
                });
                ("wss", Transport::Tls(Box::new(secured?)))
            }
        };
        let (_, rest) = self.url().split_once("://").ok_or_else(malformed)?;
        let target = format!("{scheme}://{rest}{}", paths::agent(id));
        let mut request = target.into_client_request().map_err(|_error| malformed())?;
        let agent = http::HeaderValue::from_static(Client::user_agent());
        request.headers_mut().insert(AUTHORIZATION, self.http.key().clone());
        request.headers_mut().insert(USER_AGENT, agent);
        match client_async_with_config(request, transport, Some(limits())).await {
            Ok((socket, _response)) => Ok(Socket::new(socket)),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err(self.http.refusal(&Route::sandbox(LABEL, name), response.status().as_u16(), body))
            }
            Err(error) => Err(failed("WebSocket handshake failed with", error.to_string())),
        }
    }
}
