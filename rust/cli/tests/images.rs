//! Images and the doctor, with a backend of fixed results.

use crate::support::fixed_backend::{FixedBackend, report};
use crate::support::{msb, msb_with_input, snapshot};
use microsandbox_core::model::Isolation;

#[test]
fn tables_and_json_of_images_match_their_snapshots() {
    let backend = FixedBackend::new().backend();
    let table = msb(&backend, &["images"]);
    assert_eq!((table.code, table.err.as_str()), (0, ""));
    // The age grows; everything else is fixed.
    let header_and_row: Vec<&str> = table.out.lines().map(|line| line.split("   ").next().unwrap()).collect();
    assert_eq!(header_and_row, ["REFERENCE", "docker.io/library/debian:12"]);
    assert!(table.out.contains("sha256:0123456789ab   1        45.8 MiB"), "{}", table.out);
    snapshot("images-json", &msb(&backend, &["images", "--format", "json"]).page());
    snapshot("image-inspect", &msb(&backend, &["image", "inspect", "docker.io/library/debian:12"]).page());
    snapshot(
        "image-inspect-json",
        &msb(&backend, &["image", "inspect", "docker.io/library/debian:12", "--format", "json"]).page(),
    );
    snapshot("image-prune", &msb(&backend, &["image", "prune", "-y"]).page());
    snapshot("image-prune-json", &msb(&backend, &["image", "prune", "-y", "--format", "json"]).page());
    assert_eq!(msb(&backend, &["image", "ls", "-q"]).out, "docker.io/library/debian:12\n");
    assert_eq!(msb(&backend, &["image", "list"]), table);
}

#[test]
fn image_errors_have_hints() {
    let backend = FixedBackend::new().backend();
    snapshot("error-image-not-found", &msb(&backend, &["image", "inspect", "nowhere"]).page());
    snapshot("error-image-in-use", &msb(&backend, &["image", "rm", "one", "two"]).page());
    let forced = msb(&backend, &["image", "rm", "-f", "one", "two"]);
    assert_eq!((forced.code, forced.out.as_str()), (0, "one\ntwo\n"));
}

#[test]
fn an_archive_comes_from_a_file_or_from_standard_input() {
    let shop = FixedBackend::new();
    let file = std::env::temp_dir().join(format!("msb-cli-test-{}.tar", std::process::id()));
    std::fs::write(&file, b"archive").unwrap();
    let ran = msb(&shop.backend(), &["load", "-i", file.to_str().unwrap(), "-t", "mine"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "docker.io/library/debian:12\n", ""));
    assert_eq!(shop.loaded.lock().unwrap().take(), Some((b"archive".to_vec(), Some("mine".into()))));

    let ran = msb_with_input(|| shop.backend(), &["image", "load"], b"piped");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(shop.loaded.lock().unwrap().take(), Some((b"piped".to_vec(), None)));

    assert_eq!(msb(&shop.backend(), &["load", "-i", "/no/such/archive"]).code, 1);
}

#[test]
fn the_doctor_fails_where_the_required_isolation_is_missing() {
    let mut shop = FixedBackend::new();
    let ran = msb(&shop.backend(), &["doctor"]);
    assert_eq!(ran.code, 0);
    snapshot("doctor-container", &ran.page());
    snapshot("doctor-container-json", &msb(&shop.backend(), &["doctor", "--format", "json"]).page());
    assert_eq!(msb(&shop.backend(), &["doctor", "--require-microvm"]).code, 1);
    assert_eq!(msb(&shop.backend(), &["self", "check"]), ran);

    shop.report = report(Isolation::Container, Some("user namespaces are disabled"));
    let ran = msb(&shop.backend(), &["doctor"]);
    assert_eq!(ran.code, 1);
    snapshot("doctor-nothing-works", &ran.page());

    shop.report = report(Isolation::Microvm, None);
    assert_eq!(msb(&shop.backend(), &["doctor", "--require-microvm"]).code, 0);
}
