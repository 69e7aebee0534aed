//! The agent's judgement of a stranger's first frame: a client without the token is never accepted.
use bytes::BytesMut;
use microsandbox_agent::clients::hello::{Greeting, judge};
use microsandbox_protocol::message::Hello;
use microsandbox_protocol::{FrameDecoder, Kind, frame};

const TOKEN: &[u8] = b"0123456789abcdef";

pub fn check(wire: &[u8]) {
    let decoder = FrameDecoder::new(frame::MAX_HELLO_FRAME);
    let mut buffer = BytesMut::from(wire);
    let Ok(Some(frame)) = decoder.decode(&mut buffer) else { return };
    let Ok(message) = frame.open() else { return };
    if let Ok(Greeting::Welcome(extension)) = judge(TOKEN, &message) {
        let hello: Hello = message.parse().expect("it was welcome");
        assert!(message.kind == Kind::Hello && hello.token == TOKEN);
        assert!((hello.extension_min..=hello.extension_max).contains(&extension));
    }
    assert!(!matches!(judge(b"", &message), Ok(Greeting::Welcome(_))), "an agent without a token accepts no client");
}
