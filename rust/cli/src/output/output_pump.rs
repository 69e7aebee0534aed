//! The guest's output on its way to the standard streams.
//!
//! A thread writes, because a write to a full pipe blocks while signals must still be handled. The queue is short: a
//! slow reader slows the guest down instead of growing our memory.

use std::io;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::output::failure::{Failure, Outcome};
use crate::terminal::console::{Console, Sink, lock};

const QUEUE: usize = 4;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// The sending side.
pub struct OutputPump {
    chunks: mpsc::Sender<(Stream, Bytes)>,
    written: oneshot::Receiver<io::Result<()>>,
}

impl OutputPump {
    pub fn open(console: &Console) -> io::Result<OutputPump> {
        let (chunks, queue) = mpsc::channel(QUEUE);
        let (done, written) = oneshot::channel();
        let (out, err) = (console.out.clone(), console.err.clone());
        std::thread::Builder::new().name("msb-output".into()).spawn(move || {
            // A cancelled run has dropped the receiver: the result is then not needed.
            let _ = done.send(write_all(queue, &out, &err));
        })?;
        Ok(OutputPump { chunks, written })
    }

    /// Waits while the reader is slow. False: the stream has no reader any more; [`OutputPump::finish`] returns the
    /// cause.
    pub async fn send(&self, stream: Stream, data: Bytes) -> bool {
        self.chunks.send((stream, data)).await.is_ok()
    }

    /// Returns when all output is written.
    pub async fn finish(self) -> Outcome<()> {
        drop(self.chunks);
        match self.written.await {
            Ok(result) => result.map_err(|error| Failure::output(&error)),
            Err(_gone) => Err(Failure::message("the output was not written completely: its thread exited early")),
        }
    }
}

fn write_all(mut queue: mpsc::Receiver<(Stream, Bytes)>, out: &Sink, err: &Sink) -> io::Result<()> {
    while let Some((stream, data)) = queue.blocking_recv() {
        let mut sink = lock(if stream == Stream::Out { out } else { err });
        sink.write_all(&data).and_then(|()| sink.flush())?;
    }
    Ok(())
}
