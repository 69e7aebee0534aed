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

#[cfg(test)]
mod tests {
    use super::*;

    fn body(piece: usize, pause: Duration) -> Response {
        let pieces = futures::stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(vec![0_u8; piece]), ()))
        });
        http::Response::new(reqwest::Body::wrap_stream(pieces)).into()
    }

    // hazard: I14
    #[tokio::test]
    async fn next_to_nothing_is_as_good_as_nothing() {
        let stall = Duration::from_millis(150);
        for piece in [0, 1] {
            let (mut pace, mut slow) = (Pace::new(stall), body(piece, Duration::from_millis(5)));
            let begun = Instant::now();
            let end = loop {
                if let Err(broken) = pace.next(&mut slow).await {
                    break broken;
                }
            };
            assert!(matches!(end, Broken::Stalled) && begun.elapsed() >= stall);
        }
        let (mut pace, mut steady) = (Pace::new(stall), body(LEAST_BYTES, Duration::from_millis(10)));
        for _ in 0..40 {
            assert!(pace.next(&mut steady).await.is_ok_and(|chunk| chunk.is_some()));
        }
    }
}
