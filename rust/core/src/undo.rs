//! Work that leaves nothing behind when its caller stops waiting for it.
//!
//! A future can be dropped at every await, and then nothing of it runs any more: a statement or a directory that was under
//! way at that moment is finished by another thread, without an owner. So work that makes something runs in a task of its
//! own ([`whole`]), which is never dropped in its middle: it asks at chosen places whether its caller is gone ([`Cut`]), and
//! undoes what it made. Waits that may take long are given up at once ([`Cut::or`]).
//!
//! A caller that can wait, even when it is cancelled, learns when all of that is done: it runs the work in a [`scope`] and
//! waits for its [`Remains`]. Whatever is still to be undone holds a [`Keep`] of that scope.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{MicrosandboxError, MicrosandboxResult};

tokio::task_local! {
    static SCOPE: Keep;
}

/// Held by work that a scope waits for.
#[derive(Debug, Clone)]
pub struct Keep(#[allow(dead_code, reason = "dropping it is the message")] mpsc::Sender<Infallible>);

impl Keep {
    /// Of the scope in which this runs, if any.
    pub fn current() -> Option<Keep> {
        SCOPE.try_with(Keep::clone).ok()
    }

    /// `work` in this scope.
    pub fn around<T>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        SCOPE.scope(self, work)
    }
}

/// What a scope has not finished yet.
#[derive(Debug)]
pub struct Remains(mpsc::Receiver<Infallible>);

impl Remains {
    /// Returns when the work of the scope is done or dropped, and everything is undone.
    pub async fn gone(&mut self) {
        while self.0.recv().await.is_some() {}
    }
}

/// A new scope, for work to be put into it.
pub fn scope() -> (Keep, Remains) {
    let (sender, receiver) = mpsc::channel(1);
    (Keep(sender), Remains(receiver))
}

/// Whether the caller is gone.
#[derive(Debug, Clone)]
pub struct Cut(watch::Receiver<()>);

impl Cut {
    /// The error of work that was cut off. No caller sees it: there is none.
    pub fn error() -> MicrosandboxError {
        MicrosandboxError::InvalidState("the caller stopped waiting for this call".into())
    }

    /// An error if it happened.
    pub fn check(&self) -> MicrosandboxResult<()> {
        if self.0.has_changed().is_err() { Err(Cut::error()) } else { Ok(()) }
    }

    /// Returns when it happens.
    pub async fn happens(&self) {
        let mut receiver = self.0.clone();
        while receiver.changed().await.is_ok() {}
    }

    /// `wait`, dropped in its middle if the caller goes: only for what may be dropped anywhere.
    pub async fn or<T>(&self, wait: impl Future<Output = MicrosandboxResult<T>>) -> MicrosandboxResult<T> {
        tokio::select! {
            biased;
            () = self.happens() => Err(Cut::error()),
            done = wait => done,
        }
    }
}

/// Runs `undo` in a task of its own, in the scope of the caller: who drops the wait does not end it in its middle.
pub async fn to_its_end(undo: impl Future<Output = ()> + Send + 'static) {
    let keep = Keep::current();
    let task = tokio::spawn(async move {
        let _held = keep;
        undo.await;
    });
    // It fails where the undoing panicked, which the panic has reported, or where the runtime ends.
    let _ = task.await;
}

/// How a result is undone that no caller took.
type Undo<T> = Arc<dyn Fn(T) -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs `work` in a task of its own, to its end. Dropping the future that this returns cuts the work off; if it has
/// finished already, `undo` gets the result.
pub async fn whole<T, W>(
    work: impl FnOnce(Cut) -> W,
    undo: impl Fn(T) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> MicrosandboxResult<T>
where
    T: Send + 'static,
    W: Future<Output = MicrosandboxResult<T>> + Send + 'static,
{
    let (alive, cut) = watch::channel(());
    let (sender, receiver) = oneshot::channel();
    let (undo, keep): (Undo<T>, _) = (Arc::new(undo), Keep::current());
    let running = work(Cut(cut));
    let (undoing, held) = (undo.clone(), keep.clone());
    tokio::spawn(async move {
        let _held = held;
        if let Err(Ok(made)) = sender.send(running.await) {
            undoing(made).await;
        }
    });
    Waiting { receiver, undo, keep, _alive: alive }.await
}

/// The caller's end.
struct Waiting<T: Send + 'static> {
    receiver: oneshot::Receiver<MicrosandboxResult<T>>,
    undo: Undo<T>,
    keep: Option<Keep>,
    _alive: watch::Sender<()>,
}

impl<T: Send + 'static> Future for Waiting<T> {
    type Output = MicrosandboxResult<T>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|received| {
            received.unwrap_or_else(|_gone| Err(MicrosandboxError::Runtime("the call did not finish".into())))
        })
    }
}

impl<T: Send + 'static> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.receiver.close();
        // Sent, and never received.
        if let Ok(Ok(made)) = self.receiver.try_recv()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (undo, keep) = (self.undo.clone(), self.keep.take());
            runtime.spawn(async move {
                let _held = keep;
                undo(made).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    /// Makes something in several steps; counts what is there.
    async fn make(there: Arc<AtomicUsize>, cut: Cut) -> MicrosandboxResult<u32> {
        tokio::task::yield_now().await;
        there.fetch_add(1, Ordering::SeqCst);
        for _ in 0..4 {
            tokio::task::yield_now().await;
            if let Err(error) = cut.check() {
                tokio::time::sleep(Duration::from_millis(2)).await;
                there.fetch_sub(1, Ordering::SeqCst);
                return Err(error);
            }
        }
        Ok(7)
    }

    fn attempt(there: &Arc<AtomicUsize>) -> impl Future<Output = MicrosandboxResult<u32>> + use<> {
        let (for_work, for_undo) = (there.clone(), there.clone());
        whole(
            move |cut| make(for_work, cut),
            move |_seven| {
                let there = for_undo.clone();
                async move {
                    there.fetch_sub(1, Ordering::SeqCst);
                }
                .boxed()
            },
        )
    }

    #[tokio::test]
    async fn what_is_cut_off_after_any_number_of_polls_leaves_nothing() {
        for turns in 0..30 {
            let there = Arc::new(AtomicUsize::new(0));
            let (keep, mut remains) = scope();
            let mut work = Box::pin(keep.around(attempt(&there)));
            let mut was_received = false;
            for _ in 0..turns / 3 {
                if !was_received {
                    was_received = work.as_mut().now_or_never().is_some();
                }
                tokio::task::yield_now().await;
            }
            // Sent, but not received: some turns more for the task alone.
            for _ in 0..turns % 3 * 4 {
                tokio::task::yield_now().await;
            }
            drop(work);
            tokio::time::timeout(Duration::from_secs(10), remains.gone()).await.unwrap();
            assert_eq!(there.load(Ordering::SeqCst), usize::from(was_received), "after {turns} turns");
        }
    }

    #[tokio::test]
    async fn what_is_received_is_kept() {
        let there = Arc::new(AtomicUsize::new(0));
        assert_eq!(attempt(&there).await.unwrap(), 7);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(there.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_long_wait_is_given_up_when_the_caller_goes() {
        let (said, dropped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(()));
        let (log, held) = (said.clone(), dropped.clone());
        let work = whole(
            |cut| async move {
                let wait = async move {
                    let _held = held;
                    std::future::pending::<MicrosandboxResult<()>>().await
                };
                let done = cut.or(wait).await;
                log.lock().unwrap().push(done.is_err());
                done
            },
            |()| async {}.boxed(),
        );
        let (keep, mut remains) = scope();
        assert!(tokio::time::timeout(Duration::from_millis(20), keep.around(work)).await.is_err());
        tokio::time::timeout(Duration::from_secs(10), remains.gone()).await.unwrap();
        assert_eq!((*said.lock().unwrap()).as_slice(), [true]);
        assert_eq!(Arc::strong_count(&dropped), 1, "the wait was dropped");
    }

    #[tokio::test]
    async fn an_undoing_whose_waiter_is_dropped_ends() {
        let there = Arc::new(AtomicUsize::new(1));
        let (keep, mut remains) = scope();
        let undone = there.clone();
        let undo = async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            undone.fetch_sub(1, Ordering::SeqCst);
        };
        let mut wait = Box::pin(keep.around(to_its_end(undo)));
        assert!(wait.as_mut().now_or_never().is_none());
        drop(wait);
        tokio::time::timeout(Duration::from_secs(10), remains.gone()).await.unwrap();
        assert_eq!(there.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error() {
        let work = whole(|_cut| std::future::poll_fn(|_| panic!("no")), |()| async {}.boxed());
        assert!(matches!(work.await, Err(MicrosandboxError::Runtime(_))));
    }
}
