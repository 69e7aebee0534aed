//! Bytes waiting for a socket. The owner decides how much may wait; nothing here grows on its own.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

/// How many pieces one vectored write takes.
const BATCH: usize = 32;
/// Small frames are appended to the last piece up to this size, so that a burst is one write and one allocation.
const COALESCE: usize = 4 << 10;

/// An ordered queue of outgoing bytes.
#[derive(Default)]
pub struct OutQueue {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece already written.
    offset: usize,
    bytes: usize,
}

impl OutQueue {
    /// Bytes not yet taken by the socket.
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Queues a whole piece.
    pub fn push(&mut self, piece: Vec<u8>) {
        self.bytes += piece.len();
        match self.pieces.back_mut() {
            Some(last) if last.len() + piece.len() <= COALESCE => last.extend_from_slice(&piece),
            _ => self.pieces.push_back(piece),
        }
    }

    /// Writes `head` and `data` straight from where they lie if nothing waits; what the socket does not take is copied.
    pub fn write_through(&mut self, fd: BorrowedFd<'_>, head: &[u8], data: &[u8]) -> io::Result<()> {
        if !self.is_empty() {
            self.flush(fd)?;
        }
        let mut written = 0;
        if self.is_empty() {
            written = take(write_once(fd, &[IoSlice::new(head), IoSlice::new(data)]))?;
        }
        let total = head.len() + data.len();
        if written < total {
            let mut rest = Vec::with_capacity(total - written);
            rest.extend_from_slice(head.get(written..).unwrap_or_default());
            rest.extend_from_slice(&data[written.saturating_sub(head.len())..]);
            self.bytes += rest.len();
            self.pieces.push_back(rest);
        }
        Ok(())
    }

    /// Writes until the queue is empty or the socket is full.
    pub fn flush(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let mut count = 0;
            for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
                let from = if count == 0 { self.offset } else { 0 };
                *slot = IoSlice::new(&piece[from..]);
                count += 1;
            }
            let written = take(write_once(fd, &slices[..count]))?;
            if written == 0 {
                return Ok(());
            }
            self.advance(written);
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.pieces.front() {
            let left = first.len() - self.offset;
            if written < left {
                self.offset += written;
                return;
            }
            written -= left;
            self.offset = 0;
            self.pieces.pop_front();
        }
    }

    /// Forgets everything: the peer is gone.
    pub fn clear(&mut self) {
        *self = OutQueue::default();
    }

    /// Frees the storage of an empty queue.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            self.clear();
        }
    }
}

fn write_once(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(rustix::io::writev(fd, slices)?)
}

/// A full socket is no error: zero bytes were taken.
fn take(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_full_socket_keeps_order_and_loses_nothing() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut queue = OutQueue::default();
        let mut expected = Vec::new();
        for round in 0..200u32 {
            let head = round.to_be_bytes();
            let data = vec![round as u8; (round as usize * 97) % 9000];
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&data);
            if round % 3 == 0 {
                queue.push([&head[..], &data[..]].concat());
            } else {
                queue.write_through(ours.as_fd(), &head, &data).unwrap();
            }
        }
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).unwrap();
            got
        });
        while !queue.is_empty() {
            queue.flush(ours.as_fd()).unwrap();
            std::thread::yield_now();
        }
        drop(ours);
        assert_eq!(reader.join().unwrap(), expected);
    }
}
