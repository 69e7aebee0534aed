//! Signals from clients.

use microsandbox_protocol::Message;
use microsandbox_protocol::message::Signal;
use microsandbox_sys::process;

use crate::server::Server;

impl Server {
    /// A signal goes to the leader's process group; 9 ends the whole tree, whatever sessions it has opened since.
    pub(crate) fn on_signal_frame(&mut self, key: u64, number: u64, message: &Message) {
        let Ok(Signal { signal }) = message.parse::<Signal>() else { return self.malformed(key, message) };
        if !(1..=libc::SIGRTMAX()).contains(&signal) {
            return self.malformed(key, message);
        }
        self.signal_session(number, signal);
    }

    /// Of a session that is gone: nothing.
    pub(crate) fn signal_session(&mut self, number: u64, signal: i32) {
        let Some(session) = self.sessions.get(&number) else { return };
        if signal == libc::SIGKILL {
            return self.kill_session(number);
        }
        // Once reaped, the number may belong to someone else.
        if session.exit.is_none() {
            let _ = process::kill(-session.pid, signal);
        }
    }
}
