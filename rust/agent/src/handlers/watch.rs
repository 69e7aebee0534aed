//! Watches of clients: events of the kernel are passed on while the client has room.

use microsandbox_protocol::Kind;
use microsandbox_protocol::frame::Flags;
use microsandbox_protocol::message::FsEvents;

use super::files::success;
use crate::clients::connection::Target;
use crate::files::watch::Watch;
use crate::server::Server;

/// A watch and who asked for it.
pub struct Watching {
    pub owner: (u64, u32),
    pub watch: Watch,
}

impl Server {
    pub(crate) fn begin_watch(&mut self, key: u64, id: u32, watch: Watch) {
        let number = self.fresh_key();
        let Some(client) = self.clients.get_mut(&key) else { return };
        client.targets.insert(id, Target::Watch(number));
        // A small answer fits into a frame.
        let _ = client.send(id, Flags::NONE, &Kind::FsResponse, &success(None));
        self.watches.insert(number, Watching { owner: (key, id), watch });
    }

    pub(crate) fn on_watch(&mut self, number: u64) {
        let Some(watching) = self.watches.get_mut(&number) else { return };
        let (key, id) = watching.owner;
        let events = watching.watch.read(&self.setup.root);
        let over = watching.watch.is_over();
        let Some(client) = self.clients.get_mut(&key) else { return };
        if !events.is_empty() {
            // As many as one read of the kernel's gives: far below the size of a frame.
            let _ = client.send(id, Flags::NONE, &Kind::FsEvent, &FsEvents { events });
        }
        if over {
            self.end_watch(number);
        }
    }

    fn end_watch(&mut self, number: u64) {
        let Some(Watching { owner: (key, id), .. }) = self.watches.remove(&number) else { return };
        if let Some(client) = self.clients.get_mut(&key) {
            client.targets.remove(&id);
        }
        self.reply(key, id, &Kind::FsResponse, &success(None));
    }

    /// The sandbox ends: nothing more will happen to its files.
    pub(crate) fn end_all_watches(&mut self) {
        let numbers: Vec<u64> = self.watches.keys().copied().collect();
        for number in numbers {
            self.end_watch(number);
        }
    }
}
