//! Connections: the machine's proxies, the certificates to trust, and to which addresses a request may go.
//!
//! A name is resolved once for a pull and its addresses are kept, so that a name which changes its address between the check
//! and the connection gains nothing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use url::{Host, Url};

use super::reach::Reach;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_https::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("microsandbox/", env!("CARGO_PKG_VERSION"));
/// Connections that are kept for the next request.
const IDLE_CONNECTIONS: usize = 4;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// The connections of one registry and of what the registry leads to.
pub struct Transport {
    direct: reqwest::Client,
    proxied: reqwest::Client,
    proxies: Matcher,
    guard: Arc<Guard>,
}

impl Transport {
    /// For the registry `host`, whose own address may be as internal as `most_internal`.
    pub fn new(host: &str, ca_certs: &[Vec<u8>], most_internal: Reach) -> MicrosandboxResult<Transport> {
        let tls = tls::client_config(ca_certs)?;
        let guard = Arc::new(Guard::new(host, most_internal));
        let builder = || {
            reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .tcp_nodelay(true)
                // Followed by hand: credentials belong to one host, and some targets are refused.
                .redirect(redirect::Policy::none())
                .referer(false)
                .tls_backend_preconfigured(rustls::ClientConfig::clone(&tls))
        };
        let failed = |error: reqwest::Error| MicrosandboxError::InvalidConfig(format!("the HTTP client: {error}"));
        Ok(Transport {
            direct: builder().no_proxy().dns_resolver(Arc::new(GuardedNames(guard.clone()))).build().map_err(failed)?,
            proxied: builder().build().map_err(failed)?,
            proxies: Matcher::from_env(),
            guard,
        })
    }

    /// The client for this address, or why no request may go there.
    pub fn client(&self, url: &Url) -> Result<&reqwest::Client, String> {
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err("it names no host".into()),
        };
        if let Some(address) = literal {
            self.guard.check(url.host_str().unwrap_or_default(), Reach::of(address))?;
        }
        let on_this_machine = literal.is_some_and(|address| Reach::of(address) == Reach::Loopback)
            || url.host_str().is_some_and(|host| host == "localhost");
        // A proxy is another machine: what is meant by loopback is not its loopback.
        let intercepted =
            !on_this_machine && url.as_str().parse().is_ok_and(|uri| self.proxies.intercept(&uri).is_some());
        Ok(if intercepted { &self.proxied } else { &self.direct })
    }
}

/// Which addresses may be connected to.
struct Guard {
    /// Of the registry: its addresses decide what the others' may be.
    own: String,
    most_internal: Reach,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Of the registry; unknown behind a proxy, which counts as public.
    reach: Option<Reach>,
    addresses: HashMap<String, Vec<SocketAddr>>,
}

impl Guard {
    fn new(host: &str, most_internal: Reach) -> Guard {
        let own = host.to_ascii_lowercase();
        let literal = own.trim_start_matches('[').trim_end_matches(']').parse().ok().map(Reach::of);
        let known = Known { reach: literal, ..Known::default() };
        Guard { own, most_internal, known: Mutex::new(known) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most internal reach that `host` may have.
    fn limit(&self, host: &str) -> Reach {
        if host == self.own {
            return self.most_internal;
        }
        self.known().reach.unwrap_or(Reach::Public).min(self.most_internal)
    }

    fn check(&self, host: &str, reach: Reach) -> Result<(), String> {
        if reach != Reach::Never && reach <= self.limit(host) {
            return Ok(());
        }
        Err(match host == self.own {
            true => format!(
                "{host} has no public address, and this request may use no other; the operator of the server can allow it with \
                 registries.hosts.REGISTRY.for_clients"
            ),
            false => format!("{host} is a more internal address than that of the registry {}", self.own),
        })
    }

    /// The addresses of `host` that may be connected to.
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<SocketAddr>> {
        if let Some(known) = self.known().addresses.get(host) {
            return Ok(known.clone());
        }
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.take(MAX_ADDRESSES).collect();
        if host == self.own {
            // The most public one: a name that is public and internal at once must not open the internal ones.
            let reach = found.iter().map(|address| Reach::of(address.ip())).min();
            self.known().reach = reach;
        }
        let may = |address: &SocketAddr| self.check(host, Reach::of(address.ip()));
        let refused = found.iter().find_map(|address| may(address).err());
        let allowed: Vec<SocketAddr> = found.into_iter().filter(|address| may(address).is_ok()).collect();
        if allowed.is_empty() {
            let why = refused.unwrap_or_else(|| format!("{host} has no address"));
            return Err(std::io::Error::other(why));
        }
        Ok(self.known().addresses.entry(host.to_owned()).or_insert(allowed).clone())
    }
}

struct GuardedNames(Arc<Guard>);

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let addresses = guard.addresses(&name.as_str().to_ascii_lowercase()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
