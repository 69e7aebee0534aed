//! The payload of every kind, and that what decodes can be encoded and decodes to itself.
use bytes::{Bytes, BytesMut};
use microsandbox_protocol::frame::{self, Flags};
use microsandbox_protocol::message::*;
use microsandbox_protocol::{FrameDecoder, Kind, Message};

fn cross<T>(message: &Message)
where
    T: serde_like::Both + PartialEq + std::fmt::Debug,
{
    let Ok(value) = message.parse::<T>() else { return };
    let Ok(wire) = frame::encode(1, Flags::NONE, &message.kind, &value) else { return };
    let mut buffer = BytesMut::from(&wire[..]);
    let again = FrameDecoder::default().decode(&mut buffer).expect("own frame").expect("whole frame");
    assert_eq!(again.open().expect("own envelope").parse::<T>().expect("own payload"), value);
}

mod serde_like {
    pub trait Both: serde::Serialize + for<'a> serde::Deserialize<'a> {}
    impl<T: serde::Serialize + for<'a> serde::Deserialize<'a>> Both for T {}
}

pub fn check(input: &[u8]) {
    let Some((first, payload)) = input.split_first() else { return };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()].clone();
    let message = Message { id: 1, flags: Flags::NONE, generation: 7, kind, payload: Bytes::copy_from_slice(payload) };
    match message.kind {
        Kind::Hello => cross::<Hello>(&message),
        Kind::Ready => cross::<Ready>(&message),
        Kind::Shutdown => cross::<Shutdown>(&message),
        Kind::Error => cross::<CoreError>(&message),
        Kind::Touched => cross::<Touched>(&message),
        Kind::Credit => cross::<Credit>(&message),
        Kind::StatsResponse => cross::<Stats>(&message),
        Kind::ExecRequest => cross::<ExecRequest>(&message),
        Kind::ExecStarted => cross::<ExecStarted>(&message),
        Kind::ExecStdinError => cross::<StdinError>(&message),
        Kind::ExecExited => cross::<ExecExited>(&message),
        Kind::ExecFailed => cross::<ExecFailed>(&message),
        Kind::ExecResize => cross::<Resize>(&message),
        Kind::ExecSignal => cross::<Signal>(&message),
        Kind::JobAttach => cross::<JobAttach>(&message),
        Kind::JobRequest => cross::<JobRequest>(&message),
        Kind::JobResponse => cross::<JobResponse>(&message),
        Kind::Settings => cross::<Settings>(&message),
        Kind::FsEvent => cross::<FsEvents>(&message),
        Kind::FsRequest => cross::<FsRequest>(&message),
        Kind::FsResponse => cross::<FsResponse>(&message),
        Kind::Bootstrap => cross::<Bootstrap>(&message),
        Kind::Log => cross::<LogRecord>(&message),
        Kind::Activity => cross::<Activity>(&message),
        Kind::LogSync | Kind::LogSynced => {
            cross::<Empty>(&message);
            cross::<LogSync>(&message);
        }
        Kind::ExecStdin | Kind::ExecStdout | Kind::ExecStderr | Kind::FsData => {
            cross::<Data>(&message);
            if let (Ok(slice), Ok(whole)) = (message.data(), message.parse::<Data>()) {
                assert_eq!(slice, whole.data);
            }
        }
        Kind::Ping | Kind::Pong | Kind::Touch | Kind::StatsRequest | Kind::Drain | Kind::Settled | Kind::Unknown(_) => {
            cross::<Empty>(&message)
        }
    }
}
