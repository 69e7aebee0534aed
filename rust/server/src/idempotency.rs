//! Idempotent creations: a repeated request with the same key and the same body gets the result of the first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use microsandbox_wire::error::code;
use microsandbox_wire::sandbox::CloudSandbox;

use crate::error::{ApiError, ApiResult};

/// A creation, in flight or finished.
pub type Creation = Shared<BoxFuture<'static, Result<CloudSandbox, ApiError>>>;

struct Entry {
    body: [u8; 32],
    at: Instant,
    creation: Creation,
}

/// Recent creations, by key id and idempotency key.
pub struct Idempotency {
    keep: Duration,
    max: usize,
    entries: Mutex<HashMap<(String, String), Entry>>,
}

impl Idempotency {
    pub fn new(keep: Duration, max: usize) -> Self {
        Idempotency { keep, max, entries: Mutex::default() }
    }

    /// The creation under this key; `begin` starts it if there is none. A failed creation is not kept, so the caller may
    /// retry. At most `max` creations are kept.
    pub fn creation(
        &self,
        key: (String, String),
        body: [u8; 32],
        begin: impl FnOnce() -> Creation,
    ) -> ApiResult<Creation> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.at.elapsed() < self.keep && !matches!(entry.creation.peek(), Some(Err(_))));
        if let Some(entry) = entries.get(&key) {
            if entry.body == body {
                return Ok(entry.creation.clone());
            }
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                code::INVALID_REQUEST,
                "this idempotency key was used for a different request: use a new key",
            ));
        }
        if entries.len() >= self.max {
            // The oldest finished one is dropped. Its repetition fails because the name is taken, and creates no second sandbox.
            let done = entries.iter().filter(|(_, entry)| entry.creation.peek().is_some());
            let Some(oldest) = done.min_by_key(|(_, entry)| entry.at).map(|(key, _)| key.clone()) else {
                return Err(ApiError::too_many("too many creations are in flight: retry later"));
            };
            entries.remove(&oldest);
        }
        let creation = begin();
        entries.insert(key, Entry { body, at: Instant::now(), creation: creation.clone() });
        Ok(creation)
    }
}

/// Runs `work` to completion even when no request waits for it any more.
pub fn detached(work: impl Future<Output = ApiResult<CloudSandbox>> + Send + 'static) -> Creation {
    let task = tokio::spawn(work);
    async move {
        task.await.unwrap_or_else(|_panic| {
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, "the creation panicked"))
        })
    }
    .boxed()
    .shared()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(id: &str) -> Creation {
        let made = serde_json::json!({
            "id": id, "org_id": "", "name": id, "status": "running", "ephemeral": false, "created_at": "2026-01-01T00:00:00Z"
        });
        let made: CloudSandbox = serde_json::from_value(made).unwrap();
        async { Ok(made) }.boxed().shared()
    }

    fn in_flight() -> Creation {
        std::future::pending().boxed().shared()
    }

    fn key(text: &str) -> (String, String) {
        ("caller".into(), text.into())
    }

    async fn id(creation: ApiResult<Creation>) -> String {
        creation.unwrap().await.unwrap().id
    }

    #[tokio::test]
    async fn a_retry_gets_the_first_result_a_different_body_an_error() {
        let known = Idempotency::new(Duration::from_secs(60), 2);
        assert_eq!(id(known.creation(key("a"), [0; 32], || ready("first"))).await, "first");
        assert_eq!(id(known.creation(key("a"), [0; 32], || ready("second"))).await, "first");
        assert!(known.creation(key("a"), [1; 32], || ready("third")).is_err());
    }

    #[tokio::test]
    async fn only_finished_creations_are_dropped_oldest_first() {
        let known = Idempotency::new(Duration::from_secs(60), 2);
        let _first = known.creation(key("waits"), [0; 32], in_flight).unwrap();
        for number in 0..10 {
            let name = format!("n{number}");
            assert_eq!(id(known.creation(key(&name), [0; 32], || ready(&name))).await, name);
        }
        assert_eq!(known.entries.lock().unwrap().len(), 2);
        assert_eq!(id(known.creation(key("n9"), [0; 32], || ready("again"))).await, "n9");
        let _second = known.creation(key("waits too"), [0; 32], in_flight).unwrap();
        assert!(known.creation(key("no room"), [0; 32], || ready("x")).is_err());
    }
}
