//! Repeated creations: the same key with the same body gets the first one's result.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use microsandbox_wire::error::code;
use microsandbox_wire::sandbox::CloudSandbox;

use crate::error::{Answer, ApiError};

/// A creation under way or done.
pub type Creation = Shared<BoxFuture<'static, Result<CloudSandbox, ApiError>>>;

struct Entry {
    body: [u8; 32],
    at: Instant,
    creation: Creation,
}

/// What was created lately, by key id and idempotency key.
pub struct Idempotency {
    keep: Duration,
    max: usize,
    entries: Mutex<HashMap<(String, String), Entry>>,
}

impl Idempotency {
    pub fn new(keep: Duration, max: usize) -> Self {
        Idempotency { keep, max, entries: Mutex::default() }
    }

    /// The creation under this key, begun by `begin` if there is none. A failed one is not kept: the caller may repeat.
    pub fn creation(
        &self,
        key: (String, String),
        body: [u8; 32],
        begin: impl FnOnce() -> Creation,
    ) -> Answer<Creation> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.at.elapsed() < self.keep && !matches!(entry.creation.peek(), Some(Err(_))));
        if let Some(entry) = entries.get(&key) {
            if entry.body == body {
                return Ok(entry.creation.clone());
            }
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                code::INVALID_REQUEST,
                "this idempotency key was used for another request: use a fresh one",
            ));
        }
        if entries.len() >= self.max {
            return Err(ApiError::too_many("too many idempotency keys are remembered; repeat later, or without one"));
        }
        let creation = begin();
        entries.insert(key, Entry { body, at: Instant::now(), creation: creation.clone() });
        Ok(creation)
    }
}

/// Runs `work` to its end, whoever still waits for it.
pub fn detached(work: impl Future<Output = Answer<CloudSandbox>> + Send + 'static) -> Creation {
    let task = tokio::spawn(work);
    async move {
        task.await.unwrap_or_else(|_panic| {
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, "the creation broke off"))
        })
    }
    .boxed()
    .shared()
}
