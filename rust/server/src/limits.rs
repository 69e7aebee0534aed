//! Every limit of the server in one place.

use std::time::Duration;

use microsandbox_core::config::Budget;

/// Limits; the defaults suit one machine that several programs use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Concurrent connections, relays to agents included; one more gets 503 (plain HTTP) or is closed (TLS). 4096, or as many as
    /// the open files of this process allow.
    pub connections: usize,
    /// Concurrent connections of one address (of one /64 network) that have shown no valid key; one more is refused in the same
    /// way. All such connections have half of the places, and the oldest of them makes room for a new one. 256.
    pub strangers_per_address: usize,
    /// Concurrent requests, streams included; one more gets 503. 1024.
    pub requests: usize,
    /// Concurrent requests of one key; one more gets 429. 512.
    pub requests_per_key: usize,
    /// Concurrent creations and starts; one more gets 429. 64.
    pub readiness_waits: usize,
    /// Concurrent creations of one owner from images that may have to be pulled; one more gets 429. 16.
    pub pulls_per_owner: usize,
    /// Longest creation, the pull of its image included; then it is undone. 30 min.
    pub creation: Duration,
    /// Concurrent connections to agents of one key; one more gets 429. 1024.
    pub relays_per_key: usize,
    /// Concurrent connections to the agent of one sandbox; one more gets 429. An agent accepts 128. 120.
    pub relays_per_sandbox: usize,
    /// What the objects of all keys together may use; more gets 429 `resource_exhausted`, which names the budget. Unlimited.
    pub budget: Budget,
    /// What the objects of each key may use. Unlimited.
    pub key_budget: Budget,
    /// Sandboxes that may exist; the creation of one more gets 429 `resource_exhausted`. 1000.
    pub sandboxes: usize,
    /// Bytes of a JSON body; more gets 413. 1 MiB.
    pub json_body: usize,
    /// Bytes of one file in a volume; more gets 413. 4 GiB.
    pub file_body: u64,
    /// Bytes of the head of a request, line ends included; more gets 431. 32 KiB.
    pub head: usize,
    /// Header lines of a request; more gets 431. 64.
    pub headers: usize,
    /// From the accept of a connection, or the end of the previous response, to the end of the next head: limits slow
    /// senders and idle connections alike. 30 s.
    pub head_timeout: Duration,
    /// From the accept of a connection to its first byte. 5 s.
    pub first_byte_timeout: Duration,
    /// For a TLS handshake. 10 s.
    pub tls_timeout: Duration,
    /// For a JSON body, and for each piece of a streamed one. 30 s.
    pub body_timeout: Duration,
    /// How long a write may make no progress because the client does not read. 60 s.
    pub write_timeout: Duration,
    /// Bytes of each stream that one `exec` may return, and the default. 8 MiB.
    pub exec_output: u64,
    /// Longest duration of one `exec`. 1 h.
    pub exec_timeout: Duration,
    /// Entries in one page of logs. 10,000.
    pub log_entries: usize,
    /// Longest `wait_timeout`. 90 s.
    pub wait: Duration,
    /// How long requests in flight may continue after the shutdown begins. 10 s.
    pub grace: Duration,
    /// How long an idempotency key is kept. 10 min.
    pub idempotency: Duration,
    /// Idempotency keys kept; a new one replaces the oldest whose creation has finished. 512.
    pub idempotency_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: places(),
            strangers_per_address: 256,
            requests: 1024,
            requests_per_key: 512,
            readiness_waits: 64,
            pulls_per_owner: 16,
            creation: Duration::from_secs(1800),
            relays_per_key: 1024,
            relays_per_sandbox: 120,
            budget: Budget::default(),
            key_budget: Budget::default(),
            sandboxes: 1000,
            json_body: 1 << 20,
            file_body: 4 << 30,
            head: 32 << 10,
            headers: 64,
            head_timeout: Duration::from_secs(30),
            first_byte_timeout: Duration::from_secs(5),
            tls_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            exec_output: 8 << 20,
            exec_timeout: Duration::from_secs(3600),
            log_entries: 10_000,
            wait: Duration::from_secs(90),
            grace: Duration::from_secs(10),
            idempotency: Duration::from_secs(600),
            idempotency_entries: 512,
        }
    }
}

/// Connections where the limit on open files allows that many.
const MOST_CONNECTIONS: u64 = 4096;
/// Open files of a connection: itself, and the agent that it is relayed to.
const FILES_PER_CONNECTION: u64 = 2;
/// Open files besides: the database, boots, files of volumes.
const OTHER_FILES: u64 = 512;

/// Connections that the limit on open files has room for.
fn places() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    places_of(files.unwrap_or(u64::MAX))
}

fn places_of(files: u64) -> usize {
    let places = files.saturating_sub(OTHER_FILES.min(files / 2)) / FILES_PER_CONNECTION;
    usize::try_from(places.clamp(1, MOST_CONNECTIONS)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_limit_on_open_files() {
        assert_eq!([64, 1024, 4096, 1 << 20].map(places_of), [16, 256, 1792, 4096]);
    }
}
