//! The barrier of the log: a client that has its result, and asks for the log next, finds all of it there.
//!
//! The log is written by the runtime, from what the agent sends on the private channel. A mark sent on the same channel
//! comes after all of it; when the runtime answers the mark, what came before is in the file.

use microsandbox_protocol::message::{Empty, LogSync};
use microsandbox_protocol::{Kind, Message};

use crate::server::Server;

/// Clients that may wait for the log at a time: more than there are connections.
const MAX_WAITERS: usize = 2048;

/// A client that waits for the log.
pub struct LogWaiter {
    /// Connection and correlation id.
    pub owner: (u64, u32),
    number: u64,
}

impl Server {
    pub(crate) fn on_log_sync(&mut self, key: u64, id: u32) {
        if self.log_waiters.len() >= MAX_WAITERS {
            if let Some(client) = self.clients.get_mut(&key) {
                client.refuse(id, "too_many", "2048 calls wait for the log already", Some(&Kind::LogSync));
            }
            return;
        }
        let number = self.control.sync();
        self.log_waiters.push(LogWaiter { owner: (key, id), number });
    }

    pub(crate) fn on_log_synced(&mut self, message: &Message) {
        let Ok(LogSync { number }) = message.parse::<LogSync>() else { return };
        // In the order in which they asked.
        let due = self.log_waiters.iter().take_while(|waiter| waiter.number <= number).count();
        let due: Vec<LogWaiter> = self.log_waiters.drain(..due).collect();
        for waiter in due {
            let (key, id) = waiter.owner;
            self.reply(key, id, &Kind::LogSynced, &Empty {});
        }
    }
}
