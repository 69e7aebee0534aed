//! What a call makes, until its caller has it.
//!
//! Between the moment at which a sandbox or a volume exists and the one at which Python code holds it, the caller may go: the
//! task is cancelled while the result is in flight to the loop, or the loop is closed. The Python layer takes the result and
//! acknowledges it with [`Pending::keep`], or waits for [`Pending::undone`]; where it does neither, the drop of the [`Pending`]
//! ends what was made.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use microsandbox_core::undo::{self, Cut, Remains};
use microsandbox_core::{MicrosandboxResult, Sandbox};
use pyo3::prelude::*;

use crate::runtime::{Pending, spawn_unattended};
use crate::sandbox::NativeSandbox;

/// How long a cancelled caller waits for the undoing; what takes longer continues in the background.
const UNDOING: Duration = Duration::from_secs(20);

/// Takes back what was made, when it is run.
pub type Undo = BoxFuture<'static, ()>;

enum State {
    /// Being made.
    Open,
    Made(Undo),
    /// The caller has it, or it could not be made.
    Settled,
    /// There is no caller any more.
    Abandoned,
}

pub struct Made {
    pid: u32,
    state: Mutex<State>,
    abandoned: tokio::sync::Notify,
    remains: tokio::sync::Mutex<Remains>,
}

impl Made {
    fn swap(&self, next: impl FnOnce(State) -> (State, Option<Undo>)) -> Option<Undo> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (after, out) = next(std::mem::replace(&mut *state, State::Settled));
        *state = after;
        out
    }

    /// Stores how the result is undone; returns it where there is no caller any more.
    fn put(&self, undo: Undo) -> Option<Undo> {
        self.swap(|state| match state {
            State::Abandoned => (State::Abandoned, Some(undo)),
            State::Open | State::Made(_) | State::Settled => (State::Made(undo), None),
        })
    }

    pub fn keep(&self) {
        self.swap(|state| match state {
            State::Abandoned => (State::Abandoned, None),
            State::Open | State::Made(_) | State::Settled => (State::Settled, None),
        });
    }

    /// There is no caller any more: the work is dropped, and who calls this is to undo what exists already.
    #[must_use]
    pub fn abandon(&self) -> Option<Undo> {
        let made = self.swap(|state| match state {
            State::Made(undo) => (State::Abandoned, Some(undo)),
            State::Settled => (State::Settled, None),
            State::Open | State::Abandoned => (State::Abandoned, None),
        });
        self.abandoned.notify_one();
        made
    }

    /// Returns when nothing is left of it.
    pub async fn undone(self: Arc<Self>) {
        let undone = async {
            if let Some(undo) = self.abandon() {
                undo::to_its_end(undo).await;
            }
            self.remains.lock().await.gone().await;
        };
        let _ = tokio::time::timeout(UNDOING, undone).await;
    }

    /// For a caller that cannot wait. A forked child has no part in it.
    pub fn abandon_in_background(self: &Arc<Self>) {
        if self.pid != std::process::id() {
            return;
        }
        if !matches!(*self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Settled) {
            spawn_unattended(self.clone().undone());
        }
    }
}

/// A call that brings up a sandbox: its caller gets it, or nothing is left of it.
pub fn sandbox(work: impl Future<Output = MicrosandboxResult<Sandbox>> + Send + 'static) -> Pending {
    call(async move {
        let sandbox = Arc::new(work.await?);
        let taken = sandbox.clone();
        Ok((NativeSandbox::new(sandbox), async move { taken.take_back().await }.boxed()))
    })
}

/// The same for anything that can be undone: `work` gives the result and its undoing.
pub fn call<T>(work: impl Future<Output = MicrosandboxResult<(T, Undo)>> + Send + 'static) -> Pending
where
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    let (keep, remains) = undo::scope();
    let made = Arc::new(Made {
        pid: std::process::id(),
        state: Mutex::new(State::Open),
        abandoned: tokio::sync::Notify::new(),
        remains: tokio::sync::Mutex::new(remains),
    });
    let slot = made.clone();
    let work = keep.around(async move {
        let done = tokio::select! {
            biased;
            () = slot.abandoned.notified() => Err(Cut::error()),
            done = work => done,
        };
        let (result, undo) = match done {
            Ok(done) => done,
            Err(error) => {
                slot.keep();
                return Err(error);
            }
        };
        // No await from here to the thread of the caller.
        match slot.put(undo) {
            None => Ok(result),
            Some(undo) => {
                // The loop drops this work at its next await: the task was cancelled.
                undo::to_its_end(undo).await;
                Err(Cut::error())
            }
        }
    });
    Pending::making(work, made)
}
