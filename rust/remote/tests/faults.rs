//! The cloud client against services that fail: each a named error, in bounded time, with nothing done twice.

use std::time::{Duration, Instant};

use crate::service::{
    KEY, Liar, answer, calls, client, config, exec, get, hasty, requests, say, serving, soon, whole_answer,
};
use microsandbox_core::config::Wire;
use microsandbox_core::model::{SandboxStatus, VolumeQuery};
use microsandbox_core::{MicrosandboxError, Sandbox};
use serde_json::json;
use wiremock::matchers::{any, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const JSON_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// Case 83: a service that echoes the key does not get it into an error.
// hazard: C6
#[tokio::test]
async fn a_key_that_is_echoed_is_in_no_error() {
    let bodies = [
        format!(r#"{{"error":{{"code":"x","message":"you sent Bearer {KEY}","details":{{"a":"{KEY}"}}}}}}"#),
        format!(r#"{{"code":"exec_failed","message":"{KEY}","details":{{"kind":"{KEY}","stage":"{KEY}"}}}}"#),
        format!("<html>{KEY}</html>"),
    ];
    for body in bodies {
        for status in [400, 401, 403, 404, 409, 418, 422, 500] {
            let server = serving(ResponseTemplate::new(status).set_body_raw(body.clone(), "application/json")).await;
            let error = get(&client(&server.uri(), Wire::Spec)).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
    let mut odd = answer("running");
    odd["status"] = KEY.into();
    let unknown = serving(ResponseTemplate::new(200).set_body_json(odd.clone())).await;
    let handle = get(&client(&unknown.uri(), Wire::Spec)).await.unwrap();
    assert!(handle.last_error_snapshot().is_some_and(|text| !text.contains("hunter2")));
    odd["ephemeral"] = KEY.into();
    let unreadable = serving(ResponseTemplate::new(200).set_body_json(odd)).await;
    let kind = format!("text/{KEY}");
    let untyped = serving(ResponseTemplate::new(200).set_body_raw("x", &kind)).await;
    for server in [unreadable, untyped] {
        let error = get(&client(&server.uri(), Wire::Spec)).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

/// A removal that is answered with "see other" has removed nothing: a GET of the other place would succeed.
#[tokio::test]
async fn a_redirect_never_turns_a_change_into_a_look() {
    for status in [301, 302, 303] {
        let server = MockServer::start().await;
        let elsewhere = ResponseTemplate::new(200).set_body_json(answer("stopped"));
        Mock::given(path("/elsewhere")).respond_with(elsewhere).mount(&server).await;
        let moved = ResponseTemplate::new(status).insert_header("location", "/elsewhere");
        Mock::given(any()).respond_with(moved).mount(&server).await;
        let backend = client(&server.uri(), Wire::Spec);
        for change in ["remove", "stop", "create"] {
            let result = match change {
                "remove" => soon(Sandbox::remove(&backend, "box")).await,
                "stop" => soon(backend.sandboxes().stop("box")).await,
                _ => soon(Sandbox::create(&backend, config())).await.map(drop),
            };
            let error = result.unwrap_err();
            assert!(matches!(error, MicrosandboxError::CloudHttp { status: got, .. } if got == status), "{error:?}");
            assert!(error.to_string().contains("elsewhere: check its URL"), "{error}");
        }
        assert!(calls(&server).await.iter().all(|call| !call.ends_with("/elsewhere")));
        // What only looks may look there.
        assert_eq!(get(&backend).await.unwrap().status_snapshot(), SandboxStatus::Stopped);
    }
}

#[tokio::test]
async fn a_redirect_is_followed_within_the_origin_only() {
    let server = MockServer::start().await;
    let created = ResponseTemplate::new(200).set_body_json(answer("running"));
    Mock::given(method("POST")).and(path("/elsewhere")).respond_with(created).mount(&server).await;
    let moved = ResponseTemplate::new(308).insert_header("location", "/elsewhere");
    Mock::given(any()).respond_with(moved).mount(&server).await;
    soon(Sandbox::create(&client(&server.uri(), Wire::Spec), config())).await.unwrap();
    let sent = requests(&server).await;
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].body, sent[1].body);
    for name in ["authorization", "idempotency-key", "content-type"] {
        assert_eq!(sent[0].headers[name], sent[1].headers[name]);
    }
}

// hazard: C6
#[tokio::test]
async fn no_other_origin_sees_the_key_whatever_the_request() {
    let thief = serving(ResponseTemplate::new(200).set_body_json(answer("running"))).await;
    let port = thief.address().port();
    for location in [
        format!("{}/x", thief.uri()),
        format!("//127.0.0.1:{port}/x"),
        format!("http://localhost:{port}/x"),
        format!("http://user:pw@127.0.0.1:{port}/x"),
    ] {
        let moved = ResponseTemplate::new(307).insert_header("location", location.as_str());
        let server = serving(moved).await;
        let backend = client(&server.uri(), Wire::Spec);
        for error in [
            get(&backend).await.map(drop).unwrap_err(),
            soon(Sandbox::create(&backend, config())).await.map(drop).unwrap_err(),
            soon(backend.volumes().list(VolumeQuery::default())).await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, MicrosandboxError::Http(_)), "{error:?}");
            assert!(error.to_string().contains("the API key was not sent"), "{error}");
        }
        assert_eq!(requests(&server).await.len(), 3);
    }
    // The same origin with credentials in the address would replace the key.
    let server = MockServer::start().await;
    let with_credentials = format!("http://user:pw@127.0.0.1:{}/x", server.address().port());
    let moved = ResponseTemplate::new(307).insert_header("location", with_credentials.as_str());
    Mock::given(any()).respond_with(moved).mount(&server).await;
    get(&client(&server.uri(), Wire::Spec)).await.unwrap_err();
    assert_eq!((requests(&server).await.len(), requests(&thief).await.len()), (1, 0));
}

/// What may have been acted on is not sent twice; what changes nothing is, a bounded number of times.
// hazard: C4
#[tokio::test]
async fn only_what_is_safe_is_sent_again() {
    for (status, looks, runs) in [(502, 4, 1), (503, 4, 1), (504, 4, 1), (429, 4, 4), (500, 1, 1), (401, 1, 1)] {
        let server = serving(ResponseTemplate::new(status)).await;
        get(&client(&server.uri(), Wire::Spec)).await.unwrap_err();
        assert_eq!(requests(&server).await.len(), looks, "GET after {status}");
        let server = serving(ResponseTemplate::new(status)).await;
        exec(&client(&server.uri(), Wire::Flat), "true").await.unwrap_err();
        assert_eq!(requests(&server).await.len(), runs, "POST exec after {status}");
        let server = serving(ResponseTemplate::new(status)).await;
        soon(Sandbox::remove(&client(&server.uri(), Wire::Spec), "box")).await.unwrap_err();
        assert_eq!(requests(&server).await.len(), runs, "DELETE after {status}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer() {
    let liar = Liar::new(|stream, _head| async move { drop(stream) }).await;
    let error = get(&client(&liar.url, Wire::Spec)).await.unwrap_err();
    assert!(matches!(error, MicrosandboxError::Http(_)), "{error:?}");
    assert_eq!(liar.connections(), 4);
    let liar = Liar::new(|stream, _head| async move { drop(stream) }).await;
    let ran = exec(&client(&liar.url, Wire::Flat), "true").await;
    assert!(matches!(ran, Err(MicrosandboxError::Http(_))), "{ran:?}");
    assert_eq!(liar.connections(), 1);
}

// hazard: C5
#[tokio::test]
async fn a_body_that_is_cut_short_is_not_asked_for_again() {
    let liar = Liar::new(|mut stream, _head| async move {
        say(&mut stream, format!("{JSON_HEAD}content-length: 1000\r\n\r\n{{\"id\": ")).await;
    })
    .await;
    let error = get(&client(&liar.url, Wire::Spec)).await.unwrap_err();
    assert!(
        matches!(error, MicrosandboxError::Http(_))
            && error.to_string().contains("closed before the end of the response"),
        "{error:?}"
    );
    assert_eq!(liar.connections(), 1);
}

/// Each byte comes before a timeout of silence would fire: the limit is on the whole.
// hazard: C2
#[tokio::test]
async fn a_body_that_trickles_runs_into_the_timeout() {
    let liar = Liar::new(|mut stream, _head| async move {
        say(&mut stream, format!("{JSON_HEAD}content-length: 100000\r\n\r\n")).await;
        while say(&mut stream, " ").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let began = Instant::now();
    let error = get(&hasty(&liar.url, Duration::from_millis(400))).await.unwrap_err();
    assert!(error.to_string().contains("within 0.4 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

// hazard: C2
#[tokio::test]
async fn a_body_without_end_is_bounded() {
    for status in ["200 OK", "500 Internal Server Error"] {
        let liar = Liar::new(move |mut stream, _head| async move {
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
            say(&mut stream, head).await;
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            while say(&mut stream, &chunk).await {}
        })
        .await;
        let error = get(&client(&liar.url, Wire::Spec)).await.unwrap_err();
        match status {
            "200 OK" => assert!(error.to_string().contains("larger than"), "{error}"),
            _ => assert!(matches!(error, MicrosandboxError::CloudHttp { status: 500, .. }), "{error:?}"),
        }
        assert_eq!(liar.connections(), 1);
    }
}

// hazard: C2
#[tokio::test]
async fn json_that_is_deep_or_of_another_shape_is_a_named_error() {
    let bodies = ["[".repeat(200_000), r#"{"id":"#.repeat(50_000), "[]".into(), "null".into(), r#""text""#.into()];
    for body in bodies {
        let server = serving(ResponseTemplate::new(200).set_body_raw(body, "application/json")).await;
        let error = get(&client(&server.uri(), Wire::Spec)).await.unwrap_err();
        assert!(matches!(error, MicrosandboxError::Custom(_)), "{error:?}");
    }
    // Deep where anything goes: what describes a sandbox.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = answer("running").to_string().replace(r#"{"image":"alpine"}"#, &deep);
    let server = serving(ResponseTemplate::new(200).set_body_raw(body, "application/json")).await;
    assert!(matches!(get(&client(&server.uri(), Wire::Spec)).await, Err(MicrosandboxError::Custom(_))));
}

/// A stop or a removal is what its status says, whatever else comes.
#[tokio::test]
async fn bodies_that_do_not_matter_are_not_read_into() {
    for template in [
        ResponseTemplate::new(204),
        ResponseTemplate::new(200),
        ResponseTemplate::new(202).set_body_raw("<html>", "text/html"),
    ] {
        let server = serving(template).await;
        let backend = client(&server.uri(), Wire::Spec);
        soon(backend.sandboxes().stop("box")).await.unwrap();
        soon(Sandbox::remove(&backend, "box")).await.unwrap();
    }
}

/// A date that has passed is no pause; a negative number, a word or more seconds than a number holds: our own pause.
#[tokio::test]
async fn a_retry_after_that_says_no_pause_is_ours_to_choose() {
    for odd in ["Wed, 21 Oct 2015 07:28:00 GMT", "-5", "soon", "99999999999999999999999999"] {
        let server = MockServer::start().await;
        let busy = ResponseTemplate::new(503).insert_header("retry-after", odd);
        Mock::given(any()).respond_with(busy).up_to_n_times(1).mount(&server).await;
        let fine = ResponseTemplate::new(200).set_body_json(answer("running"));
        Mock::given(any()).respond_with(fine).mount(&server).await;
        let began = Instant::now();
        get(&client(&server.uri(), Wire::Spec)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn an_output_that_is_not_base64_is_a_named_error() {
    let body = json!({"exit_code": 0, "stdout": "***", "stderr": "", "stdout_total": 0, "stderr_total": 0});
    let liar = Liar::new(move |mut stream, _head| {
        let body = whole_answer(&body.to_string());
        async move {
            say(&mut stream, body).await;
        }
    })
    .await;
    let error = exec(&client(&liar.url, Wire::Flat), "true").await.unwrap_err();
    assert!(error.to_string().contains("not base64"), "{error}");
}
