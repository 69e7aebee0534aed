//! Documents as other versions write them, and the texts that files, the database and users see.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "functions that tests share are tests")]

mod fuzz;

use microsandbox_contract::{
    BootError, ExitReason, ExitRecord, Identity, IsolationDriver, MechanismName, MechanismState, Stage, Step,
};

const RUNTIME: &str = r#"{"pid":7,"start_time":9,"boot_id":"b"}"#;

fn identity(driver: &str, mechanism: &str, state: &str) -> Identity {
    let text = format!(
        r#"{{"runtime":{RUNTIME},"init":{RUNTIME},"driver":"{driver}","cgroups":["/g"],"started_at_ms":1,
            "isolation":{{"driver":"{driver}","accelerator":"{driver}","mechanisms":[
                {{"name":"{mechanism}","state":"{state}","reason":"why"}}]}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

#[test]
fn identity_with_unknown_values_is_still_read() {
    let identity = identity("hypervisor", "enclave", "attested");
    assert_eq!((identity.runtime.pid, identity.driver), (7, IsolationDriver::Unknown));
    let mechanism = &identity.isolation.mechanisms[0];
    assert_eq!((mechanism.name, mechanism.state), (MechanismName::Unknown, MechanismState::Degraded));
    assert_eq!(mechanism.reason.as_deref(), Some("enclave: why"));
    // Written and read again, nothing is added.
    let again: Identity = serde_json::from_str(&serde_json::to_string(&identity).unwrap()).unwrap();
    assert_eq!(again, identity);
}

#[test]
fn identity_of_an_earlier_version_keeps_its_values() {
    let identity = identity("container", "id_range", "off");
    assert_eq!(identity.driver, IsolationDriver::Container);
    let mechanism = &identity.isolation.mechanisms[0];
    assert_eq!((mechanism.name, mechanism.state), (MechanismName::IdRange, MechanismState::Off));
    assert_eq!(mechanism.reason.as_deref(), Some("why"));
}

#[test]
fn exit_record_with_an_unknown_reason_is_a_crash_that_names_it() {
    let text = format!(r#"{{"reason":"Evicted","detail":"by hand","at_ms":1,"runtime":{RUNTIME}}}"#);
    let record: ExitRecord = serde_json::from_str(&text).unwrap();
    assert!(record.reason == ExitReason::Unknown && !record.reason.is_orderly());
    assert_eq!(record.detail.as_deref(), Some("Evicted: by hand"));
}

#[test]
fn boot_error_of_another_version_is_still_read() {
    let text = r#"{"t":1,"stage":"attest","step":"ask the chip","message":"m","hint":"h"}"#;
    let error: BootError = serde_json::from_str(text).unwrap();
    assert_eq!((error.stage, error.step), (Stage::Other, Step::Unknown));
}

/// These texts are on disks and in programs of users: a change here is a change of the product.
#[test]
fn texts_are_those_of_every_version_before() {
    let reasons = [
        "Completed",
        "Failed",
        "MaxDurationExceeded",
        "IdleTimeout",
        "AgentUnresponsive",
        "ShutdownRequested",
        "DrainRequested",
        "Signal",
        "InternalError",
    ];
    for text in reasons {
        assert!(ExitReason::parse(text) != ExitReason::Unknown && ExitReason::parse(text).as_str() == text);
    }
    for text in ["config", "image", "mount", "network", "build_vm", "agent", "other"] {
        assert_eq!(serde_json::to_value(Stage::parse(text)).unwrap(), text);
    }
    for step in Step::ALL {
        assert_eq!(serde_json::to_value(step).unwrap(), step.as_str());
        assert_eq!(Step::parse(step.as_str()), *step);
    }
}
