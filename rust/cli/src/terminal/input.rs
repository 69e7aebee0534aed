//! Standard input as a stream of chunks that can be dropped at any moment.
//!
//! A thread polls the descriptor *and* a wake-up pipe, so that an idle terminal or an idle pipe cannot delay the exit
//! of the program. The descriptor stays blocking, because it is shared with the shell.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;

use crate::terminal::console::Input;

/// Bytes of one read. A few chunks are queued for the guest, then reading pauses.
const CHUNK: usize = 64 << 10;
const QUEUE: usize = 4;

/// The chunks; `None` is end of input.
pub struct InputStream {
    chunks: mpsc::Receiver<Bytes>,
    /// Dropping this descriptor ends the thread.
    _wake: Option<OwnedFd>,
}

impl InputStream {
    pub fn open(input: &Input) -> std::io::Result<InputStream> {
        let (sender, chunks) = mpsc::channel(QUEUE);
        match input {
            Input::Bytes(data) => {
                if !data.is_empty() {
                    // Cannot fail: the queue is new and empty, and its receiver exists.
                    let _ = sender.try_send(data.clone());
                }
                Ok(InputStream { chunks, _wake: None })
            }
            Input::Host => {
                let (woken, wake) = pipe_with(PipeFlags::CLOEXEC)?;
                std::thread::Builder::new().name("msb-stdin".into()).spawn(move || read_host(&woken, &sender))?;
                Ok(InputStream { chunks, _wake: Some(wake) })
            }
        }
    }

    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.chunks.recv().await
    }
}

fn read_host(woken: &OwnedFd, chunks: &mpsc::Sender<Bytes>) {
    let stdin = rustix::stdio::stdin();
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        match rustix::io::read(stdin, &mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if chunks.blocking_send(Bytes::copy_from_slice(&buffer[..length])).is_err() {
                    return;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal that hung up, a closed descriptor: treated as end of file.
            Err(_) => return,
        }
    }
}
