//! Counters, in the text form of OpenMetrics, which Prometheus reads.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the histogram, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "HEAD"];

/// Both labels have values from fixed sets, so the number of series is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    method: &'static str,
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    method: &'static str,
    route: &'static str,
    status: u16,
}

/// What the server counts.
pub struct Metrics {
    registry: Registry,
    pub connections: Gauge,
    pub refused_connections: Counter,
    pub refused_keys: Counter,
    relays: Gauge,
    pub relayed_down: Counter<u64, AtomicU64>,
    pub relayed_up: Counter<u64, AtomicU64>,
    requests: Family<Outcome, Counter>,
    durations: Family<Operation, Histogram, fn() -> Histogram>,
}

/// One relay, from its admission to its end.
pub struct Relay(Gauge);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        // The encoder ends each help text with a full stop, and adds `_total` to the names of counters.
        let mut registry = Registry::default();
        let durations: fn() -> Histogram = || Histogram::new(BUCKETS);
        Metrics {
            connections: registered(&mut registry, "msb_connections", "Open connections"),
            refused_connections: registered(&mut registry, "msb_connections_refused", "Connections over the limit"),
            refused_keys: registered(&mut registry, "msb_keys_refused", "Requests without a valid key"),
            relays: registered(&mut registry, "msb_relays", "Open connections to agents"),
            relayed_down: registered(&mut registry, "msb_relayed_down_bytes", "Bytes from agents to clients"),
            relayed_up: registered(&mut registry, "msb_relayed_up_bytes", "Bytes from clients to agents"),
            requests: registered(&mut registry, "msb_requests", "Responses, by status"),
            durations: {
                let family = Family::new_with_constructor(durations);
                let help = "Time from the head of a request to the end of its response";
                registry.register("msb_request_duration_seconds", help, family.clone());
                family
            },
            registry,
        }
    }
}

fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Metrics {
    pub fn relay(&self) -> Relay {
        self.relays.inc();
        Relay(self.relays.clone())
    }
    pub fn relays_now(&self) -> i64 {
        self.relays.get()
    }

    /// Counts a response that has ended.
    pub fn responded(&self, method: &str, route: &'static str, status: u16, taken: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        self.requests.get_or_create(&Outcome { method, route, status }).inc();
        self.durations.get_or_create(&Operation { method, route }).observe(taken.as_secs_f64());
    }

    /// The exposition.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_agreed_name_and_labels() {
        let metrics = Metrics::default();
        metrics.connections.inc();
        metrics.refused_connections.inc();
        metrics.refused_keys.inc_by(2);
        metrics.relayed_down.inc_by(3);
        metrics.relayed_up.inc_by(4);
        let relay = metrics.relay();
        metrics.responded("GET", "/v1/sandboxes", 200, Duration::from_millis(5));
        metrics.responded("BREW", "-", 405, Duration::from_secs(100));
        let text = metrics.render().unwrap();
        for line in [
            "# TYPE msb_connections gauge",
            "msb_connections 1",
            "# TYPE msb_connections_refused counter",
            "msb_connections_refused_total 1",
            "msb_keys_refused_total 2",
            "msb_relays 1",
            "msb_relayed_down_bytes_total 3",
            "msb_relayed_up_bytes_total 4",
            r#"msb_requests_total{method="GET",route="/v1/sandboxes",status="200"} 1"#,
            r#"msb_requests_total{method="other",route="-",status="405"} 1"#,
            "# TYPE msb_request_duration_seconds histogram",
            r#"msb_request_duration_seconds_sum{method="GET",route="/v1/sandboxes"} 0.005"#,
            r#"msb_request_duration_seconds_count{method="GET",route="/v1/sandboxes"} 1"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let bucket = |method: &str, bound: &str| {
            let found = text.lines().find(|line| {
                line.starts_with("msb_request_duration_seconds_bucket{")
                    && line.contains(&format!("method=\"{method}\""))
                    && line.contains(&format!("le=\"{bound}\""))
            });
            found.and_then(|line| line.rsplit(' ').next()).unwrap_or("absent").to_owned()
        };
        assert_eq!((bucket("GET", "0.0025"), bucket("GET", "0.01")), ("0".into(), "1".into()));
        assert_eq!((bucket("other", "60.0"), bucket("other", "+Inf")), ("0".into(), "1".into()));
        drop(relay);
        assert_eq!(metrics.relays_now(), 0);
    }
}
