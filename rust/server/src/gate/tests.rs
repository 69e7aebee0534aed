use microsandbox_protocol::message::{Data, Empty, ExecRequest, OpenOptions};

use super::*;
use crate::keys::{Key, Keys};

/// A caller whose key has exactly these scopes.
fn caller(scopes: &[Scope]) -> Caller {
    let home = tempfile::tempdir().unwrap();
    let (key, _): (Key, _) = Keys::new(home.path()).create("k", scopes, None).unwrap();
    Caller::of(&key)
}

fn path() -> String {
    "/x".into()
}

/// Every file operation, and whether it writes.
fn operations() -> Vec<(FsOp, bool)> {
    let attrs = Default::default();
    let options = OpenOptions { read: true, ..OpenOptions::default() };
    let writing = OpenOptions { write: true, ..OpenOptions::default() };
    vec![
        (FsOp::RealPath { path: path() }, false),
        (FsOp::Stat { path: path(), follow_symlink: true }, false),
        (FsOp::SetStat { path: path(), follow_symlink: true, attrs }, true),
        (FsOp::List { path: path() }, false),
        (FsOp::ReadLink { path: path() }, false),
        (FsOp::Symlink { target: path(), link_path: path() }, true),
        (FsOp::Mkdir { path: path(), mode: None }, true),
        (FsOp::Remove { path: path() }, true),
        (FsOp::RemoveDir { path: path(), recursive: true }, true),
        (FsOp::Copy { src: path(), dst: path() }, true),
        (FsOp::Rename { src: path(), dst: path() }, true),
        (FsOp::OpenFile { path: path(), options }, false),
        (FsOp::OpenFile { path: path(), options: writing }, true),
        (FsOp::OpenFile { path: path(), options: OpenOptions { append: true, ..options } }, true),
        (FsOp::OpenFile { path: path(), options: OpenOptions { create: true, ..options } }, true),
        (FsOp::OpenFile { path: path(), options: OpenOptions { create_new: true, ..options } }, true),
        (FsOp::OpenFile { path: path(), options: OpenOptions { truncate: true, ..options } }, true),
        (FsOp::OpenDir { path: path() }, false),
        (FsOp::Read { handle: 1, offset: 0, len: 1 }, false),
        (FsOp::Write { handle: 1, offset: 0, len: 1 }, true),
        (FsOp::ReadDir { handle: 1, limit: 1 }, false),
        (FsOp::FStat { handle: 1 }, false),
        (FsOp::FSetStat { handle: 1, attrs }, true),
        (FsOp::ReadFile { path: path() }, false),
        (FsOp::WriteFile { path: path(), mode: None, atomic: true, mtime: None }, true),
        (FsOp::ReadTar { path: path(), top: false }, false),
        (FsOp::WriteTar { path: path() }, true),
        (FsOp::Watch { path: path(), recursive: false }, false),
    ]
}

fn frame_of(kind: &Kind) -> Bytes {
    let encoded = match kind {
        Kind::FsRequest => {
            let op = FsOp::Stat { path: path(), follow_symlink: true };
            frame::encode(7, Flags::NONE, kind, &FsRequest { op, window: None })
        }
        Kind::ExecStdin | Kind::FsData => frame::encode(7, Flags::NONE, kind, &Data { data: vec![1, 2, 3] }),
        Kind::ExecRequest => frame::encode(7, Flags::NONE, kind, &ExecRequest::default()),
        _ => frame::encode(7, Flags::NONE, kind, &Empty {}),
    };
    encoded.unwrap().into()
}

/// What is right, said a second time: kind and the scopes with which it passes; all other pairs must be refused.
fn admits(kind: &Kind, scope: Scope) -> bool {
    match kind.as_wire() {
        "core.ping" | "core.touch" | "core.credit" => true,
        "core.exec.request" | "core.exec.stdin" | "core.exec.resize" | "core.exec.signal" | "core.job.attach"
        | "core.job.request" => scope == Scope::Exec,
        // The frame of this test asks for the metadata of a path.
        "core.fs.request" => scope == Scope::FilesRead,
        "core.fs.data" => scope == Scope::FilesWrite,
        "core.stats.request" => scope == Scope::SandboxesRead,
        "core.log.sync" => scope == Scope::LogsRead,
        _ => false,
    }
}

#[test]
fn every_kind_of_frame_passes_with_its_scope_alone() {
    let unknown = Kind::Unknown("core.new".into());
    for scope in Scope::ALL {
        for kind in Kind::ALL.iter().chain([&unknown]) {
            let sent = frame_of(kind);
            let admitted = Gate::of(&caller(&[scope])).admit(sent.clone()).unwrap();
            if admits(kind, scope) {
                assert_eq!(admitted, Admitted { forward: vec![sent], refuse: Vec::new() }, "{kind:?} {scope:?}");
                continue;
            }
            assert!(admitted.forward.is_empty(), "{kind:?} passes with {scope:?}");
            let continues = ["core.exec.stdin", "core.exec.resize", "core.exec.signal", "core.fs.data"];
            assert_eq!(admitted.refuse.is_empty(), continues.contains(&kind.as_wire()), "{kind:?} {scope:?}");
        }
    }
}

#[test]
fn no_scope_ends_or_changes_the_sandbox_over_the_relay() {
    let mut gate = Gate::of(&caller(&Scope::ALL));
    for kind in [Kind::Shutdown, Kind::Drain, Kind::Settings, Kind::Bootstrap, Kind::Hello] {
        let admitted = gate.admit(frame_of(&kind)).unwrap();
        assert!(admitted.forward.is_empty(), "{kind:?}");
        let mut answer = BytesMut::from(&admitted.refuse[0][..]);
        let answer = frame::FrameDecoder::default().decode(&mut answer).unwrap().unwrap().open().unwrap();
        assert_eq!((answer.id, &answer.kind, answer.flags), (7, &Kind::Error, Flags::TERMINAL));
        let error: CoreError = answer.parse().unwrap();
        assert_eq!((error.kind.as_str(), error.offending_type.as_deref()), ("forbidden", Some(kind.as_wire())));
    }
}

#[test]
fn a_file_operation_passes_with_the_scope_of_what_it_does() {
    for (op, writes) in operations() {
        let request = FsRequest { op: op.clone(), window: None };
        let sent: Bytes = frame::encode(7, Flags::SESSION_START, &Kind::FsRequest, &request).unwrap().into();
        for scope in Scope::ALL {
            let expected = scope == if writes { Scope::FilesWrite } else { Scope::FilesRead };
            let admitted = Gate::of(&caller(&[scope])).admit(sent.clone()).unwrap();
            assert_eq!(!admitted.forward.is_empty(), expected, "{op:?} with {scope:?}");
        }
    }
    let close = FsRequest { op: FsOp::CloseHandle { handle: 1 }, window: None };
    let close: Bytes = frame::encode(7, Flags::NONE, &Kind::FsRequest, &close).unwrap().into();
    for scope in Scope::ALL {
        let admitted = Gate::of(&caller(&[scope])).admit(close.clone()).unwrap();
        assert_eq!(!admitted.forward.is_empty(), matches!(scope, Scope::FilesRead | Scope::FilesWrite));
    }
    // An operation of another version may be anything.
    let newer: Bytes = frame::encode(7, Flags::NONE, &Kind::FsRequest, &Empty {}).unwrap().into();
    assert!(Gate::of(&caller(&[Scope::FilesRead])).admit(newer).unwrap().forward.is_empty());
}

#[test]
fn frames_are_judged_however_the_bytes_are_cut() {
    let kinds = [Kind::Ping, Kind::ExecRequest, Kind::Shutdown, Kind::ExecStdin, Kind::Ping, Kind::FsData];
    let stream: Vec<u8> = kinds.iter().flat_map(frame_of).collect();
    let passing: Vec<u8> = kinds.iter().filter(|kind| admits(kind, Scope::Exec)).flat_map(frame_of).collect();
    for piece in [1, 2, 5, 13, 64, stream.len()] {
        let mut gate = Gate::of(&caller(&[Scope::Exec]));
        let (mut forwarded, mut refused) = (Vec::new(), 0);
        for bytes in stream.chunks(piece) {
            let admitted = gate.admit(Bytes::copy_from_slice(bytes)).unwrap();
            forwarded.extend(admitted.forward.concat());
            refused += admitted.refuse.len();
        }
        assert_eq!((forwarded, refused), (passing.clone(), 1), "in pieces of {piece}");
    }
}

#[test]
fn a_large_frame_in_small_pieces_is_copied_once() {
    let data = Data { data: vec![7; frame::MAX_DATA] };
    let sent = frame::encode(7, Flags::NONE, &Kind::ExecStdin, &data).unwrap();
    let mut gate = Gate::of(&caller(&[Scope::Exec]));
    // With room for all of it, it stays where its first bytes were put.
    gate.rest.reserve(sent.len());
    let place = gate.rest.as_ptr();
    let mut pieces = sent.chunks(100).peekable();
    while let Some(piece) = pieces.next() {
        let admitted = gate.admit(Bytes::copy_from_slice(piece)).unwrap();
        if pieces.peek().is_some() {
            assert_eq!((admitted, gate.rest.as_ptr()), (Admitted::default(), place));
        } else {
            assert_eq!(admitted.forward[0].as_ptr(), place);
            assert!(admitted.forward.concat() == sent, "another frame is forwarded");
        }
    }
}

#[test]
fn bytes_that_are_no_frames_end_the_relay() {
    let mut gate = Gate::of(&caller(&Scope::ALL));
    assert!(gate.admit(Bytes::from_static(&[0xff; 16])).is_err());
    assert!(Gate::of(&caller(&Scope::ALL)).admit(Bytes::from_static(&[0, 0, 0, 0])).is_err());
    assert!(Gate::of(&caller(&Scope::ALL)).admit(Bytes::from_static(&[0, 0, 0, 6, 0, 0, 0, 7, 0, 0xff])).is_err());
}

#[test]
fn answers_of_the_gate_stand_between_frames_of_the_agent() {
    let stream: Vec<u8> = [frame_of(&Kind::Pong), frame_of(&Kind::ExecStdin)].concat();
    let first = frame_of(&Kind::Pong).len();
    for piece in 1..=stream.len() {
        let mut boundary = Boundary::default();
        let mut places = Vec::new();
        for (index, bytes) in stream.chunks(piece).enumerate() {
            places.extend(boundary.advance(bytes).map(|at| index * piece + at));
        }
        assert!(places.iter().all(|at| [0, first, stream.len()].contains(at)), "in pieces of {piece}: {places:?}");
        assert_eq!(places.last(), Some(&stream.len()), "in pieces of {piece}");
    }
}
