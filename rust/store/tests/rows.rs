//! What the rows of the state database do.

use std::collections::{BTreeMap, BTreeSet};

use crate::home::{Home, error_of, spec, timed};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{ImageConfigDetail, SandboxSpec, SandboxStatus};
use microsandbox_store::{ImageRecord, LayerRecord, RunEnd, Store};

fn labelled(name: &str, labels: &[(&str, &str)]) -> SandboxSpec {
    let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    SandboxSpec { labels, ..spec(name) }
}

async fn names(store: &Store, below: Option<i32>, limit: u32, labels: &[(&str, &str)]) -> (Vec<String>, Option<i32>) {
    let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let page = store.sandboxes(below, limit, &labels).await.unwrap();
    (page.rows.into_iter().map(|(row, _)| row.name).collect(), page.next)
}

// case: 47
#[test]
fn a_row_reads_back_as_it_was_written() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let before = chrono::Utc::now();
        let written = store.insert_sandbox(&spec("a"), SandboxStatus::Starting).await.unwrap();
        let (read, run) = store.sandbox("a").await.unwrap().unwrap();
        assert_eq!(read, written);
        assert_eq!(run, None);
        assert!(read.created_at.unwrap() >= before && read.created_at.unwrap() <= chrono::Utc::now());
        let stored: SandboxSpec = serde_json::from_str(&read.config_json).unwrap();
        assert_eq!(stored, spec("a"));
        assert!(store.sandbox("b").await.unwrap().is_none());
    });
}

#[test]
fn a_taken_name_is_refused_and_leaves_the_first_row_alone() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let first = store.insert_sandbox(&spec("a"), SandboxStatus::Created).await.unwrap();
        for again in [spec("a"), labelled("a", &[("k", "v")])] {
            let error = error_of(store.insert_sandbox(&again, SandboxStatus::Starting).await);
            assert!(matches!(&error, MicrosandboxError::SandboxAlreadyExists(name) if name == "a"), "{error:?}");
        }
        assert_eq!(store.sandbox("a").await.unwrap().unwrap().0, first);
        assert_eq!(names(&store, None, 10, &[("k", "v")]).await.0, Vec::<String>::new());
    });
}

#[test]
fn twenty_tasks_that_create_one_name_make_one_row() {
    timed(async {
        let home = Home::new();
        let (one, two) = (home.open().await.unwrap(), home.open().await.unwrap());
        let spec = spec("contended");
        let attempts = (0..20).map(|n| {
            let store = if n % 2 == 0 { &one } else { &two };
            store.insert_sandbox(&spec, SandboxStatus::Starting)
        });
        let results = futures::future::join_all(attempts).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for error in results.into_iter().filter_map(Result::err) {
            assert!(matches!(error, MicrosandboxError::SandboxAlreadyExists(_)), "{error:?}");
        }
    });
}

#[test]
fn list_filters_by_all_labels_and_pages_newest_first() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        for n in 0..5 {
            let tier = if n % 2 == 0 { "even" } else { "odd" };
            store
                .insert_sandbox(&labelled(&format!("s{n}"), &[("tier", tier), ("x", "")]), SandboxStatus::Created)
                .await
                .unwrap();
        }
        let (first, next) = names(&store, None, 2, &[]).await;
        assert_eq!(first, ["s4", "s3"]);
        let (second, next) = names(&store, next, 2, &[]).await;
        assert_eq!(second, ["s2", "s1"]);
        let (last, next) = names(&store, next, 2, &[]).await;
        assert_eq!((last, next), (vec!["s0".to_string()], None));
        assert_eq!(names(&store, None, 5, &[]).await.1, None, "exactly full is not more");
        assert_eq!(names(&store, None, 2, &[("tier", "even")]).await.0, ["s4", "s2"]);
        assert_eq!(names(&store, None, 9, &[("tier", "even"), ("x", "")]).await.0, ["s4", "s2", "s0"]);
        assert_eq!(names(&store, None, 9, &[("tier", "even"), ("x", "y")]).await.0, Vec::<String>::new());
    });
}

#[test]
fn status_changes_only_from_an_expected_one() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let id = store.insert_sandbox(&spec("a"), SandboxStatus::Starting).await.unwrap().id;
        assert!(!store.set_status(id, &[SandboxStatus::Running], SandboxStatus::Stopped).await.unwrap());
        assert!(
            store
                .set_status(id, &[SandboxStatus::Created, SandboxStatus::Starting], SandboxStatus::Running)
                .await
                .unwrap()
        );
        assert!(store.set_status(id, &[], SandboxStatus::Draining).await.unwrap());
        assert_eq!(store.sandbox("a").await.unwrap().unwrap().0.status, SandboxStatus::Draining);
        assert!(!store.set_status(id + 1, &[], SandboxStatus::Stopped).await.unwrap());
    });
}

#[test]
fn the_newest_run_is_shown_and_its_end_recorded() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let id = store.insert_sandbox(&spec("a"), SandboxStatus::Starting).await.unwrap().id;
        let first = store.begin_run(id, 101, SandboxStatus::Running).await.unwrap();
        store.end_run(id, RunEnd { exit_code: Some(3), ..RunEnd::default() }, SandboxStatus::Stopped).await.unwrap();
        let second = store.begin_run(id, 102, SandboxStatus::Running).await.unwrap();
        assert!(second > first);
        let (row, run) = store.sandbox("a").await.unwrap().unwrap();
        let run = run.unwrap();
        assert_eq!((row.status, run.id, run.pid, run.active), (SandboxStatus::Running, second, Some(102), true));
        let end = RunEnd {
            exit_code: None,
            exit_signal: Some(9),
            reason: Some(microsandbox_contract::ExitReason::Signal),
            detail: Some("killed".into()),
            signals_sent: Some("TERM KILL".into()),
        };
        store.end_run(id, end, SandboxStatus::Crashed).await.unwrap();
        let (row, run) = store.sandbox("a").await.unwrap().unwrap();
        let run = run.unwrap();
        assert_eq!(
            (row.status, run.active, run.exit_code, run.exit_signal),
            (SandboxStatus::Crashed, false, None, Some(9))
        );
        assert_eq!(
            (run.termination_reason.as_deref(), run.termination_detail.as_deref()),
            (Some("Signal"), Some("killed"))
        );
        assert!(run.terminated_at.unwrap() >= run.started_at.unwrap());
    });
}

#[test]
fn a_run_of_a_sandbox_that_is_gone_is_refused() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let error = error_of(store.begin_run(7, 1, SandboxStatus::Running).await);
        assert!(matches!(error, MicrosandboxError::SandboxNotFound(_)), "{error:?}");
        store.end_run(7, RunEnd::default(), SandboxStatus::Stopped).await.unwrap();
    });
}

#[test]
fn delete_takes_labels_and_runs_along() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let id = store.insert_sandbox(&labelled("a", &[("k", "v")]), SandboxStatus::Created).await.unwrap().id;
        store.begin_run(id, 1, SandboxStatus::Running).await.unwrap();
        assert!(store.delete_sandbox(id).await.unwrap());
        assert!(!store.delete_sandbox(id).await.unwrap());
        let again = store.insert_sandbox(&spec("a"), SandboxStatus::Created).await.unwrap();
        assert!(again.id > id, "a number is never used for a second sandbox");
        assert_eq!(names(&store, None, 9, &[("k", "v")]).await.0, Vec::<String>::new());
        assert_eq!(store.sandbox("a").await.unwrap().unwrap().1, None);
    });
}

#[test]
fn a_changed_specification_replaces_configuration_and_labels() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let id = store.insert_sandbox(&labelled("a", &[("old", "1")]), SandboxStatus::Created).await.unwrap().id;
        let mut changed = labelled("a", &[("new", "2")]);
        changed.lifecycle.ephemeral = true;
        store.update_spec(id, &changed).await.unwrap();
        let row = store.sandbox("a").await.unwrap().unwrap().0;
        assert!(row.ephemeral);
        assert_eq!(serde_json::from_str::<SandboxSpec>(&row.config_json).unwrap(), changed);
        assert_eq!(names(&store, None, 9, &[("old", "1")]).await.0, Vec::<String>::new());
        assert_eq!(names(&store, None, 9, &[("new", "2")]).await.0, ["a"]);
        assert!(matches!(error_of(store.update_spec(id + 1, &changed).await), MicrosandboxError::SandboxNotFound(_)));
    });
}

fn layer(name: &str) -> LayerRecord {
    LayerRecord {
        diff_id: format!("sha256:{name}"),
        blob_digest: format!("sha256:blob-{name}"),
        media_type: Some("application/vnd.oci.image.layer.v1.tar+gzip".into()),
        compressed_size: 10,
        unpacked_size: 30,
    }
}

fn image(digest: &str, references: &[&str], layers: &[&str]) -> ImageRecord {
    ImageRecord {
        references: references.iter().map(|reference| reference.to_string()).collect(),
        digest: digest.into(),
        media_type: None,
        architecture: Some("amd64".into()),
        os: Some("linux".into()),
        variant: None,
        config: ImageConfigDetail {
            digest: format!("config-of-{digest}"),
            env: vec!["PATH=/bin".into()],
            cmd: Some(vec!["sh".into()]),
            entrypoint: None,
            working_dir: Some("/srv".into()),
            user: None,
            labels: Some([("maintainer".to_string(), "x".to_string())].into()),
            stop_signal: Some("SIGINT".into()),
        },
        layers: layers.iter().map(|name| layer(name)).collect(),
    }
}

#[test]
fn an_image_reads_back_with_its_layers_in_order() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        // One layer twice is legal: an empty layer often is.
        let record = image("m1", &["app:1", "app:latest"], &["base", "top", "base"]);
        let infos = store.upsert_image(&record).await.unwrap();
        assert_eq!(infos.iter().map(|info| info.reference.as_str()).collect::<Vec<_>>(), ["app:1", "app:latest"]);
        assert_eq!((infos[0].layer_count, infos[0].size_bytes), (3, Some(90)));
        let detail = store.image("app:latest").await.unwrap().unwrap();
        assert_eq!(detail.config, Some(record.config));
        let order: Vec<&str> = detail.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        assert_eq!(order, ["sha256:base", "sha256:top", "sha256:base"]);
        assert_eq!(store.images().await.unwrap().len(), 2);
        assert!(store.image("app:2").await.unwrap().is_none());
        // The same import again changes nothing.
        store.upsert_image(&image("m1", &["app:1"], &["base", "top", "base"])).await.unwrap();
        assert_eq!(store.images().await.unwrap().len(), 2);
        assert_eq!(store.image("app:1").await.unwrap().unwrap().layers.len(), 3);
    });
}

#[test]
fn layers_are_freed_once_neither_name_nor_sandbox_needs_them() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        store.upsert_image(&image("m1", &["app:latest"], &["base", "old"])).await.unwrap();
        let id = store.insert_sandbox(&spec("a"), SandboxStatus::Created).await.unwrap().id;
        store.set_rootfs(id, Some("m1"), "erofs").await.unwrap();
        store.set_rootfs(id, Some("m1"), "erofs").await.unwrap();
        assert_eq!(store.image_users("m1").await.unwrap(), ["a"]);
        // The reference moves; the sandbox still needs the old layers.
        store.upsert_image(&image("m2", &["app:latest"], &["base", "new"])).await.unwrap();
        let (none, kept) = (BTreeSet::new(), BTreeSet::from(["m2".to_owned()]));
        assert!(store.remove_images(&[], &none).await.unwrap().is_empty());
        // One that an operation is using stays without its name.
        assert!(store.remove_images(&["app:latest".into()], &kept).await.unwrap().is_empty());
        assert!(store.image("app:latest").await.unwrap().is_none());
        let freed = store.remove_images(&["app:latest".into()], &none).await.unwrap();
        assert_eq!(freed, ["sha256:new"]);
        assert!(store.image("app:latest").await.unwrap().is_none());
        assert!(store.remove_images(&["app:latest".into()], &none).await.unwrap().is_empty());
        store.delete_sandbox(id).await.unwrap();
        let mut freed = store.remove_images(&[], &none).await.unwrap();
        freed.sort();
        assert_eq!(freed, ["sha256:base", "sha256:old"]);
        assert!(store.remove_images(&[], &none).await.unwrap().is_empty());
    });
}

#[test]
fn a_root_file_system_needs_a_known_manifest_or_none() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let id = store.insert_sandbox(&spec("a"), SandboxStatus::Created).await.unwrap().id;
        let error = error_of(store.set_rootfs(id, Some("sha256:unknown"), "erofs").await);
        assert!(matches!(error, MicrosandboxError::ImageNotFound(_)), "{error:?}");
        store.set_rootfs(id, None, "bind").await.unwrap();
    });
}

#[test]
fn a_dropped_write_is_rolled_back_and_the_next_one_works() {
    timed(async {
        let home = Home::new();
        let store = home.open().await.unwrap();
        let spec = labelled("dropped", &[("k", "v")]);
        for micros in (0..400).step_by(20) {
            let write = store.insert_sandbox(&spec, SandboxStatus::Created);
            let _ = tokio::time::timeout(std::time::Duration::from_micros(micros), write).await;
            if let Some((row, _)) = store.sandbox("dropped").await.unwrap() {
                assert_eq!(names(&store, None, 9, &[("k", "v")]).await.0, ["dropped"], "row without its labels");
                store.delete_sandbox(row.id).await.unwrap();
            }
        }
        store.insert_sandbox(&spec, SandboxStatus::Created).await.unwrap();
    });
}
