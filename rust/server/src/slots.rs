//! The places for sandboxes of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use microsandbox_core::MicrosandboxError;
use microsandbox_core::api::SandboxRecord;
use microsandbox_core::backend::SharedBackend;
use microsandbox_core::model::{Owners, SandboxStatus};

use crate::error::ApiResult;
use crate::records::{SharedRead, each_record};

/// How many sandboxes there may be, and how many are being created.
#[derive(Default)]
pub struct Slots {
    creating: AtomicUsize,
    /// How many sandboxes there are, creations in flight not counted.
    settled: SharedRead<u64>,
}

/// Counts a creation in flight.
pub struct SandboxSlot(Arc<Slots>);

impl Drop for SandboxSlot {
    fn drop(&mut self) {
        self.0.creating.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Slots {
    /// Reserves one of `limit` places while a sandbox is created.
    pub async fn reserve(self: &Arc<Slots>, backend: &SharedBackend, limit: u64) -> ApiResult<SandboxSlot> {
        let slot = SandboxSlot(self.clone());
        let creating = self.creating.fetch_add(1, Ordering::AcqRel) as u64 + 1;
        // An upper bound: a creation in flight counts twice once its record is stored, and an ephemeral sandbox that has
        // ended counts until it is removed. Only when the bound exceeds the limit are the records read.
        let at_most = backend.sandboxes().count().await? + creating;
        if at_most > limit && self.settled.since(Instant::now(), |_| settled(backend)).await? + creating > limit {
            return Err(MicrosandboxError::ResourceExhausted {
                resource: "sandboxes".into(),
                message: format!("this server holds at most {limit} sandboxes: remove one first"),
            }
            .into());
        }
        Ok(slot)
    }
}

/// The number of sandboxes without creations in flight.
async fn settled(backend: &SharedBackend) -> ApiResult<u64> {
    let mut count = 0;
    let is_there = |record: SandboxRecord| count += u64::from(record.status != SandboxStatus::Starting);
    each_record(backend, &Owners::All, is_there).await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::records::tests::Full;

    #[tokio::test]
    async fn requests_that_are_refused_together_share_a_read() {
        let full = Arc::new(Full::default());
        let (slots, backend): (_, SharedBackend) = (Arc::new(Slots::default()), full.clone());
        let all = join_all((0..20).map(|_| slots.reserve(&backend, 0))).await;
        assert!(all.iter().all(Result::is_err));
        let lists = full.lists.load(Ordering::Relaxed);
        assert!(lists <= 2, "{lists} reads for 20 requests");
        assert!(slots.reserve(&backend, 0).await.is_err());
        assert_eq!(full.lists.load(Ordering::Relaxed), lists + 1, "a later request needs a read that began later");
    }
}
