//! Captured output as server-sent events, and pages of it in the dialect `flat`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream;
use microsandbox_wire::flat::LogPage;
use microsandbox_wire::paths;
use microsandbox_wire::sandbox::LogEvent;
use tokio::time::Instant;

use super::CloudBackend;
use super::errors::Route;
use super::events::{Decoder, Malformed};
use super::http::{Call, broken};
use microsandbox_core::collected::LogEntries;
use microsandbox_core::config::Wire;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{LogEntry, LogOptions, LogSource, LogStream, LogStreamOptions};

/// A read without `follow` ends after this idle time when the service sends no event `end`.
const SILENCE: Duration = Duration::from_secs(1);
/// The cursor before the first entry.
const NO_CURSOR: &str = "AA==";

const STREAM: &str = "GET /v1/sandboxes/{id}/logs";
const FLAT: &str = "GET /v1/sandboxes/by-name/{name}/logs";

/// Reads one log stream.
struct Reader {
    response: reqwest::Response,
    decoder: Decoder,
    label: &'static str,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    /// Idle time that ends a stream without `follow`.
    silence: Option<Duration>,
    done: bool,
}

impl CloudBackend {
    pub(super) async fn read_log_stream(&self, name: &str, options: LogStreamOptions) -> MicrosandboxResult<LogStream> {
        let reader = self.log_reader(name, options).await?;
        Ok(Box::pin(stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|entry| (entry, reader)))
        })))
    }

    /// The entries that exist now.
    pub(super) async fn read_logs(&self, name: &str, options: LogOptions) -> MicrosandboxResult<Vec<LogEntry>> {
        let mut entries = match self.wire {
            Wire::Spec => self.collect(name, &options).await?,
            Wire::Flat => self.page(name, &options).await?,
        };
        if let Some(tail) = options.tail {
            entries.drain(..entries.len().saturating_sub(tail));
        }
        Ok(entries)
    }

    /// If the service neither ends the stream nor becomes idle, this is an error: a part of the entries must not be returned as
    /// all of them.
    async fn collect(&self, name: &str, options: &LogOptions) -> MicrosandboxResult<Vec<LogEntry>> {
        let limit = self.http.timeout();
        tokio::time::timeout(limit, self.collect_all(name, options)).await.unwrap_or_else(|_elapsed| {
            Err(MicrosandboxError::Http(format!(
                "{STREAM}: the log of sandbox {name} did not end within {} s: read it as a stream",
                limit.as_secs_f64()
            )))
        })
    }

    async fn collect_all(&self, name: &str, options: &LogOptions) -> MicrosandboxResult<Vec<LogEntry>> {
        let stream = LogStreamOptions {
            sources: options.sources.clone(),
            since: options.since,
            until: options.until,
            from_cursor: None,
            follow: false,
        };
        let mut reader = self.log_reader(name, stream).await?;
        let mut entries = LogEntries::new(options.tail.filter(|tail| *tail > 0));
        while let Some(entry) = reader.next().await? {
            entries.push(entry)?;
        }
        Ok(entries.into_vec())
    }

    async fn page(&self, name: &str, options: &LogOptions) -> MicrosandboxResult<Vec<LogEntry>> {
        let mut call = Call::get(paths::logs_by_name(name), Route::sandbox(FLAT, name))
            .query("sources", sources(&options.sources));
        if let Some(since) = options.since {
            call = call.query("since", since.to_rfc3339());
        }
        if let Some(until) = options.until {
            call = call.query("until", until.to_rfc3339());
        }
        if let Some(tail) = options.tail {
            call = call.query("tail", tail.to_string());
        }
        let page: LogPage = self.http.json(call).await?;
        page.entries.into_iter().map(|event| entry(FLAT, None, event)).collect()
    }

    async fn log_reader(&self, name: &str, options: LogStreamOptions) -> MicrosandboxResult<Reader> {
        let call = match self.wire {
            Wire::Spec => {
                let id = self.find(name).await?.id;
                Call::get(paths::logs(&id), Route::sandbox(STREAM, name))
            }
            Wire::Flat => Call::get(paths::logs_by_name(name), Route::sandbox(FLAT, name)),
        };
        let mut call = call.query("sources", sources(&options.sources)).header("accept", "text/event-stream");
        // A service that supports `follow=false` ends the stream; another one becomes idle.
        call = call.query("follow", if options.follow { "true" } else { "false" });
        if let Some(cursor) = options.from_cursor {
            if reqwest::header::HeaderValue::from_str(&cursor).is_err() {
                return Err(MicrosandboxError::InvalidCursor(super::errors::cut(&cursor)));
            }
            call = call.header(paths::LAST_EVENT_ID, cursor);
        }
        let label = call.route.label;
        let response = self.http.open(&call).await?;
        Ok(Reader {
            response,
            decoder: Decoder::default(),
            label,
            since: options.since,
            until: options.until,
            silence: (!options.follow).then_some(SILENCE),
            done: false,
        })
    }
}

impl Reader {
    async fn next(&mut self) -> MicrosandboxResult<Option<LogEntry>> {
        match self.read().await {
            Ok(Some(entry)) => Ok(Some(entry)),
            end => {
                self.done = true;
                end
            }
        }
    }

    async fn read(&mut self) -> MicrosandboxResult<Option<LogEntry>> {
        let mut quiet = self.quiet();
        while !self.done {
            let Some(event) = self.decoder.next().map_err(|error| self.malformed(&error))? else {
                match self.chunk(quiet).await? {
                    Some(chunk) => self.decoder.feed(&chunk),
                    None => return Ok(None),
                }
                continue;
            };
            match event.event.as_deref() {
                Some("end") => return Ok(None),
                Some("log") => {}
                _ => continue,
            }
            let data: LogEvent = serde_json::from_str(&event.data).map_err(|error| {
                MicrosandboxError::Custom(format!("{}: an event of the log cannot be decoded: {error}", self.label))
            })?;
            let entry = entry(self.label, event.id, data)?;
            if self.until.is_some_and(|until| entry.timestamp >= until) {
                return Ok(None);
            }
            if self.since.is_none_or(|since| entry.timestamp >= since) {
                return Ok(Some(entry));
            }
            quiet = self.quiet();
        }
        Ok(None)
    }

    /// When the service counts as idle. Keep-alive comments do not extend this time.
    fn quiet(&self) -> Option<Instant> {
        self.silence.map(|silence| Instant::now() + silence)
    }

    async fn chunk(&mut self, quiet: Option<Instant>) -> MicrosandboxResult<Option<Bytes>> {
        let label = self.label;
        let lost = |error: reqwest::Error| {
            MicrosandboxError::Http(format!(
                "{label}: the connection closed before the end of the log: {}",
                broken(&error)
            ))
        };
        match quiet {
            None => self.response.chunk().await.map_err(lost),
            Some(quiet) => match tokio::time::timeout_at(quiet, self.response.chunk()).await {
                Ok(chunk) => chunk.map_err(lost),
                Err(_elapsed) => Ok(None),
            },
        }
    }

    fn malformed(&self, error: &Malformed) -> MicrosandboxError {
        let what = match error {
            Malformed::TooLarge => "an event of the log is too large",
            Malformed::NotUtf8 => "the log is not UTF-8",
        };
        MicrosandboxError::Custom(format!("{}: {what}", self.label))
    }
}

fn sources(wanted: &[LogSource]) -> String {
    if wanted.is_empty() {
        return "stdout,stderr,output".into();
    }
    wanted.iter().map(|source| source.as_str()).collect::<Vec<_>>().join(",")
}

fn entry(label: &str, id: Option<String>, event: LogEvent) -> MicrosandboxResult<LogEntry> {
    let unreadable = |what: &str| MicrosandboxError::Custom(format!("{label}: an entry of the log {what}"));
    let source = LogSource::parse(&event.source).ok_or_else(|| unreadable("has an unknown source"))?;
    let data = match event.b64 {
        Some(text) => STANDARD.decode(text).map_err(|_error| unreadable("is not base64"))?.into(),
        None => Bytes::from(event.text),
    };
    let cursor = id.or(event.cursor).filter(|cursor| !cursor.is_empty()).unwrap_or_else(|| NO_CURSOR.into());
    Ok(LogEntry { timestamp: event.ts, source, session_id: event.session_id, data, cursor })
}
