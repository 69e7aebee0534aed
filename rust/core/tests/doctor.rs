//! The doctor on this machine: true, complete, and without traces.

mod archive;

use archive::{Home, in_time, names};
use microsandbox_core::backend::local::doctor::doctor;
use microsandbox_core::model::{Isolation, MechanismState};

#[tokio::test]
async fn e14_the_doctor_tells_what_container_isolation_has_here() {
    in_time(async {
        let home = Home::new();
        let report = doctor(&home.backend, true).await.unwrap();
        assert_eq!(report.isolation, Isolation::Container);
        let reason = report.reason.unwrap();
        assert!(reason.contains("no microVM driver yet"), "{reason}");
        for name in [
            "kvm",
            "microvm_driver",
            "user_namespace",
            "seccomp",
            "memory_limit",
            "identities",
            "file_system",
            "disk_space",
        ] {
            let check = report.checks.iter().find(|check| check.name == name);
            let check = check.unwrap_or_else(|| panic!("no check named {name}: {:?}", report.checks));
            assert!(!check.detail.is_empty(), "{name}");
        }
        let driver = report.checks.iter().find(|check| check.name == "microvm_driver").unwrap();
        assert_eq!(driver.state, MechanismState::Off, "nothing is promised that is not there");
        for check in &report.checks {
            assert!(check.state != MechanismState::Degraded || check.detail != "works", "{check:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_doctor_leaves_nothing_in_the_home() {
    in_time(async {
        let home = Home::new();
        doctor(&home.backend, false).await.unwrap();
        let mut left = names(&home.backend.config().home);
        left.retain(|name| name != "idmap.json");
        assert!(left.is_empty(), "{left:?}");
    })
    .await;
}
