//! Log events of the core on standard error.

use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::terminal::console::{Console, Sink, lock, printable};

/// Runs `work` and shows events up to `level`. For this thread only: the surrounding Python program may have a
/// subscriber of its own.
pub fn with_level<T>(level: Level, console: &Console, work: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(Lines { level, err: console.err.clone() }, work)
}

/// Writes one line per event.
struct Lines {
    level: Level,
    err: Sink,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.is_event() && metadata.target().starts_with("microsandbox")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn event(&self, event: &Event<'_>) {
        let label = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut text = EventText::default();
        event.record(&mut text);
        let line = format!("{label}: {}\n", printable(&format!("{}{}", text.message, text.fields)));
        // A failure cannot be reported: this stream is the place for reports.
        let _ = lock(&self.err).write_all(line.as_bytes());
    }

    // Spans are never enabled.
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct EventText {
    message: String,
    fields: String,
}

impl Visit for EventText {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
