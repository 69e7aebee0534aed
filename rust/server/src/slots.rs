//! The places for sandboxes of a server, and its records read as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use microsandbox_core::MicrosandboxError;
use microsandbox_core::api::SandboxRecord;
use microsandbox_core::backend::{ListQuery, SharedBackend};
use microsandbox_core::model::{Owners, SandboxStatus};

use crate::error::ApiResult;

/// Records read per call.
const PAGE: u32 = 100;

/// Calls `each` with every record of these owners. Each is settled first: ephemeral sandboxes that have ended are removed.
pub async fn each_record(
    backend: &SharedBackend,
    owners: &Owners,
    mut each: impl FnMut(SandboxRecord) + Send,
) -> ApiResult<()> {
    let mut cursor = None;
    loop {
        let query = ListQuery { cursor, limit: Some(PAGE), owners: owners.clone(), ..ListQuery::default() };
        let page = backend.sandboxes().list(query).await?;
        page.records.into_iter().for_each(&mut each);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// How many sandboxes there may be, and how many are being created.
#[derive(Default)]
pub struct Slots {
    creating: AtomicUsize,
    /// When the last complete read of the records began, and how many it found. Held while they are read.
    settled: tokio::sync::Mutex<Option<(Instant, u64)>>,
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
        if at_most > limit && self.settled(backend, Instant::now()).await? + creating > limit {
            return Err(MicrosandboxError::ResourceExhausted {
                resource: "sandboxes".into(),
                message: format!("this server holds at most {limit} sandboxes: remove one first"),
            }
            .into());
        }
        Ok(slot)
    }

    /// The number of sandboxes without creations in flight: of a read that began after `asked`, which requests share that wait for it.
    async fn settled(&self, backend: &SharedBackend, asked: Instant) -> ApiResult<u64> {
        let mut last = self.settled.lock().await;
        if let Some((_, count)) = last.filter(|(begin, _)| *begin >= asked) {
            return Ok(count);
        }
        let (begin, mut count) = (Instant::now(), 0);
        let is_there = |record: SandboxRecord| count += u64::from(record.status != SandboxStatus::Starting);
        each_record(backend, &Owners::All, is_there).await?;
        *last = Some((begin, count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use microsandbox_core::backend::{
        Agent, Backend, BackendKind, Operation, RecordPage, SandboxBackend, VolumeBackend,
    };
    use microsandbox_fake::MemoryBackend;

    use super::*;

    /// Full, without records. Counts its lists.
    #[derive(Default)]
    struct Full {
        memory: MemoryBackend,
        lists: AtomicUsize,
    }

    impl Backend for Full {
        fn kind(&self) -> BackendKind {
            BackendKind::Local
        }
        fn sandboxes(&self) -> &dyn SandboxBackend {
            self
        }
        fn volumes(&self) -> &dyn VolumeBackend {
            self.memory.volumes()
        }
    }

    impl SandboxBackend for Full {
        fn count(&self) -> Operation<'_, u64> {
            Box::pin(async { Ok(1) })
        }
        fn list(&self, _: ListQuery) -> Operation<'_, RecordPage> {
            Box::pin(async {
                self.lists.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Ok(RecordPage { records: Vec::new(), next_cursor: None })
            })
        }
        fn agent<'a>(&'a self, name: &'a str) -> Box<dyn Agent + 'a> {
            self.memory.sandboxes().agent(name)
        }
    }

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
