//! A layer counts once it is on the disk. Waiting for the disk only at the end would leave it idle while the layer is
//! unpacked, so a thread hands it what has been written so far, again and again.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs;

/// Between the end of one round and the begin of the next.
const PAUSE: Duration = Duration::from_millis(150);

/// Runs until it is dropped.
pub struct Writeback(Option<(Sender<()>, JoinHandle<()>)>);

impl Writeback {
    /// For the file system of `target`. Without a thread everything is written at the end, as if there were none of this.
    pub fn start(target: Option<&OwnedFd>) -> Writeback {
        let started = target.and_then(|target| rustix::io::fcntl_dupfd_cloexec(target, 0).ok()).and_then(|target| {
            let (stop, stopped) = channel::<()>();
            let rounds = move || {
                while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    // A sync that fails here fails again in the sync at the end, which reports the error.
                    let _ = fs::syncfs(&target);
                }
            };
            Some((stop, std::thread::Builder::new().spawn(rounds).ok()?))
        });
        Writeback(started)
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}
