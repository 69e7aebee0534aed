//! Logs of the cloud client: whole, in part, and of services that never finish.

use std::time::{Duration, Instant};

use crate::service::{ID, Liar, answer, client, hasty, requests, say, soon, whole_answer};
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::config::Wire;
use microsandbox_core::model::{LogOptions, LogSource, LogStreamOptions};
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn event(number: u32) -> String {
    format!(
        "id: c{number}\nevent: log\ndata: {{\"source\":\"stdout\",\"ts\":\"2026-01-01T00:00:{number:02}Z\",\
         \"text\":\"line {number}\",\"later\":1}}\n\n"
    )
}

fn at(second: u32) -> DateTime<Utc> {
    format!("2026-01-01T00:00:{second:02}Z").parse().unwrap()
}

/// The look-up is answered, then the log as `script` says.
async fn logging<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + Clone + 'static,
) -> Liar {
    Liar::new(move |mut stream, head| {
        let script = script.clone();
        async move {
            if head.contains("/logs") {
                say(&mut stream, SSE).await;
                script(stream).await;
            } else {
                say(&mut stream, whole_answer(&answer("running").to_string())).await;
            }
        }
    })
    .await
}

async fn polite() -> MockServer {
    let server = MockServer::start().await;
    let body: String = ": hello\n\nevent: later\ndata: x\n\ndata: unnamed\n\n".to_owned()
        + &(1..=5).map(event).collect::<String>()
        + "event: end\ndata:\n\n"
        + &event(6);
    Mock::given(path(format!("/v1/sandboxes/{ID}/logs")))
        .respond_with(ResponseTemplate::new(200).set_body_raw(body, "text/event-stream"))
        .mount(&server)
        .await;
    let found = ResponseTemplate::new(200).set_body_json(answer("running"));
    Mock::given(any()).respond_with(found).mount(&server).await;
    server
}

#[tokio::test]
async fn a_log_is_filtered_here() {
    let server = polite().await;
    let backend = client(&server.uri(), Wire::Spec);
    let texts = |options: LogOptions| {
        let backend = backend.clone();
        async move {
            let entries = soon(backend.sandboxes().logs("box", options)).await.unwrap();
            entries.into_iter().map(|entry| String::from_utf8(entry.data.to_vec()).unwrap()).collect::<Vec<_>>()
        }
    };
    let all = ["line 1", "line 2", "line 3", "line 4", "line 5"];
    assert_eq!(texts(LogOptions::default()).await, all);
    assert_eq!(texts(LogOptions { since: Some(at(2)), until: Some(at(4)), ..LogOptions::default() }).await, all[1..3]);
    assert_eq!(texts(LogOptions { tail: Some(2), ..LogOptions::default() }).await, all[3..]);
    assert!(texts(LogOptions { tail: Some(0), ..LogOptions::default() }).await.is_empty());
}

#[tokio::test]
async fn a_stream_continues_after_a_cursor_and_names_its_sources() {
    let server = polite().await;
    let backend = client(&server.uri(), Wire::Spec);
    let sources = vec![LogSource::Stderr, LogSource::System];
    let options = LogStreamOptions { sources, from_cursor: Some("c7".into()), follow: true, ..Default::default() };
    let stream = soon(backend.sandboxes().log_stream("box", options)).await.unwrap();
    let entries: Vec<_> = soon(stream.collect::<Vec<_>>()).await;
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[4].as_ref().unwrap().cursor, "c5");
    let sent = requests(&server).await.pop().unwrap();
    assert_eq!(sent.headers["last-event-id"], "c7");
    assert_eq!(sent.headers["accept"], "text/event-stream");
    assert!(sent.url.query_pairs().any(|pair| pair == ("sources".into(), "stderr,system".into())), "{}", sent.url);
    let broken = LogStreamOptions { from_cursor: Some("a\nb".into()), ..Default::default() };
    let result = soon(backend.sandboxes().log_stream("box", broken)).await;
    assert!(matches!(result, Err(MicrosandboxError::InvalidCursor(_))));
}

/// Comments keep a connection alive; they are no output.
#[tokio::test]
async fn a_service_that_only_says_that_it_lives_is_silent() {
    let liar = logging(|mut stream| async move {
        say(&mut stream, event(1)).await;
        while say(&mut stream, ": alive\n\n").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let backend = client(&liar.url, Wire::Spec);
    let began = Instant::now();
    let entries = soon(backend.sandboxes().logs("box", LogOptions::default())).await.unwrap();
    assert_eq!(entries.len(), 1);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn an_endless_log_is_reported_and_not_cut() {
    let liar = logging(|mut stream| async move {
        while say(&mut stream, event(1)).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let backend = hasty(&liar.url, Duration::from_millis(1500));
    let error = soon(backend.sandboxes().logs("box", LogOptions::default())).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Http(_)), "{error:?}");
    assert!(error.to_string().contains("did not end within 1.5 s"), "{error}");
}

/// The timeout of a call is not one of a stream.
#[tokio::test]
async fn a_stream_outlives_the_timeout_and_ends_with_the_connection() {
    let liar = logging(|mut stream| async move {
        for number in 1..=4 {
            say(&mut stream, event(number)).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    })
    .await;
    let backend = hasty(&liar.url, Duration::from_millis(500));
    let options = LogStreamOptions { follow: true, ..Default::default() };
    let stream = soon(backend.sandboxes().log_stream("box", options)).await.unwrap();
    let entries = soon(stream.collect::<Vec<_>>()).await;
    assert!(entries.len() == 4 && entries.iter().all(Result::is_ok), "{entries:?}");
}

#[tokio::test]
async fn a_service_that_vanishes_mid_stream_is_a_named_error() {
    let liar = Liar::new(|mut stream, head| async move {
        if head.contains("/logs") {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let event = event(1);
            say(&mut stream, format!("{head}{:x}\r\n{event}\r\n40\r\nevent: lo", event.len())).await;
        } else {
            say(&mut stream, whole_answer(&answer("running").to_string())).await;
        }
    })
    .await;
    let backend = client(&liar.url, Wire::Spec);
    let options = LogStreamOptions { follow: true, ..Default::default() };
    let mut stream = soon(backend.sandboxes().log_stream("box", options)).await.unwrap();
    assert_eq!(soon(stream.next()).await.unwrap().unwrap().cursor, "c1");
    let error = soon(stream.next()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, MicrosandboxError::Http(_)) && error.to_string().contains("closed before the end of the log"),
        "{error:?}"
    );
    assert!(soon(stream.next()).await.is_none());
}
