//! Connections: accepted, limited in number, closed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use microsandbox_core::MicrosandboxResult;
use microsandbox_core::backend::SharedBackend;
use microsandbox_core::model::Isolation;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutWriter;
use tokio_rustls::TlsAcceptor;

use crate::access_log::AccessLog;
use crate::app::{App, Parts};
use crate::connections::{Connections, Place};
use crate::keys::Keys;
use crate::limits::Limits;
use crate::tls::Tls;

/// Pause after a failed accept (no descriptors left): open connections may close in this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Interval of the checks whether all relays have closed.
const RELAYS_PAUSE: Duration = Duration::from_millis(10);
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The arguments of [`Server::new`].
pub struct ServerConfig {
    /// `<home>/serve`: keys and certificates.
    pub directory: PathBuf,
    pub limits: Limits,
    pub policy: Policy,
    /// Directories of this machine whose paths no response shows.
    pub private: Vec<PathBuf>,
    /// Absent: plain HTTP.
    pub tls: Option<Tls>,
    pub access_log: AccessLog,
}

/// What remote clients may have of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// How each sandbox is isolated; a client cannot choose.
    pub isolation: Isolation,
    /// Allow the image `host`, which consists of the system of this machine.
    pub host_image: bool,
    /// Show every key what was made on this machine without a server.
    pub share_local: bool,
}

/// A server over one backend.
pub struct Server {
    app: Arc<App>,
    router: Router,
    tls: Option<TlsAcceptor>,
    ending: watch::Sender<bool>,
}

impl Server {
    pub fn new(backend: SharedBackend, config: ServerConfig) -> MicrosandboxResult<Server> {
        let keys = Keys::new(&config.directory);
        let org_id = keys.organisation()?;
        let (ending, watched) = watch::channel(false);
        let app = Arc::new(App::new(Parts {
            backend,
            keys,
            org_id,
            limits: config.limits,
            policy: config.policy,
            private: private_texts(config.private),
            access: config.access_log,
            ending: watched,
        }));
        let tls = config.tls.map(|tls| TlsAcceptor::from(tls.config));
        Ok(Server { router: crate::routes::router(app.clone()), app, tls, ending })
    }

    /// Serves until `shutdown` resolves; then accepts no more connections, ends streams, and gives other requests the grace
    /// period to finish. Sandboxes are not touched.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let places = Connections::new(&self.app.limits);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut shutdown => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match places.enter(peer.ip()) {
                Some(place) => {
                    let place = Arc::new(place);
                    let connection = Connection { app: self.app.clone(), router: self.router.clone(), place };
                    connections.spawn(connection.serve(stream, self.tls.clone()));
                }
                None => self.refuse_connection(stream),
            }
        }
        drop(listener);
        let _ = self.ending.send(true);
        let all = async {
            while connections.join_next().await.is_some() {}
            while self.app.metrics.relays_now() > 0 {
                tokio::time::sleep(RELAYS_PAUSE).await;
            }
        };
        if tokio::time::timeout(self.app.limits.grace, all).await.is_err() {
            tracing::warn!("requests were aborted: they took longer than the grace period");
        }
    }

    fn refuse_connection(&self, mut stream: TcpStream) {
        self.app.metrics.refused_connections.inc();
        if self.tls.is_none() {
            // Only what fits into the buffer of the socket: the server never waits for such a client.
            let _ = stream.try_write(TOO_MANY_CONNECTIONS);
            tokio::spawn(async move { stream.shutdown().await });
        }
    }
}

struct Connection {
    app: Arc<App>,
    router: Router,
    place: Arc<Place>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        self.app.metrics.connections.inc();
        // Small responses are sent without delay.
        let _ = stream.set_nodelay(true);
        tokio::select! {
            () = self.bytes(stream, tls) => {}
            // A connection that is just showing its key is closed with the others: its client connects again.
            () = self.place.evicted() => tracing::debug!("a connection without a key made room for another"),
        }
        self.app.metrics.connections.dec();
    }

    async fn bytes(&self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let limits = &self.app.limits;
        // A look at the byte itself: the readiness of a fresh socket says nothing.
        let mut first = [0; 1];
        if !matches!(tokio::time::timeout(limits.first_byte_timeout, stream.peek(&mut first)).await, Ok(Ok(1))) {
            return tracing::debug!("a connection sent nothing");
        }
        match tls {
            None => self.http(stream).await,
            Some(tls) => match tokio::time::timeout(limits.tls_timeout, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.http(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_elapsed) => tracing::debug!("a TLS handshake took too long"),
            },
        }
    }

    async fn http<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Fails a write, a flush or a shutdown of which the client has taken nothing for that long.
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(self.app.limits.write_timeout));
        let (routes, place) = (TowerToHyperService::new(self.router.clone()), self.place.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(place.clone());
            routes.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.app.limits.head_timeout)
            .max_buf_size(self.app.limits.head)
            .max_headers(self.app.limits.headers)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let done: Result<(), hyper::Error> = tokio::select! {
            done = connection.as_mut() => done,
            () = self.app.shutting_down() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a connection closed early");
        }
    }
}

/// The paths as texts, also as the kernel resolves them; longest first, so that none leaves a rest of another.
fn private_texts(paths: Vec<PathBuf>) -> Vec<String> {
    let resolved: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let all = paths.into_iter().chain(resolved).map(|path| path.to_string_lossy().into_owned());
    let mut texts: Vec<String> = all.filter(|text| text.len() > 1).collect();
    // Equal ones are neighbours only in an order that is also that of the texts.
    texts.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    texts.dedup();
    texts
}

/// Binds; the error names the address.
pub async fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_paths_are_sorted_by_length_and_each_is_there_once() {
        let given = ["/zz/a", "/zz/b", "/zz/a", "/zz/abc", "/zz/b", "/"].map(PathBuf::from);
        assert_eq!(private_texts(given.to_vec()), ["/zz/abc", "/zz/a", "/zz/b"]);
    }
}
