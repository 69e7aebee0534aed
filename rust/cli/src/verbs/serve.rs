//! `msb serve`: this machine's sandboxes for remote clients, over the protocol of the cloud backend.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::config::{Budget, BudgetName, LocalConfig};
use microsandbox_core::model::Isolation;
use microsandbox_local::{LocalBackend, isolation};
use microsandbox_server::{AccessLog, Keys, Limits, Policy, Server, ServerConfig, Tls, bind, tls};

use crate::flags::budget::parse_budget;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::terminal::console::{Sink, lock};

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ServeArgs {
    #[command(subcommand)]
    verb: Option<ServeVerb>,
    /// Address and port to listen on; port 0 selects a free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    listen: String,
    /// TLS certificate chain in PEM format; needs --tls-key.
    #[arg(long, value_name = "FILE", requires = "tls_key", group = "transport")]
    tls_cert: Option<PathBuf>,
    /// TLS private key in PEM format; needs --tls-cert.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Use a self-signed certificate, created once and stored in <home>/serve.
    #[arg(long, group = "transport")]
    tls_self_signed: bool,
    /// Serve without TLS; on loopback addresses only.
    #[arg(long, group = "transport")]
    insecure_http: bool,
    /// Append the access log to this file instead of standard error.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Maximum number of sandboxes; more creations are refused.
    #[arg(long, value_name = "N", default_value_t = Limits::default().sandboxes)]
    max_sandboxes: usize,
    /// Limit what the sandboxes and volumes of all keys together may use; NAME is sandboxes, volumes, memory, cpus, disk or inodes.
    /// Memory is limited to that of this machine, and volumes to 1000, unless stated. Repeatable.
    #[arg(long, value_name = "NAME=LIMIT", value_parser = parse_budget)]
    budget: Vec<(BudgetName, u64)>,
    /// Limit what those of each key may use, as --budget. Repeatable.
    #[arg(long, value_name = "NAME=LIMIT", value_parser = parse_budget)]
    key_budget: Vec<(BudgetName, u64)>,
    /// Isolation of the sandboxes of clients, without a fallback; microvm needs /dev/kvm.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = ServedIsolation::Microvm)]
    isolation: ServedIsolation,
    /// Let clients use the image `host`, which shows them the system of this machine.
    #[arg(long)]
    allow_host_image: bool,
    /// Show every key what was made on this machine without a server, within the scopes of the key.
    #[arg(long)]
    share_local: bool,
}

/// The drivers that a server can be started with: the choice is not left to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ServedIsolation {
    Microvm,
    Container,
}

impl From<ServedIsolation> for Isolation {
    fn from(served: ServedIsolation) -> Isolation {
        match served {
            ServedIsolation::Microvm => Isolation::Microvm,
            ServedIsolation::Container => Isolation::Container,
        }
    }
}

#[derive(Debug, Subcommand)]
enum ServeVerb {
    /// Manage the API keys of clients.
    Key(crate::verbs::serve_key::KeyArgs),
}

/// `<home>/serve` of the local backend.
pub fn directory() -> Outcome<PathBuf> {
    Ok(LocalConfig::load()?.home.join("serve"))
}

impl ServeArgs {
    /// Whether this invocation runs a server, which needs a runtime with several threads.
    pub fn serves(&self) -> bool {
        self.verb.is_none()
    }

    fn address(&self) -> Outcome<SocketAddr> {
        self.listen.parse().map_err(|_error| {
            Failure::Usage(format!(
                "--listen: {:?} is not an address with a port; examples: 127.0.0.1:8443, [::1]:0",
                self.listen
            ))
        })
    }

    fn tls(&self, directory: &std::path::Path, address: SocketAddr) -> Outcome<Option<Tls>> {
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return Ok(Some(tls::load(certificate, key)?));
        }
        if self.tls_self_signed {
            return Ok(Some(tls::self_signed(directory, address.ip())?));
        }
        if self.insecure_http {
            if !address.ip().is_loopback() {
                return Err(Failure::Usage(format!(
                    "--insecure-http sends API keys unencrypted and is refused, because {} is not a loopback address: \
                     use --tls-self-signed, or --tls-cert with --tls-key",
                    address.ip()
                )));
            }
            return Ok(None);
        }
        Err(Failure::Usage(
            "choose the protection of connections: --tls-cert FILE --tls-key FILE, or --tls-self-signed, or \
             --insecure-http on a loopback address"
                .into(),
        ))
    }

    fn access_log(&self, call: &Invocation) -> Outcome<AccessLog> {
        let sink: Box<dyn Write + Send> = match &self.access_log {
            None => Box::new(Shared(call.console.err.clone())),
            Some(path) => {
                let file = std::fs::File::options().create(true).append(true).open(path);
                Box::new(file.map_err(|error| Failure::message(format!("cannot open {}: {error}", path.display())))?)
            }
        };
        AccessLog::to(sink)
            .map_err(|error| Failure::message(format!("cannot start the thread of the access log: {error}")))
    }
}

pub async fn run(args: ServeArgs, call: &Invocation) -> Outcome<i32> {
    if let Some(ServeVerb::Key(key)) = args.verb {
        return crate::verbs::serve_key::run(key, call).map(|()| 0);
    }
    raise_open_files();
    let address = args.address()?;
    let Some(local) = LocalBackend::of(&call.backend) else {
        return Err(Failure::hinted(
            "msb serve serves the sandboxes of this machine, but the selected backend is not this machine",
            "MSB_BACKEND=local selects this machine",
        ));
    };
    local.home().store().await?;
    let directory = local.config().home.join("serve");
    let tls = args.tls(&directory, address)?;
    if args.isolation == ServedIsolation::Microvm {
        isolation::require(local.home()).await.map_err(no_microvm)?;
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    if let Some(tls) = &tls {
        let certificate = tls.certificate.display();
        call.console.note(&format!("certificate: {certificate}\nsha256 fingerprint: {}", tls.fingerprint));
    }
    if Keys::new(&directory).list()?.is_empty() {
        call.console.note(
            "there is no API key yet; create one with `msb serve key create NAME`, without a restart of the server",
        );
    }
    let config = ServerConfig {
        directory,
        limits: Limits {
            sandboxes: args.max_sandboxes,
            budget: budget(local.config().serve.budget, &args.budget, true),
            key_budget: budget(local.config().serve.key_budget, &args.key_budget, false),
            ..Limits::default()
        },
        policy: Policy {
            isolation: args.isolation.into(),
            host_image: args.allow_host_image,
            share_local: args.share_local,
        },
        private: local.config().state_dirs().collect(),
        access_log: args.access_log(call)?,
        tls,
    };
    let server = Server::new(call.backend.clone(), config)?;
    let refuse = |error: std::io::Error| Failure::message(format!("cannot listen on {address}: {error}"));
    let listener = bind(address).await.map_err(refuse)?;
    let real = listener.local_addr().map_err(refuse)?;
    call.console.line(&format!("listening on {scheme}://{real}"))?;
    server
        .run(listener, async {
            call.signals.ending().await;
        })
        .await;
    Ok(0)
}

/// Volumes of all keys, unless stated.
const VOLUMES: u64 = 1000;

/// What the options say over what the configuration says.
fn budget(mut stored: Budget, stated: &[(BudgetName, u64)], of_all: bool) -> Budget {
    for (name, limit) in stated {
        stored.set(*name, *limit);
    }
    if of_all {
        let memory = rustix::system::sysinfo();
        let bytes = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
        stored.memory_mib.get_or_insert(bytes >> 20);
        stored.volumes.get_or_insert(VOLUMES);
    }
    stored
}

/// Open files that the server may have, where the machine lets it: connections are as many as these allow.
const MOST_FILES: u64 = 16_384;

/// Raises the soft limit on open files; one that cannot be raised allows fewer connections.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(MOST_FILES, |hard| hard.min(MOST_FILES));
    if now.current.is_some_and(|soft| soft < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum });
    }
}

/// Nothing weaker is served in place of a microVM.
fn no_microvm(error: MicrosandboxError) -> Failure {
    match error {
        MicrosandboxError::IsolationUnavailable { reason, hint, .. } => Failure::hinted(
            format!("this machine cannot run microVMs, the default isolation of msb serve: {reason}"),
            format!("{hint}; or start the server with --isolation container, which shares the kernel of this machine"),
        ),
        error => error.into(),
    }
}

/// The console's standard error as a writer.
struct Shared(Sink);

impl Write for Shared {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).write(data)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        lock(&self.0).flush()
    }
}
