//! Counters, in the text form of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "HEAD"];

#[derive(Default)]
struct Route {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

/// What the server counts.
#[derive(Default)]
pub struct Metrics {
    /// By method and route; both from fixed sets, so this is bounded.
    routes: Mutex<BTreeMap<(&'static str, &'static str), Route>>,
    statuses: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    refused_keys: AtomicU64,
    pub connections: AtomicI64,
    pub refused_connections: AtomicU64,
    relays: Arc<AtomicI64>,
    pub relayed_down: AtomicU64,
    pub relayed_up: AtomicU64,
}

/// One relay, from its admission to its end.
pub struct Relay(Arc<AtomicI64>);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Metrics {
    pub fn relay(&self) -> Relay {
        self.relays.fetch_add(1, Ordering::AcqRel);
        Relay(self.relays.clone())
    }
    pub fn relays_now(&self) -> i64 {
        self.relays.load(Ordering::Acquire)
    }

    pub fn refused_key(&self) {
        self.refused_keys.fetch_add(1, Ordering::Relaxed);
    }

    pub fn answered(&self, method: &str, route: &'static str, status: u16, taken: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let seconds = taken.as_secs_f64();
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = routes.entry((method, route)).or_default();
        entry.count += 1;
        entry.seconds += seconds;
        for (bucket, _) in entry.buckets.iter_mut().zip(BUCKETS).filter(|(_, bound)| seconds <= *bound) {
            *bucket += 1;
        }
        drop(routes);
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        *statuses.entry((method, route, status)).or_default() += 1;
    }

    /// The exposition. Writing to a string cannot fail.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut plain = |name: &str, kind: &str, help: &str, value: String| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        let gauge = |gauge: &AtomicI64| gauge.load(Ordering::Relaxed).to_string();
        plain("msb_connections", "gauge", "Connections now.", gauge(&self.connections));
        let refused = load(&self.refused_connections);
        plain("msb_connections_refused_total", "counter", "Connections over the limit.", refused);
        plain("msb_keys_refused_total", "counter", "Requests without a valid key.", load(&self.refused_keys));
        plain("msb_relays", "gauge", "Connections to agents now.", gauge(&self.relays));
        plain("msb_relayed_down_bytes_total", "counter", "Bytes from agents to clients.", load(&self.relayed_down));
        plain("msb_relayed_up_bytes_total", "counter", "Bytes from clients to agents.", load(&self.relayed_up));
        let _ = writeln!(out, "# HELP msb_requests_total Answers, by status.\n# TYPE msb_requests_total counter");
        for ((method, route, status), count) in &*self.statuses.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            let _ = writeln!(out, "msb_requests_total{{{labels}}} {count}");
        }
        let name = "msb_request_duration_seconds";
        let _ = writeln!(out, "# HELP {name} From head to the end of the answer.\n# TYPE {name} histogram");
        for ((method, route), entry) in &*self.routes.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            for (bucket, bound) in entry.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {bucket}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", entry.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", entry.seconds);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", entry.count);
        }
        out
    }
}
