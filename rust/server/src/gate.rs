//! Which frames a key may send to an agent.
//!
//! The relay forwards a frame only if the scopes of the key admit its kind, and for a file operation what the operation does. Frames
//! that end or change the sandbox as a whole are not for clients of a server, whatever their scopes: its routes do that. A frame
//! that starts a call is refused with an answer; one that belongs to a call that was refused is dropped.

use bytes::{Buf, Bytes, BytesMut};
use microsandbox_protocol::frame::{self, Flags, Frame, HEADER, MAX_FRAME, ProtocolError};
use microsandbox_protocol::message::{CoreError, FsOp, FsRequest, Kind};

use crate::keys::Scope;
use crate::tenancy::{Caller, forbidden};

/// Length field of a frame.
const LENGTH: usize = 4;
/// Length, correlation id and flags follow each other; the shortest frame has one byte of body.
const SHORTEST: usize = HEADER - LENGTH + 1;
/// The kind of the error.
const FORBIDDEN: &str = "forbidden";

/// What a frame needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Any key that may open a relay.
    Nothing,
    /// One of these.
    AnyOf(&'static [Scope]),
    /// No key may send it.
    Never,
}

/// What a frame of this kind needs; `None` for a file request, where it depends on the operation.
pub fn need_of(kind: &Kind) -> Option<Need> {
    Some(match kind {
        Kind::FsRequest => return None,
        Kind::Ping | Kind::Touch | Kind::Credit => Need::Nothing,
        Kind::ExecRequest
        | Kind::ExecStdin
        | Kind::ExecResize
        | Kind::ExecSignal
        | Kind::JobAttach
        | Kind::JobRequest => Need::AnyOf(&[Scope::Exec]),
        Kind::FsData => Need::AnyOf(&[Scope::FilesWrite]),
        Kind::StatsRequest => Need::AnyOf(&[Scope::SandboxesRead]),
        Kind::LogSync => Need::AnyOf(&[Scope::LogsRead]),
        // They act on the sandbox as a whole.
        Kind::Shutdown | Kind::Drain | Kind::Settings => Need::Never,
        // The relay said hello; the rest is sent by agents, or on the private channel of the runtime.
        Kind::Hello
        | Kind::Ready
        | Kind::Error
        | Kind::Pong
        | Kind::Touched
        | Kind::StatsResponse
        | Kind::Settled
        | Kind::LogSynced
        | Kind::ExecStarted
        | Kind::ExecStdinError
        | Kind::ExecStdout
        | Kind::ExecStderr
        | Kind::ExecExited
        | Kind::ExecFailed
        | Kind::JobResponse
        | Kind::FsResponse
        | Kind::FsEvent
        | Kind::Bootstrap
        | Kind::Log
        | Kind::Activity => Need::Never,
        Kind::Unknown(_) => Need::Never,
    })
}

/// What a file operation needs.
pub fn need_of_op(op: &FsOp) -> Need {
    match op {
        FsOp::RealPath { .. }
        | FsOp::Stat { .. }
        | FsOp::List { .. }
        | FsOp::ReadLink { .. }
        | FsOp::OpenDir { .. }
        | FsOp::Read { .. }
        | FsOp::ReadDir { .. }
        | FsOp::FStat { .. }
        | FsOp::ReadFile { .. }
        | FsOp::ReadTar { .. }
        | FsOp::Watch { .. } => Need::AnyOf(&[Scope::FilesRead]),
        FsOp::SetStat { .. }
        | FsOp::Symlink { .. }
        | FsOp::Mkdir { .. }
        | FsOp::Remove { .. }
        | FsOp::RemoveDir { .. }
        | FsOp::Copy { .. }
        | FsOp::Rename { .. }
        | FsOp::Write { .. }
        | FsOp::FSetStat { .. }
        | FsOp::WriteFile { .. }
        | FsOp::WriteTar { .. } => Need::AnyOf(&[Scope::FilesWrite]),
        FsOp::OpenFile { options, .. } => {
            let writes = options.write || options.append || options.create || options.create_new || options.truncate;
            Need::AnyOf(if writes { &[Scope::FilesWrite] } else { &[Scope::FilesRead] })
        }
        FsOp::CloseHandle { .. } => Need::AnyOf(&[Scope::FilesRead, Scope::FilesWrite]),
    }
}

/// The frames of one client on their way to an agent.
pub struct Gate {
    caller: Caller,
    /// The begin of a frame whose rest has not arrived.
    rest: BytesMut,
}

/// What becomes of the bytes of a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Whole frames for the agent.
    pub forward: Vec<Bytes>,
    /// Whole frames for the client: refusals.
    pub refuse: Vec<Bytes>,
}

impl Gate {
    pub fn of(caller: &Caller) -> Gate {
        Gate { caller: caller.clone(), rest: BytesMut::new() }
    }

    /// Cuts the next bytes of the client into frames and judges each. An error: the bytes are no frames.
    pub fn admit(&mut self, data: Bytes) -> Result<Admitted, ProtocolError> {
        let mut admitted = Admitted::default();
        let mut data = if self.rest.is_empty() {
            data
        } else {
            self.rest.extend_from_slice(&data);
            // The frame waits where it is: a copy at each message would cost the square of its length.
            if whole_frame(&self.rest)?.is_none() {
                return Ok(admitted);
            }
            self.rest.split().freeze()
        };
        // Neighbours that are forwarded stay one piece.
        let mut run = 0;
        while let Some(whole) = whole_frame(&data[run..])? {
            match self.judge(&data.slice(run..run + whole))? {
                None => run += whole,
                Some(refusal) => {
                    admitted.forward.extend(Some(data.split_to(run)).filter(|bytes| !bytes.is_empty()));
                    data.advance(whole);
                    run = 0;
                    admitted.refuse.extend(Some(refusal).filter(|bytes| !bytes.is_empty()));
                }
            }
        }
        admitted.forward.extend(Some(data.split_to(run)).filter(|bytes| !bytes.is_empty()));
        self.rest.extend_from_slice(&data);
        Ok(admitted)
    }

    /// `None`: forward it. Otherwise the answer, which is empty for a frame that expects none.
    fn judge(&self, whole: &Bytes) -> Result<Option<Bytes>, ProtocolError> {
        let mut head = &whole[LENGTH..];
        let frame = Frame { id: head.get_u32(), flags: Flags(head.get_u8()), body: whole.slice(HEADER..) };
        let message = frame.open()?;
        let need = match need_of(&message.kind) {
            Some(need) => need,
            // What cannot be read could be any operation.
            None => match message.parse::<FsRequest>() {
                Ok(request) => need_of_op(&request.op),
                Err(_) => Need::AnyOf(&[Scope::FilesWrite]),
            },
        };
        let text = match need {
            Need::Nothing => return Ok(None),
            Need::AnyOf(scopes) if scopes.iter().any(|scope| self.caller.has(*scope)) => return Ok(None),
            Need::AnyOf(scopes) => forbidden(scopes).message,
            Need::Never => "no client of a server may send this message; use the routes of the server".to_owned(),
        };
        let continues = matches!(message.kind, Kind::ExecStdin | Kind::ExecResize | Kind::ExecSignal | Kind::FsData);
        if continues {
            return Ok(Some(Bytes::new()));
        }
        let offending_type = Some(message.kind.as_wire().to_owned());
        let error = CoreError { kind: FORBIDDEN.into(), message: text, offending_type };
        frame::encode(message.id, Flags::TERMINAL, &Kind::Error, &error).map(|answer| Some(answer.into()))
    }
}

/// The length of the frame that `data` begins with, once all of it is there.
fn whole_frame(data: &[u8]) -> Result<Option<usize>, ProtocolError> {
    let Some(length) = data.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if !(SHORTEST..=MAX_FRAME).contains(&length) {
        return Err(ProtocolError::FrameLength { len: length as u64, min: SHORTEST, max: MAX_FRAME });
    }
    Ok(Some(LENGTH + length).filter(|whole| data.len() >= *whole))
}

/// Finds the places in the output of an agent where a frame of our own may stand: between two of its frames.
#[derive(Debug, Default)]
pub struct Boundary {
    /// Bytes of the current frame that are still to come.
    left: usize,
    /// The begin of a length field.
    length: Vec<u8>,
}

impl Boundary {
    /// Whether the agent is between two frames.
    pub fn is_here(&self) -> bool {
        self.left == 0 && self.length.is_empty()
    }

    /// Takes the next bytes of the agent; the offset after the last whole frame among them, if a frame ends there.
    pub fn advance(&mut self, data: &[u8]) -> Option<usize> {
        let mut at = 0;
        let mut last = self.is_here().then_some(0);
        while at < data.len() {
            if self.left > 0 {
                let taken = self.left.min(data.len() - at);
                self.left -= taken;
                at += taken;
            } else {
                let missing = (LENGTH - self.length.len()).min(data.len() - at);
                self.length.extend_from_slice(&data[at..at + missing]);
                at += missing;
                if let Ok(length) = <[u8; LENGTH]>::try_from(self.length.as_slice()) {
                    self.left = u32::from_be_bytes(length) as usize;
                    self.length.clear();
                }
            }
            if self.is_here() {
                last = Some(at);
            }
        }
        last
    }
}

#[cfg(test)]
mod tests;
