//! What a hostile peer can put on the wire (hazards P1 to P4): every case is an error of bounded cost, never a panic.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use microsandbox_protocol::frame::{self, Flags, Frame, FrameDecoder, MAX_FRAME, MAX_HELLO_FRAME, ProtocolError};
use microsandbox_protocol::message::*;
use microsandbox_protocol::{Kind, Message};

fn feed(bytes: &[u8], max: usize) -> (Result<Option<Frame>, ProtocolError>, BytesMut) {
    let mut buffer = BytesMut::from(bytes);
    let result = FrameDecoder::new(max).decode(&mut buffer);
    (result, buffer)
}

fn envelope(payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0xa3, 0x61, b'v', 7, 0x61, b't', 0x6c];
    body.extend_from_slice(b"core.exec.xx");
    body.extend_from_slice(&[0x61, b'p', 0x5a]);
    body.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    body.extend_from_slice(payload);
    body
}

fn message(payload: Vec<u8>) -> Message {
    Message { id: 1, flags: Flags::NONE, generation: 7, kind: Kind::ExecRequest, payload: payload.into() }
}

fn frame(body: Vec<u8>) -> Frame {
    Frame { id: 1, flags: Flags::NONE, body: body.into() }
}

/// Every payload type of the protocol tries to decode the same bytes; none may panic, none may take long.
fn every_payload_refuses(payload: &[u8]) {
    let message = message(payload.to_vec());
    let begin = Instant::now();
    assert!(message.parse::<ExecRequest>().is_err());
    assert!(message.parse::<FsRequest>().is_err());
    assert!(message.parse::<Bootstrap>().is_err());
    assert!(message.parse::<Hello>().is_err());
    assert!(message.data().is_err());
    let _ = message.parse::<FsResponse>();
    let _ = message.parse::<Ready>();
    let _ = message.parse::<Shutdown>();
    let _ = message.parse::<Stats>();
    let _ = message.parse::<LogRecord>();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

// hazard: P1
#[test]
fn impossible_lengths_are_refused_before_allocation() {
    for max in [MAX_HELLO_FRAME, MAX_FRAME] {
        for length in [0u32, 1, 5, max as u32 + 1, 0x7fff_ffff, 0xffff_ffff] {
            let (result, buffer) = feed(&length.to_be_bytes(), max);
            assert!(matches!(result, Err(ProtocolError::FrameLength { .. })), "{length} with a bound of {max}");
            assert!(buffer.capacity() < 1024, "{length}: {} bytes reserved", buffer.capacity());
        }
    }
}

// hazard: P1
#[test]
fn the_largest_length_is_accepted() {
    for max in [MAX_HELLO_FRAME, MAX_FRAME] {
        let (result, buffer) = feed(&(max as u32).to_be_bytes(), max);
        assert_eq!(result, Ok(None));
        assert!(buffer.capacity() <= 2 * max + 1024, "{}", buffer.capacity());
        let mut whole = BytesMut::from(&(max as u32).to_be_bytes()[..]);
        whole.extend_from_slice(&vec![0; max]);
        let frame = FrameDecoder::new(max).decode(&mut whole).unwrap().unwrap();
        assert_eq!(frame.body.len(), max - 5);
    }
    assert!(feed(&(MAX_FRAME as u32 + 1).to_be_bytes(), usize::MAX).0.is_err(), "the bound is clamped");
}

// hazard: P2
#[test]
fn a_frame_cut_anywhere_waits_for_the_rest() {
    let whole = frame::encode(9, Flags::SESSION_START, &Kind::Ping, &Empty {}).unwrap();
    for cut in 0..whole.len() {
        let mut buffer = BytesMut::from(&whole[..cut]);
        let decoder = FrameDecoder::default();
        assert_eq!(decoder.decode(&mut buffer), Ok(None), "cut at {cut}");
        buffer.extend_from_slice(&whole[cut..]);
        let frame = decoder.decode(&mut buffer).unwrap().unwrap();
        assert_eq!(frame.open().unwrap().kind, Kind::Ping);
        assert!(buffer.is_empty());
    }
}

// hazard: P3
#[test]
fn garbage_bodies_are_malformed() {
    let bodies: [&[u8]; 8] =
        [b"\0", b"\xff", b"\xa3", b"{\"v\":7}", b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", b"\xc1\xc1", b"\xf6", b"\x80"];
    for body in bodies {
        assert!(matches!(frame(body.to_vec()).open(), Err(ProtocolError::Malformed { .. })), "{body:x?}");
        every_payload_refuses(body);
    }
}

// hazard: P3
#[test]
fn ten_thousand_levels_are_refused_on_a_small_stack() {
    // In a thread with little stack: recursion would end it.
    let check = || {
        for opener in [&b"\x81"[..], b"\xa1\x61x", b"\xc1", b"\x9f", b"\xbf\x61x"] {
            for depth in [64, 10_000, 500_000] {
                let deep = opener.repeat(depth);
                every_payload_refuses(&deep);
                let _ = frame(deep.clone()).open();
                // In a field that is unknown, and in one that is known.
                let mut unknown = b"\xa2\x67unknown".to_vec();
                unknown.extend_from_slice(&deep);
                every_payload_refuses(&unknown);
                let mut known = b"\xa1\x64args".to_vec();
                known.extend_from_slice(&deep);
                every_payload_refuses(&known);
            }
        }
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(check).unwrap().join().unwrap();
}

// hazard: P3
#[test]
fn claimed_sizes_allocate_nothing() {
    // Arrays, maps, texts and byte strings that claim 2^32 or 2^64 - 1 elements, alone and inside known fields.
    for claim in [
        &b"\x9a\xff\xff\xff\xff"[..],
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xba\xff\xff\xff\xff",
        b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5a\xff\xff\xff\xff",
    ] {
        every_payload_refuses(claim);
        for field in [
            &b"\x63cmd"[..],
            b"\x64args",
            b"\x63env",
            b"\x64data",
            b"\x62op",
            b"\x65token",
            b"\x67rlimits",
            b"\x67unknown",
        ] {
            let mut payload = vec![0xa1];
            payload.extend_from_slice(field);
            payload.extend_from_slice(claim);
            every_payload_refuses(&payload);
        }
        let _ = frame([&b"\xa1\x61p"[..], claim].concat()).open();
    }
}

// hazard: P3
#[test]
fn indefinite_strings_and_duplicate_keys_are_refused() {
    let indefinite_text = b"\xa1\x63cmd\x7f\x61a\x61b\xff";
    assert!(message(indefinite_text.to_vec()).parse::<ExecRequest>().is_err());
    let indefinite_bytes = b"\xa1\x64data\x5f\x41a\x41b\xff";
    assert!(message(indefinite_bytes.to_vec()).data().is_err());
    let twice = b"\xa2\x63cmd\x61a\x63cmd\x61b";
    assert!(message(twice.to_vec()).parse::<ExecRequest>().is_err());
    let twice = [&b"\xa4\x61v\x07\x61v\x07"[..], &envelope(b"")[1..]].concat();
    assert!(frame(twice).open().is_err());
}

// hazard: P3
#[test]
fn numbers_outside_their_field_are_refused() {
    for (payload, what) in [
        (&b"\xa2\x64rows\x1a\x00\x01\x00\x00\x64cols\x01"[..], "rows of 65536"),
        (b"\xa2\x64rows\x20\x64cols\x01", "negative rows"),
        (b"\xa2\x64rows\xf9\x7e\x00\x64cols\x01", "NaN rows"),
    ] {
        assert!(message(payload.to_vec()).parse::<Resize>().is_err(), "{what}");
    }
    assert!(message(b"\xa1\x65bytes\x20".to_vec()).parse::<Credit>().is_err());
    assert!(message(b"\xa1\x66signal\x1b\x00\x00\x00\x01\x00\x00\x00\x00".to_vec()).parse::<Signal>().is_err());
}

// hazard: P4
#[test]
fn unknown_kinds_and_newer_generations_are_carried() {
    let open = |generation: u8| {
        let mut body = envelope(b"\xa0");
        body[3] = generation;
        frame(body).open()
    };
    let newer = open(9).unwrap();
    assert_eq!((newer.generation, newer.kind), (9, Kind::Unknown("core.exec.xx".into())));
    assert!(matches!(open(0), Err(ProtocolError::Generation { got: 0, .. })));
    let odd = frame::encode(1, Flags(0xff), &Kind::Ping, &Empty {}).unwrap();
    let decoded = FrameDecoder::default().decode(&mut BytesMut::from(&odd[..])).unwrap().unwrap();
    assert!(decoded.flags.contains(Flags::TERMINAL) && decoded.open().is_ok());
    let Kind::Unknown(kept) = Kind::from_wire(&"x".repeat(100_000)) else { panic!() };
    assert_eq!(kept.len(), 64, "a hostile name is not kept whole");
}

// hazard: P4
#[test]
fn fields_of_a_newer_peer_are_ignored() {
    let payload = b"\xa2\x65bytes\x05\x66future\x83\x01\x02\xa1\x61x\xf5";
    assert_eq!(message(payload.to_vec()).parse::<Credit>().unwrap().bytes, 5);
}

#[test]
fn empty_id_ranges_are_refused() {
    for (min, max) in [(0, 0), (0, 5), (5, 5), (6, 5), (u32::MAX, u32::MAX)] {
        assert!(frame::decode_id_range(frame::encode_id_range(min, max)).is_err(), "{min}..{max}");
    }
    assert_eq!(frame::decode_id_range(frame::encode_id_range(1, u32::MAX)), Ok((1, u32::MAX)));
}

#[test]
fn an_opened_payload_is_a_slice_of_its_frame() {
    let data = Bytes::from(vec![3u8; 1000]);
    let head = frame::encode_data_head(4, Flags::NONE, &Kind::ExecStdout, data.len());
    let mut buffer = BytesMut::from(&[&head[..], &data[..]].concat()[..]);
    let frame = FrameDecoder::default().decode(&mut buffer).unwrap().unwrap();
    let content = frame.open().unwrap().data().unwrap();
    let body = frame.body.as_ptr_range();
    assert!(body.contains(&content.as_ptr()) && content == data, "no copy was made");
}

// hazard: P3
#[test]
fn lists_of_tiny_elements_are_refused_while_they_are_decoded() {
    let mut command = vec![0xa1, 0x64];
    command.extend_from_slice(b"jobs\x81\xa8");
    for (name, value) in [("id", &b"\x61j"[..]), ("boot", b"\x61b"), ("session", b"\x01"), ("tty", b"\xf4")] {
        command.push(0x60 | name.len() as u8);
        command.extend_from_slice(name.as_bytes());
        command.extend_from_slice(value);
    }
    command.extend_from_slice(b"\x63pid\x01\x6cstdin_closed\xf4\x6astarted_ms\x01\x67command\x9a");
    let words = 1_000_000u32;
    command.extend_from_slice(&words.to_be_bytes());
    let small = command.len();
    command.resize(small + words as usize, 0x60);
    let error = message(command).parse::<JobResponse>().unwrap_err();
    assert!(error.to_string().contains("a list that takes more"), "{error}");
}

#[test]
fn a_byte_of_content_does_not_keep_a_frame_of_megabytes() {
    let mut payload = vec![0xa2, 0x64];
    payload.extend_from_slice(b"data\x41x\x63pad\x5a");
    payload.extend_from_slice(&(1u32 << 20).to_be_bytes());
    payload.resize(payload.len() + (1 << 20), 0);
    let whole = frame(envelope(&payload));
    let opened = whole.open().unwrap();
    let data = opened.data().unwrap();
    assert_eq!(data, Bytes::from_static(b"x"));
    assert!(!whole.body.as_ptr_range().contains(&data.as_ptr()), "a slice of the frame");
    // Content that fills its frame is not copied.
    let full =
        frame(frame::encode(1, Flags::NONE, &Kind::FsData, &Data { data: vec![0; 1 << 20] }).unwrap()[9..].to_vec());
    let data = full.open().unwrap().data().unwrap();
    assert!(full.body.as_ptr_range().contains(&data.as_ptr()), "a copy");
}
