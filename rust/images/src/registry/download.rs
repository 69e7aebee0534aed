//! A layer into the blob store: continued where it was cut, in this process and in the next.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE};
use http::{Method, StatusCode};
use reqwest::Response;
use tokio::sync::mpsc;

use super::client::{Client, Request};
use super::pace::{Broken, Pace};
use super::patience::Patience;
use crate::blobs::{Begun, Blob, Blobs, Part};
use crate::document::Sha256Digest;
use crate::failure::{Failure, blocking, mismatch};
use microsandbox_core::error::MicrosandboxError;

/// Pieces on their way from the network to the disk.
const IN_FLIGHT: usize = 8;
/// What an attempt must bring for the next ones to count anew.
const PROGRESS: u64 = 256 << 10;

/// Why an attempt ended before the blob did.
enum Cut {
    /// To be continued.
    Stalled,
    Transport(reqwest::Error),
    Short,
    /// Not to be.
    Failed(Failure),
}

impl Client {
    /// The blob of a layer: stored already, or downloaded by this process or another.
    pub async fn layer(
        &self,
        blobs: &Blobs,
        digest: &Sha256Digest,
        size: u64,
        grown: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Blob, Failure> {
        match blobs.begin(digest, size, grown).await? {
            Begun::AlreadyThere(blob) => Ok(blob),
            Begun::Part(part) => self.download(part, grown).await,
        }
    }

    /// Downloads what `part` lacks; `progress` gets the bytes that are there.
    async fn download(&self, mut part: Box<Part>, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<Blob, Failure> {
        let digest = part.digest().as_str().to_owned();
        let what = format!("layer {digest}");
        let mut patience = Patience::default();
        let mut etag: Option<HeaderValue> = None;
        let mut whole = false;
        while part.offset() < part.size() {
            let begin = part.offset();
            // The first request has no Range: some registries cannot answer one.
            let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
            if begin > 0 && !whole {
                headers.extend(HeaderValue::from_str(&format!("bytes={begin}-")).ok().map(|range| (RANGE, range)));
                headers.extend(etag.clone().map(|etag| (IF_RANGE, etag)));
            }
            let ranged = !headers.is_empty();
            let path = format!("blobs/{digest}");
            let request = Request { method: Method::GET, path, accept: "*/*", headers, what: &what };
            let response = self.send(&request, &mut patience).await?;
            self.refuse_encoding(response.headers(), &what)?;
            match response.status() {
                StatusCode::OK => part = restarted(part).await?,
                StatusCode::PARTIAL_CONTENT if ranged && fits(response.headers(), begin, part.size()) => {}
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST if ranged => {
                    // It cannot continue: once more from the beginning.
                    whole = true;
                    continue;
                }
                _ => return Err(self.refused(&request, response).await),
            }
            etag = strong_etag(response.headers());
            let from = part.offset();
            let (back, cut) = self.receive(response, part, progress).await?;
            part = back;
            let failure = match cut {
                None => break,
                Some(Cut::Failed(failure)) => return Err(failure),
                Some(Cut::Stalled) => self.stalled(&what),
                Some(Cut::Transport(error)) => self.no_response_to(&what, &error),
                Some(Cut::Short) => self.no_response(&what, "the response ended before the layer did"),
            };
            if part.offset() - from >= PROGRESS {
                patience.progressed();
            }
            if !patience.wait(None).await {
                return Err(failure);
            }
            tracing::debug!(digest, offset = part.offset(), "continuing a layer");
        }
        blocking(move || part.finish()).await
    }

    /// Writes a body to the end of `part`; the part again, and why the body ended early.
    async fn receive(
        &self,
        mut response: Response,
        part: Box<Part>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(Box<Part>, Option<Cut>), Failure> {
        let (begin, missing) = (part.offset(), part.size() - part.offset());
        if let Some(length) = response.content_length().filter(|length| *length != missing) {
            let digest = part.digest().as_str();
            let text = format!("the registry announces {length} bytes of {digest} where {missing} are missing");
            return Ok((part, Some(Cut::Failed(mismatch(text)))));
        }
        let (send, mut pieces) = mpsc::channel::<Bytes>(IN_FLIGHT);
        let writer = tokio::task::spawn_blocking(move || {
            let mut part = part;
            while let Some(piece) = pieces.blocking_recv() {
                if let Err(failure) = part.append(&piece) {
                    return (part, Some(failure));
                }
            }
            (part, None)
        });
        let mut pace = Pace::new(self.settings.stall);
        let mut received = 0;
        let cut = loop {
            match pace.next(&mut response).await {
                Ok(Some(piece)) => {
                    received += piece.len() as u64;
                    let waited = tokio::time::Instant::now();
                    if send.send(piece).await.is_err() {
                        // The writer has failed, and says why.
                        break None;
                    }
                    if waited.elapsed() > Duration::from_millis(10) {
                        pace.excuse();
                    }
                    progress(begin + received);
                }
                Ok(None) if received < missing => break Some(Cut::Short),
                Ok(None) => break None,
                Err(Broken::Stalled) => break Some(Cut::Stalled),
                Err(Broken::Transport(error)) => break Some(Cut::Transport(error)),
            }
        };
        drop(send);
        let (part, failed) = writer.await.map_err(|e| MicrosandboxError::Runtime(format!("writing a layer: {e}")))?;
        Ok((part, failed.map(Cut::Failed).or(cut)))
    }
}

async fn restarted(mut part: Box<Part>) -> Result<Box<Part>, Failure> {
    if part.offset() == 0 {
        return Ok(part);
    }
    blocking(move || part.restart().map(|()| part)).await
}

/// Whether a partial response is exactly what is missing (RFC 9110 section 14.4).
fn fits(headers: &HeaderMap, begin: u64, size: u64) -> bool {
    let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text == format!("bytes {begin}-{}/{size}", size - 1) || text == format!("bytes {begin}-{}/*", size - 1)
}

/// Only a strong validator may stand in If-Range (RFC 9110 section 13.1.5).
fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ETAG).filter(|value| value.as_bytes().starts_with(b"\"")).cloned()
}
