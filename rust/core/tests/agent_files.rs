//! Files through the agent client, against a scripted agent: hazards F1, F7, F8, F10.

use crate::peer::{self, Line, Peer, agent, soon};
use bytes::Bytes;
use futures::StreamExt;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::backend::Files as _;
use microsandbox_core::model::FsEntryKind;
use microsandbox_protocol::message::{FsData, FsEntry, FsOp, FsRequest, FsResponse, Kind};
use tokio::sync::mpsc;

fn done(bytes: Option<u64>) -> FsResponse {
    FsResponse { ok: true, bytes, ..FsResponse::default() }
}

fn refused(kind: &str, errno: Option<i32>) -> FsResponse {
    FsResponse { kind: Some(kind.into()), errno, error: Some("said so".into()), ..FsResponse::default() }
}

/// Answers a read with these chunks and this response.
fn reading(chunks: &'static [&'static [u8]], response: FsResponse) -> Peer {
    Peer::greeted(move |mut line: Line| {
        let response = response.clone();
        async move {
            let request = line.expect(Kind::FsRequest).await;
            let op = request.parse::<FsRequest>().unwrap().op;
            assert_eq!(op, FsOp::ReadFile { path: "/f".into() });
            for chunk in chunks {
                line.data(request.id, Kind::FsData, chunk).await;
            }
            line.send(request.id, Kind::FsResponse, &response).await;
            line.linger().await;
        }
    })
}

#[tokio::test]
async fn a_read_is_whole_or_streamed_in_non_empty_chunks() {
    let peer = reading(&[b"ab", b"", b"cde", b"f"], done(Some(6)));
    assert_eq!(soon(agent(&peer.address).read("/f", u64::MAX)).await.unwrap(), Bytes::from_static(b"abcdef"));
    let stream = soon(agent(&peer.address).read_stream("/f")).await.unwrap();
    let chunks: Vec<Bytes> = soon(stream.map(Result::unwrap).collect()).await;
    assert_eq!(chunks, [&b"ab"[..], b"cde", b"f"]);
    let empty = reading(&[], done(Some(0)));
    assert!(soon(agent(&empty.address).read("/f", u64::MAX)).await.unwrap().is_empty());
}

// hazard: F10
#[tokio::test]
async fn content_of_another_length_than_declared_is_no_success() {
    for declared in [Some(0), Some(5), Some(7), Some(u64::MAX), None] {
        let peer = reading(&[b"abc", b"def"], done(declared));
        let error = soon(agent(&peer.address).read("/f", u64::MAX)).await.unwrap_err();
        assert!(matches!(error, MicrosandboxError::Protocol { .. }), "{declared:?}: {error}");
        let stream = soon(agent(&peer.address).read_stream("/f")).await.unwrap();
        let items: Vec<_> = soon(stream.collect()).await;
        assert!(matches!(items.last(), Some(Err(MicrosandboxError::Protocol { .. }))));
    }
}

#[tokio::test]
async fn errors_of_the_guest_keep_their_kind() {
    let cases = [
        (refused("ENOENT", Some(2)), "missing"),
        (refused("ENOENT", None), "missing"),
        (refused("EISDIR", Some(21)), "EISDIR"),
        (refused("MagicLink", Some(40)), "MagicLink"),
        (refused("no\nword", Some(-3)), "Other"),
    ];
    for (response, expected) in cases {
        let peer = reading(&[], response);
        let kind = match soon(agent(&peer.address).read("/f", u64::MAX)).await.unwrap_err() {
            MicrosandboxError::PathNotFound { path, .. } => {
                assert_eq!(path, "/f");
                "missing".into()
            }
            MicrosandboxError::Filesystem { kind, errno, .. } => {
                assert!(errno.is_none_or(|errno| errno > 0));
                kind
            }
            other => panic!("{other}"),
        };
        assert_eq!(kind, expected);
    }
}

// hazard: F1
#[tokio::test]
async fn invalid_paths_are_refused_before_sending() {
    let peer = Peer::new(|_line| async { panic!("nothing may be sent") });
    let long = format!("/{}", "x".repeat(5000));
    for path in ["", "relative", "../x", "/nul\0", &long] {
        let address = &peer.address;
        let errors = [
            agent(address).read(path, u64::MAX).await.err(),
            agent(address).write(path, Bytes::new()).await.err(),
            agent(address).list(path).await.err(),
            agent(address).stat(path, true).await.err(),
            agent(address).exists(path).await.err(),
            agent(address).mkdir(path).await.err(),
            agent(address).remove(path, true).await.err(),
            agent(address).copy("/ok", path).await.err(),
            agent(address).rename(path, "/ok").await.err(),
        ];
        for error in errors {
            let error = error.expect("refused");
            assert!(matches!(error, MicrosandboxError::Filesystem { .. }), "{path:?}: {error}");
        }
    }
}

/// Takes a write to its end and sends what it got.
fn writing(declare: fn(u64) -> Option<u64>) -> (Peer, mpsc::UnboundedReceiver<(FsOp, Vec<u8>)>) {
    let (seen, got) = mpsc::unbounded_channel();
    let peer = Peer::greeted(move |mut line: Line| {
        let seen = seen.clone();
        async move {
            let request = line.expect(Kind::FsRequest).await;
            let op = request.parse::<FsRequest>().unwrap().op;
            let mut content = Vec::new();
            loop {
                let data = line.expect(Kind::FsData).await.data().unwrap();
                if data.is_empty() {
                    break;
                }
                content.extend_from_slice(&data);
            }
            line.send(request.id, Kind::FsResponse, &done(declare(content.len() as u64))).await;
            seen.send((op, content)).unwrap();
            line.linger().await;
        }
    });
    (peer, got)
}

// hazard: F8, F10
#[tokio::test]
async fn a_write_is_atomic_and_its_count_is_checked() {
    let (peer, mut got) = writing(Some);
    let content: Bytes = (0..9_000_000u32).map(|n| (n / 3) as u8).collect::<Vec<u8>>().into();
    soon(agent(&peer.address).write("/f", content.clone())).await.unwrap();
    let (op, received) = soon(got.recv()).await.unwrap();
    assert_eq!(op, FsOp::WriteFile { path: "/f".into(), mode: None, atomic: true, mtime: None });
    assert!(received == content);
    for lie in [|bytes| Some(bytes + 1), |bytes: u64| Some(bytes - 1), |_| None] {
        let (peer, _got) = writing(lie);
        let error = soon(agent(&peer.address).write("/f", content.clone())).await.unwrap_err();
        assert!(matches!(error, MicrosandboxError::Protocol { .. }), "{error}");
    }
}

// hazard: F8
#[tokio::test]
async fn a_writer_that_is_dropped_never_says_that_it_is_complete() {
    let (left, mut ended) = mpsc::unbounded_channel();
    let peer = Peer::greeted(move |mut line: Line| {
        let left = left.clone();
        async move {
            line.expect(Kind::FsRequest).await;
            let mut complete = false;
            while let Some(message) = line.read().await {
                complete |= message.data().unwrap().is_empty();
            }
            left.send(complete).unwrap();
        }
    });
    let sink = soon(agent(&peer.address).write_stream("/f")).await.unwrap();
    soon(sink.write(Bytes::from_static(b"half"))).await.unwrap();
    soon(sink.write(Bytes::new())).await.unwrap();
    drop(sink);
    assert!(!soon(ended.recv()).await.unwrap());
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_write_ends_it() {
    let early = |response: FsResponse| {
        Peer::greeted(move |mut line: Line| {
            let response = response.clone();
            async move {
                let id = line.expect(Kind::FsRequest).await.id;
                line.expect(Kind::FsData).await;
                line.send(id, Kind::FsResponse, &response).await;
                // Takes nothing more, as an agent that gave up on the call might.
                tokio::time::sleep(peer::DEADLINE).await;
            }
        })
    };
    let full = early(refused("NoSpace", Some(28)));
    let content = Bytes::from(vec![1; 32 << 20]);
    let error = soon(agent(&full.address).write("/f", content.clone())).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Filesystem { kind, errno: Some(28), .. } if kind == "NoSpace"));
    let liar = early(done(Some(32 << 20)));
    let error = soon(agent(&liar.address).write("/f", content)).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Protocol { .. }), "{error}");
}

fn entry(number: usize) -> FsEntry {
    FsEntry {
        path: format!("/d/{number:06}"),
        kind: "file".into(),
        size: 3,
        mode: 0o100_644,
        mtime: Some(5),
        ..FsEntry::default()
    }
}

fn listing(pages: Vec<Vec<FsEntry>>) -> Peer {
    Peer::greeted(move |mut line: Line| {
        let mut pages = pages.clone().into_iter();
        async move {
            let request = line.expect(Kind::FsRequest).await;
            assert_eq!(request.parse::<FsRequest>().unwrap().op, FsOp::OpenDir { path: "/d".into() });
            let handle = FsResponse { ok: true, data: Some(FsData::Handle(42)), ..FsResponse::default() };
            line.send(request.id, Kind::FsResponse, &handle).await;
            while let Some(request) = line.read().await {
                let op = request.parse::<FsRequest>().unwrap().op;
                assert_eq!(op, FsOp::ReadDir { handle: 42, limit: 1000 });
                let page = FsData::List(pages.next().unwrap_or_default());
                let response = FsResponse { ok: true, data: Some(page), ..FsResponse::default() };
                line.send(request.id, Kind::FsResponse, &response).await;
            }
        }
    })
}

// hazard: F7
#[tokio::test]
async fn a_listing_comes_in_pages_and_is_sorted() {
    let entries: Vec<FsEntry> = (0..2500).rev().map(entry).collect();
    let peer = listing(entries.chunks(1000).map(<[FsEntry]>::to_vec).collect());
    let listed = soon(agent(&peer.address).list("/d")).await.unwrap();
    assert_eq!(listed.len(), 2500);
    assert!(listed.is_sorted_by(|a, b| a.path < b.path));
    assert_eq!((listed[0].kind, listed[0].modified_ms), (FsEntryKind::File, Some(5000.0)));
    let oversized = listing(vec![(0..1001).map(entry).collect()]);
    let error = soon(agent(&oversized.address).list("/d")).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Protocol { .. }), "{error}");
}

// hazard: F7
#[tokio::test]
async fn a_listing_without_end_is_refused_whole_and_streamed() {
    let peer = Peer::greeted(move |mut line: Line| async move {
        let request = line.expect(Kind::FsRequest).await;
        let handle = FsResponse { ok: true, data: Some(FsData::Handle(1)), ..FsResponse::default() };
        line.send(request.id, Kind::FsResponse, &handle).await;
        let long = FsEntry { path: format!("/{}", "d".repeat(4000)), ..entry(1) };
        let page = FsData::List(vec![long; 900]);
        let page = FsResponse { ok: true, data: Some(page), ..FsResponse::default() };
        while let Some(request) = line.read().await {
            line.send(request.id, Kind::FsResponse, &page).await;
        }
    });
    match soon(agent(&peer.address).list("/d")).await.unwrap_err() {
        MicrosandboxError::Filesystem { kind, message, .. } => {
            assert_eq!(kind, "LimitExceeded");
            assert!(message.contains("list_stream"), "{message}");
        }
        other => panic!("{other}"),
    }
    let mut pages = soon(agent(&peer.address).list_stream("/d")).await.unwrap();
    for _ in 0..30 {
        assert_eq!(soon(pages.next()).await.unwrap().unwrap().len(), 900);
    }
}

#[tokio::test]
async fn a_file_beyond_what_its_reader_allows_is_refused() {
    let peer = reading(&[b"abc", b"def"], done(Some(6)));
    assert_eq!(soon(agent(&peer.address).read("/f", 6)).await.unwrap().len(), 6);
    match soon(agent(&peer.address).read("/f", 5)).await.unwrap_err() {
        MicrosandboxError::Filesystem { kind, message, .. } => {
            assert_eq!(kind, "LimitExceeded");
            assert!(message.contains("more than 5 bytes") && message.contains("max_bytes="), "{message}");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_copy_out_of_far_more_than_was_said_is_refused() {
    let peer = Peer::greeted(move |mut line: Line| async move {
        let asked = line.expect(Kind::FsRequest).await;
        let small = FsEntry { size: 10, ..entry(1) };
        let stat = FsResponse { ok: true, data: Some(FsData::Stat(small)), ..FsResponse::default() };
        line.send(asked.id, Kind::FsResponse, &stat).await;
        let request = line.expect(Kind::FsRequest).await;
        for _ in 0..80 {
            line.data(request.id, Kind::FsData, &[0; 1 << 20]).await;
        }
        line.send(request.id, Kind::FsResponse, &done(Some(80 << 20))).await;
    });
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("copied");
    match soon(agent(&peer.address).copy_to_host("/f", &target, None)).await.unwrap_err() {
        MicrosandboxError::Filesystem { kind, message, .. } => {
            assert_eq!(kind, "LimitExceeded");
            assert!(message.contains("it had 10 bytes"), "{message}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "a part was left");
}

#[tokio::test]
async fn exists_is_false_for_absence_and_an_error_otherwise() {
    let answering = |response: FsResponse| {
        Peer::greeted(move |mut line: Line| {
            let response = response.clone();
            async move {
                let id = line.expect(Kind::FsRequest).await.id;
                line.send(id, Kind::FsResponse, &response).await;
            }
        })
    };
    let stat = FsResponse { ok: true, data: Some(FsData::Stat(entry(1))), ..FsResponse::default() };
    assert!(soon(agent(&answering(stat).address).exists("/x")).await.unwrap());
    assert!(!soon(agent(&answering(refused("ENOENT", Some(2))).address).exists("/x")).await.unwrap());
    assert!(!soon(agent(&answering(refused("ENOTDIR", Some(20))).address).exists("/x")).await.unwrap());
    assert!(soon(agent(&answering(refused("EACCES", Some(13))).address).exists("/x")).await.is_err());
    let empty = FsResponse { ok: true, ..FsResponse::default() };
    let error = soon(agent(&answering(empty).address).stat("/x", true)).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Protocol { .. }));
}
