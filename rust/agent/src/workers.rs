//! The threads that do blocking file work, so that the loop never waits for a disk. They start when there is work and
//! end when there has been none for a while.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::files::task::{Done, Job};

/// Threads that run concurrently.
const MAX_THREADS: usize = 4;
/// An idle thread ends after this time.
const IDLE: Duration = Duration::from_millis(300);
/// The work is iterative: no deep stacks.
const STACK: usize = 256 << 10;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    done: Vec<Done>,
    threads: usize,
    idle: usize,
    running: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    wake: Option<OwnedFd>,
}

pub struct Workers {
    shared: Arc<Shared>,
    signals: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic aborts the embedded agent; elsewhere the state is consistent between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(fd) = &self.wake {
            // Only a counter at its maximum refuses, and then the loop has been woken already.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }
}

impl Workers {
    pub fn new() -> std::io::Result<Workers> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let signals = wake.try_clone()?;
        let shared = Shared { state: Mutex::default(), work: Condvar::new(), wake: Some(wake) };
        Ok(Workers { shared: Arc::new(shared), signals })
    }

    /// Readable when something is done.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Something is queued or under way.
    pub fn is_busy(&self) -> bool {
        let state = self.shared.lock();
        state.running > 0 || !state.jobs.is_empty()
    }

    pub fn submit(&self, job: Job) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads >= MAX_THREADS {
            self.shared.work.notify_one();
            return;
        }
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().stack_size(STACK).spawn(move || work(&shared));
        match spawned {
            Ok(_) => state.threads += 1,
            // At the process limit the work is done late rather than never: by a thread that exists, or here.
            Err(_) if state.threads > 0 => self.shared.work.notify_one(),
            Err(_) => {
                if let Some(job) = state.jobs.pop_back() {
                    drop(state);
                    let done = job.run();
                    self.shared.lock().done.push(done);
                    self.shared.wake();
                }
            }
        }
    }

    /// What was finished since the last call.
    pub fn collect(&self) -> Vec<Done> {
        let mut counter = [0u8; 8];
        let _ = rustix::io::read(&self.signals, &mut counter[..]);
        std::mem::take(&mut self.shared.lock().done)
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            state.running += 1;
            drop(state);
            let done = job.run();
            state = shared.lock();
            state.running -= 1;
            state.done.push(done);
            shared.wake();
            continue;
        }
        state.idle += 1;
        let (next, timeout) = shared.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = next;
        state.idle -= 1;
        if timeout.timed_out() && state.jobs.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}
