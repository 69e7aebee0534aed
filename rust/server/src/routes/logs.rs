//! Captured output: a page, or a stream of events.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream;
use microsandbox_core::SandboxHandle;
use microsandbox_core::model::{LogEntry, LogOptions, LogSource, LogStream, LogStreamOptions};
use microsandbox_wire::flat::LogPage;
use microsandbox_wire::paths::LAST_EVENT_ID;
use microsandbox_wire::sandbox::LogEvent;
use serde::Deserialize;

use super::{Segment, json, query};
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::tenancy::Caller;

/// Idle time after which a comment is sent, so that no proxy closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A longer text is not a cursor.
const CURSOR_MAX: usize = 256;
const EVENTS: &str = "text/event-stream";

#[derive(Deserialize)]
struct LogParameters {
    sources: Option<String>,
    tail: Option<String>,
    since: Option<String>,
    until: Option<String>,
    follow: Option<String>,
}

impl LogParameters {
    fn sources(&self) -> ApiResult<Vec<LogSource>> {
        let words = self.sources.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|w| !w.is_empty());
        words
            .map(|word| {
                LogSource::parse(word).ok_or_else(|| {
                    ApiError::invalid(format!("each source must be stdout, stderr, output or system: got {word:?}"))
                })
            })
            .collect()
    }
    fn time(name: &str, text: Option<&str>) -> ApiResult<Option<DateTime<Utc>>> {
        text.map(|text| {
            DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).map_err(|_error| {
                ApiError::invalid(format!("{name} must be a time in the form of RFC 3339: got {text:?}"))
            })
        })
        .transpose()
    }
    fn since(&self) -> ApiResult<Option<DateTime<Utc>>> {
        LogParameters::time("since", self.since.as_deref())
    }
    fn until(&self) -> ApiResult<Option<DateTime<Utc>>> {
        LogParameters::time("until", self.until.as_deref())
    }
    fn follow(&self) -> ApiResult<bool> {
        match self.follow.as_deref() {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(ApiError::invalid(format!("follow must be true or false: got {other:?}"))),
        }
    }
    fn tail(&self, most: usize) -> ApiResult<usize> {
        match self.tail.as_deref().map(str::parse::<usize>) {
            None => Ok(most),
            Some(Ok(tail)) => Ok(tail.min(most)),
            Some(Err(_)) => Err(ApiError::invalid("tail must be a number of entries")),
        }
    }
}

/// Dialect `spec`: always a stream.
pub async fn by_id(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(id): Segment,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult {
    let handle = app.by_id(&caller, &id).await?;
    stream_of(app, &handle, &query(&uri)?, &headers).await
}

/// Dialect `flat`: a page of the newest entries, or a stream when the request accepts one.
pub async fn by_name(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult {
    let given: LogParameters = query(&uri)?;
    let handle = app.get(&caller, &name).await?;
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepts.into_iter().any(|value| value.contains(EVENTS)) {
        return stream_of(app, &handle, &given, &headers).await;
    }
    let options = LogOptions {
        tail: Some(given.tail(app.limits.log_entries)?),
        since: given.since()?,
        until: given.until()?,
        sources: given.sources()?,
    };
    let entries = handle.logs(options).await?;
    let event = |entry: LogEntry| LogEvent { cursor: Some(entry.cursor.clone()), ..event(entry) };
    json(&LogPage { entries: entries.into_iter().map(event).collect() })
}

async fn stream_of(app: Arc<App>, handle: &SandboxHandle, given: &LogParameters, headers: &HeaderMap) -> ApiResult {
    let from_cursor = match headers.get(LAST_EVENT_ID) {
        None => None,
        Some(value) => match value.to_str() {
            Ok(text) if text.len() <= CURSOR_MAX => Some(text.to_owned()).filter(|text| !text.is_empty()),
            _ => return Err(ApiError::invalid("last-event-id is not a cursor of this server")),
        },
    };
    let options = LogStreamOptions {
        sources: given.sources()?,
        since: given.since()?,
        until: given.until()?,
        from_cursor,
        follow: given.follow()?,
    };
    let entries = handle.log_stream(options).await?;
    Ok(events(app, entries))
}

/// Entries are read when the client takes them: nothing is queued for a slow client.
fn events(app: Arc<App>, entries: LogStream) -> Response {
    let ending = {
        let app = app.clone();
        Box::pin(async move { app.shutting_down().await })
    };
    let body = stream::unfold(Some((entries, ending)), |state| async move {
        let (mut entries, mut ending) = state?;
        let next = tokio::select! {
            next = tokio::time::timeout(KEEP_ALIVE, entries.next()) => next,
            // Shutdown: no `end` event, because more entries may follow; the client resumes at its cursor.
            () = &mut ending => return None,
        };
        match next {
            Err(_silence) => Some((Bytes::from_static(b": keep-alive\n\n"), Some((entries, ending)))),
            Ok(Some(Ok(entry))) => Some((record(entry), Some((entries, ending)))),
            Ok(None) => Some((Bytes::from_static(b"event: end\ndata: {}\n\n"), None)),
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "a log stream failed");
                None
            }
        }
    })
    .map(Ok::<_, std::convert::Infallible>);
    ([(header::CONTENT_TYPE, HeaderValue::from_static(EVENTS))], Body::from_stream(body)).into_response()
}

fn record(entry: LogEntry) -> Bytes {
    let cursor = entry.cursor.clone();
    // JSON text contains no line break.
    let data = serde_json::to_string(&event(entry)).unwrap_or_default();
    Bytes::from(format!("id: {cursor}\nevent: log\ndata: {data}\n\n"))
}

fn event(entry: LogEntry) -> LogEvent {
    let (text, b64) = match std::str::from_utf8(&entry.data) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(&entry.data).into_owned(), Some(STANDARD.encode(&entry.data))),
    };
    LogEvent {
        source: entry.source.as_str().into(),
        ts: entry.timestamp,
        text,
        session_id: entry.session_id,
        b64,
        cursor: None,
    }
}
