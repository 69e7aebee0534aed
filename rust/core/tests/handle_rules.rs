//! What a handle does without its backend: cases 44 to 64 of the backends' specification, section 11.

use std::time::Duration;

use SandboxStatus::{Crashed, Created, Draining, Paused, Running, Starting, Stopped};
use microsandbox_core::model::SandboxStatus;
use microsandbox_core::{MicrosandboxError, SandboxHandle};

use crate::scripted::{Scripted, of, record, run};

const SOON: Option<Duration> = Some(Duration::from_millis(150));

// case: 45
#[test]
fn a_configuration_that_is_no_json_keeps_its_text() {
    let backend = Scripted::new(&[Some(Stopped)], None);
    let handle = SandboxHandle::new(backend.clone(), record(Stopped, "{broken".into()));
    assert!(handle.config().is_err_and(|error| error.to_string().contains("box")));
    assert_eq!(handle.config_json(), "{broken");
    assert_eq!(of(&backend, Stopped).config().unwrap().name, "box");
}

// case: 48, 55
#[test]
fn what_has_ended_is_stopped_without_asking() {
    run(async {
        for ended in [Stopped, Crashed] {
            let backend = Scripted::new(&[Some(ended)], None);
            let handle = of(&backend, Running);
            handle.stop(None).await.unwrap();
            handle.kill(None).await.unwrap();
            handle.request_stop().await.unwrap();
            handle.request_kill().await.unwrap();
            handle.request_drain().await.unwrap();
            assert_eq!(backend.asked(), [""; 0], "{ended:?}");
        }
    });
}

// case: 49
#[test]
fn a_stop_that_is_heard_needs_no_force() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], Some("stop"));
        of(&backend, Running).stop(None).await.unwrap();
        assert_eq!(backend.asked(), ["stop"]);
    });
}

// case: 50
#[test]
fn a_stop_that_is_not_heard_ends_in_a_kill() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], Some("kill"));
        of(&backend, Running).stop(SOON).await.unwrap();
        assert_eq!(backend.asked(), ["stop", "kill"]);
    });
}

// case: 51, 54
#[test]
fn surviving_a_kill_is_an_error_with_the_name() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], None);
        for done in [of(&backend, Running).kill(SOON).await, of(&backend, Running).stop(SOON).await] {
            let error = done.unwrap_err();
            assert!(matches!(error, MicrosandboxError::KillTimeout { .. }), "{error:?}");
            assert!(error.to_string().contains("box") && error.to_string().contains("after the kill"), "{error}");
        }
        assert_eq!(backend.asked(), ["kill", "stop", "kill"]);
    });
}

// case: 52
#[test]
fn a_stop_without_time_is_a_kill() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], Some("kill"));
        of(&backend, Running).stop(Some(Duration::ZERO)).await.unwrap();
        assert_eq!(backend.asked(), ["kill"]);
    });
}

// case: 53
#[test]
fn a_failed_query_while_waiting_is_reported() {
    run(async {
        let backend = Scripted::new(&[Some(Running), Some(Running), None], None);
        let error = of(&backend, Running).stop(None).await.unwrap_err();
        assert!(error.to_string().contains("the look failed"), "{error}");
        assert_eq!(backend.asked(), ["stop"]);
    });
}

// case: 55
#[test]
fn a_request_waits_for_no_end() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], None);
        let handle = of(&backend, Running);
        handle.request_stop().await.unwrap();
        handle.request_kill().await.unwrap();
        handle.request_drain().await.unwrap();
        assert_eq!(backend.asked(), ["stop", "kill", "drain"]);
    });
}

// case: 56
#[test]
fn waiting_for_what_has_ended_looks_once() {
    run(async {
        let backend = Scripted::new(&[Some(Crashed)], None);
        let result = of(&backend, Running).wait_until_stopped().await.unwrap();
        assert_eq!((result.name.as_str(), result.status, result.exit_code), ("box", Crashed, Some(3)));
        assert_eq!(result.source.as_deref(), Some("refreshed backend state"));
        assert_eq!(backend.looked.lock().unwrap().len(), 1);
        assert_eq!(backend.asked(), [""; 0]);
    });
}

// case: 57
#[test]
fn waiting_polls_every_tenth_of_a_second() {
    run(async {
        let backend = Scripted::new(&[Some(Running), Some(Running), Some(Running), Some(Stopped)], None);
        of(&backend, Running).wait_until_stopped().await.unwrap();
        let looked = backend.looked.lock().unwrap();
        assert_eq!(looked.len(), 4);
        // A busy machine looks later, never sooner.
        for pair in looked.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(95), "{:?}", pair[1] - pair[0]);
        }
    });
}

// case: 58
#[test]
fn connecting_goes_by_what_the_handle_saw() {
    run(async {
        let backend = Scripted::new(&[Some(Running)], None);
        for status in [Stopped, Crashed, Starting, Paused] {
            let error = of(&backend, status).connect(None).await.unwrap_err();
            assert!(
                matches!(&error, MicrosandboxError::SandboxNotRunning { name, status: reported } if name == "box" && *reported == status),
                "{error:?}"
            );
        }
        assert_eq!(backend.asked(), [""; 0]);
        let now = of(&backend, Stopped).refresh().await.unwrap();
        assert_eq!((now.status_snapshot(), of(&backend, Draining).status_snapshot()), (Running, Draining));
        for handle in [now, of(&backend, Draining)] {
            assert!(handle.connect(None).await.is_err_and(|error| error.to_string().contains("reached")));
        }
    });
}

// case: 64
#[test]
fn a_start_that_fails_leaves_the_handle_usable() {
    run(async {
        let backend = Scripted::new(&[Some(Stopped)], None);
        let handle = of(&backend, Stopped);
        assert!(handle.start(false).await.is_err_and(|error| error.to_string().contains("no room")));
        assert_eq!(handle.refresh().await.unwrap().status_snapshot(), Stopped);
        handle.remove().await.unwrap();
        assert_eq!(backend.asked(), ["start", "remove"]);
    });
}

// case: 101
#[test]
fn debug_output_shows_name_kind_and_status_only() {
    let backend = Scripted::new(&[Some(Running)], None);
    let handle = SandboxHandle::new(backend, record(Running, r#"{"env": "a-secret"}"#.into()));
    assert_eq!(format!("{handle:?}"), r#"SandboxHandle { name: "box", backend_kind: Local, status: Running }"#);
}

// case: 61
#[test]
fn what_is_live_is_not_removed() {
    for status in [Running, Draining, Paused] {
        assert!(status.blocks_remove(), "{status:?}");
    }
    for status in [Stopped, Crashed, Created, Starting] {
        assert!(!status.blocks_remove(), "{status:?}");
    }
}
