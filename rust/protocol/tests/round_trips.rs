//! What one side encodes, the other decodes to the same value, however the bytes are cut on the way.

use bytes::BytesMut;
use microsandbox_protocol::frame::{self, Flags, FrameDecoder, MAX_DATA};
use microsandbox_protocol::message::*;
use microsandbox_protocol::version::negotiate;
use microsandbox_protocol::{Kind, Message};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn cross<T: Serialize>(id: u32, flags: u8, kind: &Kind, payload: &T) -> Message {
    let bytes = frame::encode(id, Flags(flags), kind, payload).unwrap();
    let mut buffer = BytesMut::from(&bytes[..]);
    let frame = FrameDecoder::default().decode(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty(), "a frame is consumed exactly");
    frame.open().unwrap()
}

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    kind: Kind,
    payload: T,
) -> Result<(), TestCaseError> {
    let message = cross(77, 3, &kind, &payload);
    prop_assert_eq!((message.id, message.flags, &message.kind), (77, Flags(3), &kind));
    prop_assert_eq!(message.parse::<T>().unwrap(), payload);
    Ok(())
}

fn rlimit() -> impl Strategy<Value = Rlimit> {
    (".{0,12}", any::<u64>(), any::<u64>()).prop_map(|(resource, soft, hard)| Rlimit { resource, soft, hard })
}

fn init() -> impl Strategy<Value = InitProgram> {
    (vec("/.{0,20}", 1..4), vec(".*", 0..3), vec(".*", 0..3)).prop_map(|(candidates, args, env)| InitProgram {
        candidates,
        args,
        env,
    })
}

fn machine() -> impl Strategy<Value = Machine> {
    let tmpfs = ("/.{0,20}", any::<u64>(), any::<u32>(), any::<bool>(), any::<bool>()).prop_map(
        |(target, size_bytes, mode, readonly, noexec)| MachineTmpfs { target, size_bytes, mode, readonly, noexec },
    );
    (".{0,64}", any::<u64>(), any::<u32>(), vec(tmpfs, 0..3)).prop_map(|(hostname, shm_bytes, pids, tmpfs)| Machine {
        hostname,
        shm_bytes,
        pids,
        tmpfs,
    })
}

fn exec_request() -> impl Strategy<Value = ExecRequest> {
    let words = (".*", vec(".*", 0..8), vec(".*", 0..8), option::of(".*"), option::of(".*"), vec(rlimit(), 0..4));
    let numbers = (any::<[bool; 4]>(), any::<u16>(), any::<u16>(), any::<Option<u64>>(), any::<Option<u64>>());
    (words, numbers).prop_map(|((cmd, args, env, cwd, user, rlimits), (bits, rows, cols, window, timeout_ms))| {
        ExecRequest {
            cmd,
            args,
            env,
            cwd,
            user,
            tty: bits[0],
            rows,
            cols,
            rlimits,
            no_stdin: bits[1],
            window,
            timeout_ms,
            kill_on_disconnect: bits[2],
            job: bits[3],
        }
    })
}

fn attrs() -> impl Strategy<Value = FsAttrs> {
    let times = any::<(Option<i64>, Option<i64>, Option<u32>)>();
    (any::<(Option<u64>, Option<u32>, Option<u32>, Option<u32>)>(), times).prop_map(
        |((size, uid, gid, mode), (atime, mtime, mtime_nanos))| FsAttrs {
            size,
            uid,
            gid,
            mode,
            atime,
            mtime,
            mtime_nanos,
        },
    )
}

fn fs_op() -> impl Strategy<Value = FsOp> {
    let options = any::<([bool; 6], Option<u32>)>().prop_map(|(b, mode)| OpenOptions {
        read: b[0],
        write: b[1],
        append: b[2],
        create: b[3],
        create_new: b[4],
        truncate: b[5],
        mode,
    });
    prop_oneof![
        ".*".prop_map(|path| FsOp::RealPath { path }),
        (".*", any::<bool>()).prop_map(|(path, follow_symlink)| FsOp::Stat { path, follow_symlink }),
        (".*", any::<bool>(), attrs()).prop_map(|(path, follow_symlink, attrs)| FsOp::SetStat {
            path,
            follow_symlink,
            attrs
        }),
        ".*".prop_map(|path| FsOp::List { path }),
        ".*".prop_map(|path| FsOp::ReadLink { path }),
        (".*", ".*").prop_map(|(target, link_path)| FsOp::Symlink { target, link_path }),
        (".*", any::<Option<u32>>()).prop_map(|(path, mode)| FsOp::Mkdir { path, mode }),
        ".*".prop_map(|path| FsOp::Remove { path }),
        (".*", any::<bool>()).prop_map(|(path, recursive)| FsOp::RemoveDir { path, recursive }),
        (".*", ".*").prop_map(|(src, dst)| FsOp::Copy { src, dst }),
        (".*", ".*").prop_map(|(src, dst)| FsOp::Rename { src, dst }),
        (".*", options).prop_map(|(path, options)| FsOp::OpenFile { path, options }),
        ".*".prop_map(|path| FsOp::OpenDir { path }),
        any::<u64>().prop_map(|handle| FsOp::CloseHandle { handle }),
        any::<(u64, u64, u64)>().prop_map(|(handle, offset, len)| FsOp::Read { handle, offset, len }),
        any::<(u64, u64, u64)>().prop_map(|(handle, offset, len)| FsOp::Write { handle, offset, len }),
        any::<(u64, u32)>().prop_map(|(handle, limit)| FsOp::ReadDir { handle, limit }),
        any::<u64>().prop_map(|handle| FsOp::FStat { handle }),
        (any::<u64>(), attrs()).prop_map(|(handle, attrs)| FsOp::FSetStat { handle, attrs }),
        ".*".prop_map(|path| FsOp::ReadFile { path }),
        (".*", any::<Option<u32>>(), any::<bool>(), any::<Option<(i64, u32)>>())
            .prop_map(|(path, mode, atomic, mtime)| FsOp::WriteFile { path, mode, atomic, mtime }),
        (".*", any::<bool>()).prop_map(|(path, top)| FsOp::ReadTar { path, top }),
        ".*".prop_map(|path| FsOp::WriteTar { path }),
        (".*", any::<bool>()).prop_map(|(path, recursive)| FsOp::Watch { path, recursive }),
    ]
}

fn job_op() -> impl Strategy<Value = JobOp> {
    prop_oneof![
        Just(JobOp::List),
        ".*".prop_map(|job| JobOp::Inspect { job }),
        ".*".prop_map(|job| JobOp::Wait { job }),
        (".*", any::<i32>()).prop_map(|(job, signal)| JobOp::Signal { job, signal }),
        (".*", vec(any::<u8>(), 0..99)).prop_map(|(job, data)| JobOp::Input { job, data }),
        ".*".prop_map(|job| JobOp::CloseInput { job }),
    ]
}

fn entry() -> impl Strategy<Value = FsEntry> {
    let times = any::<(Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<u32>)>();
    (".*", "[a-z]{0,8}", any::<(u64, u32, u32, u32)>(), times).prop_map(
        |(path, kind, (size, mode, uid, gid), (atime, mtime, modified, created, mtime_nanos))| FsEntry {
            path,
            kind,
            size,
            mode,
            uid,
            gid,
            atime,
            mtime,
            modified,
            created,
            mtime_nanos,
        },
    )
}

fn fs_data() -> impl Strategy<Value = FsData> {
    prop_oneof![
        entry().prop_map(FsData::Stat),
        vec(entry(), 0..5).prop_map(FsData::List),
        any::<u64>().prop_map(FsData::Handle),
        ".*".prop_map(FsData::Path),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exec_requests(request in exec_request()) {
        same(Kind::ExecRequest, request)?;
    }

    #[test]
    fn exec_ends(code: i32, signal: Option<i32>, bits: [bool; 3], descendants: u32, duration_ns: u64) {
        let [oom_killed, timed_out, drained] = bits;
        same(Kind::ExecExited, ExecExited { code, signal, oom_killed, timed_out, drained, descendants, duration_ns })?;
    }

    #[test]
    fn exec_failures(kind in ".*", errno: Option<i32>, message in ".*", stage in option::of(".*")) {
        same(Kind::ExecFailed, ExecFailed { kind, errno, errno_name: None, message, stage })?;
    }

    #[test]
    fn file_requests(op in fs_op(), window: Option<u64>) {
        same(Kind::FsRequest, FsRequest { op, window })?;
    }

    #[test]
    fn file_answers(ok: bool, error in option::of(".*"), errno: Option<i32>, data in option::of(fs_data()), bytes: Option<u64>) {
        same(Kind::FsResponse, FsResponse { ok, error, kind: None, errno, data, bytes })?;
    }

    #[test]
    fn file_events(kind in ".*", path in ".*", from in option::of(".*"), is_dir: bool) {
        same(Kind::FsEvent, FsEvents { events: vec![FsEvent { kind, path, from, is_dir }] })?;
    }

    #[test]
    fn job_requests(op in job_op(), job in ".*", replay: Option<u64>, window: Option<u64>) {
        same(Kind::JobRequest, JobRequest { op })?;
        same(Kind::JobAttach, JobAttach { job, replay, window })?;
    }

    #[test]
    fn job_answers(refused in option::of(".*"), command in vec(".*", 0..4), tty: bool, pid: u32, at: u64, end: Option<u64>) {
        let exit = end.map(|duration_ns| ExecExited { duration_ns, drained: true, ..ExecExited::default() });
        let job = JobInfo { command, tty, pid, started_ms: at, finished_ms: end, exit, ..JobInfo::default() };
        same(Kind::JobResponse, JobResponse { refused, jobs: vec![job] })?;
    }

    #[test]
    fn settings(set in vec(".*", 0..4), unset in vec(".*", 0..4), cwd in option::of(".*")) {
        same(Kind::Settings, Settings { set, unset, cwd })?;
    }

    #[test]
    fn greetings(token in vec(any::<u8>(), 0..100), extension_min: u32, extension_max: u32) {
        same(Kind::Hello, Hello { token, extension_min, extension_max })?;
    }

    #[test]
    fn bootstraps(token in vec(any::<u8>(), 0..64), env in vec(".*", 0..8), cwd in ".*", max_clients: u32, rlimits in vec(rlimit(), 0..4), machine in option::of(machine()), init in option::of(init()), restricted: bool, makes_cwd: bool) {
        let bootstrap =
            Bootstrap { token, env, cwd, makes_cwd, user: None, rlimits, shutdown_grace_ms: 1, drain_ms: 2, max_clients, machine, init, restricted };
        same(Kind::Bootstrap, bootstrap)?;
    }

    #[test]
    fn a_borrowed_encoding_equals_a_whole_encoding(id: u32, data in vec(any::<u8>(), 0..70_000)) {
        let whole = frame::encode(id, Flags::NONE, &Kind::FsData, &Data { data: data.clone() }).unwrap();
        let mut parts = frame::encode_data_head(id, Flags::NONE, &Kind::FsData, data.len());
        parts.extend_from_slice(&data);
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn log_records_written_from_where_they_lie_are_whole_encodings(id: u32, source: u8, time_ns: u64, data in vec(any::<u8>(), 0..70_000)) {
        let record = LogRecord { source, time_ns, data: data.clone() };
        let whole = frame::encode(id, Flags::NONE, &Kind::Log, &record).unwrap();
        let mut parts = frame::encode_log_head(id, source, time_ns, data.len());
        parts.extend_from_slice(&data);
        prop_assert_eq!(whole, parts);
    }

    /// The decoder sees the same frames however the stream is cut.
    #[test]
    fn frames_survive_any_fragmentation(sizes in vec(0usize..5000, 1..12), cuts in vec(1usize..700, 1..40)) {
        let mut wire = Vec::new();
        for (id, size) in (1u32..).zip(&sizes) {
            wire.extend(frame::encode(id, Flags::NONE, &Kind::ExecStdout, &Data { data: vec![id as u8; *size] }).unwrap());
        }
        let decoder = FrameDecoder::default();
        let (mut buffer, mut got, mut at) = (BytesMut::new(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(wire.len());
            buffer.extend_from_slice(&wire[at..end]);
            at = end;
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                got.push(frame.open().unwrap());
            }
            if at == wire.len() {
                break;
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(got.len(), sizes.len());
        for ((id, size), message) in (1u32..).zip(&sizes).zip(&got) {
            prop_assert_eq!(message.id, id);
            prop_assert_eq!(message.data().unwrap(), vec![id as u8; *size]);
        }
    }

    /// Arbitrary bytes never panic, and whatever decodes was no larger than what came.
    // hazard: P13
    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(wire in vec(any::<u8>(), 0..3000)) {
        let mut buffer = BytesMut::from(&wire[..]);
        while let Ok(Some(frame)) = FrameDecoder::default().decode(&mut buffer) {
            prop_assert!(frame.body.len() < wire.len());
            if let Ok(message) = frame.open() {
                let _ = (message.parse::<ExecRequest>(), message.parse::<FsRequest>(), message.data());
            }
        }
    }

    /// One flipped byte in a real frame.
    // hazard: P13
    #[test]
    fn damaged_frames_are_decoded_or_refused(request in exec_request(), at: prop::sample::Index, byte: u8) {
        let mut wire = frame::encode(5, Flags::NONE, &Kind::ExecRequest, &request).unwrap();
        let at = at.index(wire.len());
        wire[at] = byte;
        let mut buffer = BytesMut::from(&wire[..]);
        if let Ok(Some(frame)) = FrameDecoder::default().decode(&mut buffer) && let Ok(message) = frame.open() {
            let _ = message.parse::<ExecRequest>();
        }
    }

    #[test]
    fn negotiation_is_symmetric_and_stays_in_both_ranges(a in (0u32..9, 0u32..9), b in (0u32..9, 0u32..9)) {
        prop_assert_eq!(negotiate(a, b), negotiate(b, a));
        if let Some(chosen) = negotiate(a, b) {
            prop_assert!(chosen >= a.0.max(b.0) && chosen <= a.1.min(b.1));
        } else {
            prop_assert!(a.0.max(b.0) > a.1.min(b.1));
        }
    }

    #[test]
    fn id_ranges(min in 1u32.., span in 1u32..) {
        if let Some(max) = min.checked_add(span) {
            prop_assert_eq!(frame::decode_id_range(frame::encode_id_range(min, max)), Ok((min, max)));
        }
    }
}

#[test]
fn every_kind_has_one_name() {
    let mut names: Vec<&str> = Kind::ALL.iter().map(Kind::as_wire).collect();
    assert!(Kind::ALL.iter().all(|kind| Kind::from_wire(kind.as_wire()) == *kind));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Kind::ALL.len());
}

#[test]
fn the_largest_data_fits_and_one_frame_more_does_not() {
    let data = vec![1u8; MAX_DATA];
    let message = cross(1, 0, &Kind::FsData, &Data { data: data.clone() });
    assert!(message.data().unwrap() == data);
    let huge = Data { data: vec![1; frame::MAX_FRAME] };
    assert!(frame::encode(1, Flags::NONE, &Kind::FsData, &huge).is_err());
}

#[test]
fn debug_output_holds_no_secret() {
    let hello = Hello { token: b"canary".to_vec(), extension_min: 1, extension_max: 1 };
    let request = ExecRequest { args: vec!["canary".into()], env: vec!["K=canary".into()], ..ExecRequest::default() };
    let bootstrap = Bootstrap { token: b"canary".to_vec(), env: vec!["K=canary".into()], ..Bootstrap::default() };
    let text = format!("{hello:?} {request:?} {bootstrap:?}");
    assert!(!text.contains("canary") && !text.contains("99, 97"), "{text}");
}
