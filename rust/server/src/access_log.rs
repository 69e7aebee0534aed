//! Around every request: a limit, a request id, and a line in the access log when the response has ended.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::authorize::RequestInfo;
use crate::error::ApiError;

const REQUEST_ID: &str = "x-request-id";
/// Longest request id that is adopted from the caller.
const REQUEST_ID_MAX: usize = 64;
/// Lines that are queued for a slow disk; more are dropped.
const QUEUE: usize = 4096;

/// JSON lines, written by a dedicated thread.
#[derive(Clone, Default)]
pub struct AccessLog {
    lines: Option<SyncSender<String>>,
}

impl AccessLog {
    pub fn to(mut sink: Box<dyn Write + Send>) -> std::io::Result<AccessLog> {
        let (lines, queue) = sync_channel::<String>(QUEUE);
        std::thread::Builder::new().name("msb-access-log".into()).spawn(move || {
            while let Ok(line) = queue.recv() {
                // A full disk must not stop the server.
                let _ = sink.write_all(line.as_bytes());
                let _ = sink.flush();
            }
        })?;
        Ok(AccessLog { lines: Some(lines) })
    }

    fn write(&self, line: String) {
        if let Some(lines) = &self.lines {
            // Full: the request matters more than its line.
            let _ = lines.try_send(line);
        }
    }
}

/// The outermost layer.
pub async fn access(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().to_string();
    let id = request_id(request.headers());
    let permit = app.requests.clone().try_acquire_owned();
    let (mut response, permit) = match permit {
        Ok(permit) => (next.run(request).await, Some(permit)),
        Err(_) => (ApiError::unavailable("too many concurrent requests: retry in a moment").into_response(), None),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let seen = response.extensions_mut().remove::<RequestInfo>().unwrap_or_default();
    let record = Record { app, begun, method, status: response.status().as_u16(), id, seen, bytes: 0, _permit: permit };
    response.map(|body| Body::new(Tracked { body, record }))
}

/// The id that the caller sent, when it is a plain word; otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let legal = |text: &&str| {
        (1..=REQUEST_ID_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(legal);
    given.map_or_else(|| microsandbox_core::random::hex::<8>().unwrap_or_default(), str::to_owned)
}

/// Written to the log and the metrics when the response ends.
struct Record {
    app: Arc<App>,
    begun: Instant,
    method: String,
    status: u16,
    id: String,
    seen: RequestInfo,
    bytes: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let taken = self.begun.elapsed();
        let route = self.seen.route.unwrap_or("-");
        self.app.metrics.responded(&self.method, route, self.status, taken);
        let line = json!({
            "time": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            "method": self.method.chars().take(16).collect::<String>(),
            "route": route,
            "status": self.status,
            "duration_ms": (taken.as_secs_f64() * 1e6).round() / 1e3,
            "key": self.seen.key,
            "bytes": self.bytes,
            "request_id": self.id,
        });
        self.app.access.write(format!("{line}\n"));
    }
}

/// Counts the bytes of a body; the line is written when it is dropped.
struct Tracked {
    body: Body,
    record: Record,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let next = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &next {
            self.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        next
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The whole of a small body.
pub async fn collect(app: &App, body: Body) -> Result<Bytes, ApiError> {
    let limited = http_body_util::Limited::new(body, app.limits.json_body);
    match tokio::time::timeout(app.limits.body_timeout, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(format!(
            "the body is longer than {} bytes, the limit of this server",
            app.limits.json_body
        ))),
        Ok(Err(_)) => Err(ApiError::invalid("the connection closed before the end of the body")),
        Err(_elapsed) => Err(ApiError::new(
            axum::http::StatusCode::REQUEST_TIMEOUT,
            microsandbox_wire::error::code::INVALID_REQUEST,
            "the body did not arrive in time",
        )),
    }
}
