//! Reading a body that must keep arriving: a registry that sends next to nothing is as good as one that sends nothing.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::Instant;

/// What must arrive within the time that `registry.stall` names.
const LEAST_BYTES: usize = 16 << 10;

/// Why no more bytes come.
pub enum Broken {
    Stalled,
    Transport(reqwest::Error),
}

/// Measures one body.
pub struct Pace {
    stall: Duration,
    since: Instant,
    bytes: usize,
}

impl Pace {
    pub fn new(stall: Duration) -> Pace {
        Pace { stall, since: Instant::now(), bytes: 0 }
    }

    /// The next piece of the body; `None` at its end.
    pub async fn next(&mut self, response: &mut Response) -> Result<Option<Bytes>, Broken> {
        let until = self.since + self.stall;
        let chunk = match tokio::time::timeout_at(until, response.chunk()).await {
            Ok(chunk) => chunk.map_err(Broken::Transport)?,
            Err(_elapsed) => return Err(Broken::Stalled),
        };
        self.bytes += chunk.as_ref().map_or(0, Bytes::len);
        if self.bytes >= LEAST_BYTES {
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(chunk)
    }

    /// What is read is waiting for the disk: that is not the registry's time.
    pub fn excuse(&mut self) {
        self.since = Instant::now();
    }
}
