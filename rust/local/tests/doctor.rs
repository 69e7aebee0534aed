//! The doctor on this machine: true, complete, and without traces.

use crate::archive::{Home, in_time, names};
use microsandbox_core::model::{Isolation, MechanismState};
use microsandbox_local::doctor::doctor;

// hazard: E14
#[tokio::test]
async fn the_doctor_reports_container_isolation() {
    in_time(async {
        let home = Home::new();
        let report = doctor(&home, true).await.unwrap();
        assert_eq!(report.isolation, Isolation::Container);
        assert!(!report.reason.unwrap().is_empty() && !report.hint.unwrap().is_empty());
        for name in [
            "kvm",
            "libkrunfw",
            "microvm",
            "user_namespace",
            "seccomp",
            "memory_limit",
            "identities",
            "file_system",
            "disk_space",
            "strays",
        ] {
            let check = report.checks.iter().find(|check| check.name == name);
            let check = check.unwrap_or_else(|| panic!("no check named {name}: {:?}", report.checks));
            assert!(!check.detail.is_empty(), "{name}");
        }
        let microvm = report.checks.iter().find(|check| check.name == "microvm").unwrap();
        assert_eq!(microvm.state, MechanismState::Off, "nothing is promised that is not there");
        let rungs: Vec<&str> = report.libkrunfw.iter().map(|rung| rung.rung.as_str()).collect();
        assert_eq!(rungs[..3], ["MSB_LIBKRUNFW_PATH", "set_libkrunfw_path", "paths.libkrunfw"]);
        assert!(rungs.contains(&"system") && rungs.last() == Some(&"home"), "{rungs:?}");
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
        doctor(&home, false).await.unwrap();
        let mut left = names(&home.config().home);
        left.retain(|name| name != "idmap.json");
        assert!(left.is_empty(), "{left:?}");
    })
    .await;
}
