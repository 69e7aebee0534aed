//! One request and its one answer; the agent's own calls.

use std::time::Duration;

use microsandbox_protocol::frame::{Flags, Message};
use microsandbox_protocol::message::{Empty, Kind, Settings, Shutdown, Stats, Touched};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{AgentClient, Connection, SILENCE_DEADLINE};
use crate::error::MicrosandboxResult;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// The next message for `id`. Frames of other ids are dropped, except an error of the whole connection (id 0).
    pub async fn message(&mut self, id: u32) -> MicrosandboxResult<Message> {
        loop {
            let Some(frame) = self.frame().await? else {
                return Err(self.lost("it closed the connection before the answer"));
            };
            if frame.id != id && frame.id != 0 {
                self.count_stray();
                continue;
            }
            let message = self.open(&frame)?;
            match message.kind {
                Kind::Error => return Err(self.refused(&message)),
                _ if frame.id != id => self.count_stray(),
                // From a newer agent, and nothing we asked for.
                Kind::Unknown(_) => self.count_stray(),
                _ => return Ok(message),
            }
        }
    }

    /// The same, within the silence deadline.
    pub async fn answer(&mut self, id: u32) -> MicrosandboxResult<Message> {
        loop {
            match tokio::time::timeout(SILENCE_DEADLINE, self.message(id)).await {
                Ok(result) => return result,
                Err(_elapsed) if self.is_paused() => {}
                Err(_elapsed) => return Err(self.silent()),
            }
        }
    }

    /// The same for work that may take long: while the agent still answers pings it is taken to be at it.
    pub async fn patient_answer(&mut self, id: u32) -> MicrosandboxResult<Message> {
        loop {
            if let Ok(result) = tokio::time::timeout(SILENCE_DEADLINE / 2, self.message(id)).await {
                return result;
            }
            if self.is_paused() {
                continue;
            }
            let ping = self.id()?;
            self.queue(ping, Flags::NONE, &Kind::Ping, &Empty {}).map_err(|error| self.broke(error.to_string()))?;
            let waited = tokio::time::timeout(SILENCE_DEADLINE / 2, self.either(id, ping)).await;
            match waited {
                Ok(Ok(message)) if message.id == id => return Ok(message),
                Ok(Ok(_pong)) => {}
                Ok(Err(error)) => return Err(error),
                // The sandbox is paused. A late pong has no waiting call and is dropped.
                Err(_elapsed) if self.is_paused() => {}
                Err(_elapsed) => return Err(self.silent()),
            }
        }
    }

    async fn either(&mut self, id: u32, ping: u32) -> MicrosandboxResult<Message> {
        loop {
            let Some(frame) = self.frame().await? else {
                return Err(self.lost("it closed the connection before the answer"));
            };
            if frame.id != id && frame.id != ping {
                self.count_stray();
                continue;
            }
            let message = self.open(&frame)?;
            match message.kind {
                Kind::Error => return Err(self.refused(&message)),
                Kind::Unknown(_) => self.count_stray(),
                _ => return Ok(message),
            }
        }
    }

    /// Sends one request and waits for the one message that answers it.
    pub async fn call<T: Serialize>(&mut self, kind: Kind, payload: &T, expected: Kind) -> MicrosandboxResult<Message> {
        let id = self.id()?;
        self.queue(id, Flags::NONE, &kind, payload).map_err(|error| self.broke(error.to_string()))?;
        let message = self.answer(id).await?;
        self.expect(message, expected)
    }

    pub fn expect(&self, message: Message, expected: Kind) -> MicrosandboxResult<Message> {
        if message.kind == expected {
            return Ok(message);
        }
        let got = super::failure::quote(message.kind.as_wire());
        Err(self.broke(format!("`{got}` instead of `{}`", expected.as_wire())))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AgentClient<S> {
    /// One round trip; does not count as activity.
    pub async fn ping(&mut self) -> MicrosandboxResult<Duration> {
        let asked = Instant::now();
        self.connection.call(Kind::Ping, &Empty {}, Kind::Pong).await?;
        Ok(asked.elapsed())
    }

    /// Resets the idle timer; the new activity number.
    pub async fn touch(&mut self) -> MicrosandboxResult<u64> {
        let message = self.connection.call(Kind::Touch, &Empty {}, Kind::Touched).await?;
        Ok(self.connection.parse::<Touched>(&message)?.activity_seq)
    }

    /// No new programs; the sandbox ends with the last one that runs.
    pub async fn drain(&mut self) -> MicrosandboxResult<()> {
        self.connection.call(Kind::Drain, &Empty {}, Kind::Settled).await.map(drop)
    }

    /// New defaults of programs that start from now on.
    pub async fn settle(&mut self, settings: Settings) -> MicrosandboxResult<()> {
        self.connection.call(Kind::Settings, &settings, Kind::Settled).await.map(drop)
    }

    /// Returns once everything that the agent sent to any client before is in the log's file.
    pub async fn sync_log(&mut self) -> MicrosandboxResult<()> {
        self.connection.call(Kind::LogSync, &Empty {}, Kind::LogSynced).await.map(drop)
    }

    /// What the guest says about its own use of things.
    pub async fn stats(&mut self) -> MicrosandboxResult<Stats> {
        let message = self.connection.call(Kind::StatsRequest, &Empty {}, Kind::StatsResponse).await?;
        self.connection.parse(&message)
    }

    /// Asks for an orderly end and does not wait for it: what follows is read from the runtime's exit record.
    pub async fn shutdown(mut self, grace_ms: Option<u64>) -> MicrosandboxResult<()> {
        let id = self.connection.id()?;
        self.connection
            .queue(id, Flags::SHUTDOWN, &Kind::Shutdown, &Shutdown { grace_ms })
            .map_err(|error| self.connection.broke(error.to_string()))?;
        match tokio::time::timeout(SILENCE_DEADLINE, self.connection.flush()).await {
            Ok(result) => result,
            Err(_elapsed) => Err(self.connection.silent()),
        }
    }
}
