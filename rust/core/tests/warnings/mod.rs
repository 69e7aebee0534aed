//! How many warnings the core gives.

use std::sync::{Arc, Mutex, OnceLock};

use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

/// A second subscriber that stays. While a process has only one, tracing decides whether an event is wanted at all by the
/// thread that meets it first: a test on another thread, without a subscriber, would switch the warning off for this one.
static SECOND: OnceLock<Dispatch> = OnceLock::new();

/// A subscriber for one thread that counts the warnings of targets that begin with a text.
#[derive(Clone)]
pub struct Warnings {
    of: &'static str,
    count: Arc<Mutex<u32>>,
}

impl Warnings {
    pub fn of(target: &'static str) -> Warnings {
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::default()));
        Warnings { of: target, count: Arc::default() }
    }

    pub fn count(&self) -> u32 {
        *self.count.lock().unwrap()
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().starts_with(self.of)
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        *self.count.lock().unwrap() += 1;
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
