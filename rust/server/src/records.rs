//! The records of a server, read as a whole.

use std::time::Instant;

use microsandbox_core::api::SandboxRecord;
use microsandbox_core::backend::{ListQuery, SharedBackend};
use microsandbox_core::model::Owners;

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

/// A read of all records that requests share: who waits for one that begins after its question gets the answer too.
#[derive(Default)]
pub struct SharedRead<T>(tokio::sync::Mutex<Option<(Instant, T)>>);

impl<T: Copy> SharedRead<T> {
    /// What a read found that began after `asked`; `read` gets the time of its begin.
    pub async fn since<R>(&self, asked: Instant, read: impl FnOnce(Instant) -> R) -> ApiResult<T>
    where
        R: Future<Output = ApiResult<T>>,
    {
        let mut last = self.0.lock().await;
        if let Some((_, found)) = last.filter(|(begin, _)| *begin >= asked) {
            return Ok(found);
        }
        let begin = Instant::now();
        let found = read(begin).await?;
        *last = Some((begin, found));
        Ok(found)
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use microsandbox_core::backend::{
        Agent, Backend, BackendKind, Operation, RecordPage, SandboxBackend, VolumeBackend,
    };
    use microsandbox_fake::MemoryBackend;

    use super::*;

    /// Full, without records. Counts its lists, and runs `during` in the first.
    #[derive(Default)]
    pub struct Full {
        memory: MemoryBackend,
        pub lists: AtomicUsize,
        pub during: OnceLock<Box<dyn Fn() + Send + Sync>>,
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
                if self.lists.fetch_add(1, Ordering::Relaxed) == 0
                    && let Some(during) = self.during.get()
                {
                    during();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(RecordPage { records: Vec::new(), next_cursor: None })
            })
        }
        fn agent<'a>(&'a self, name: &'a str) -> Box<dyn Agent + 'a> {
            self.memory.sandboxes().agent(name)
        }
    }
}
