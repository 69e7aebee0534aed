//! Archives that are imported: what is in the cache and in the store afterwards.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::archive::*;
use microsandbox_core::error::ImageErrorKind::{CorruptLayer, DigestMismatch, UnsafeEntry};
use microsandbox_core::model::{ImageDetail, ImageProgress, SandboxSpec, SandboxStatus};
use microsandbox_core::{MicrosandboxError, MicrosandboxResult};
use microsandbox_images as images;
use serde_json::json;

fn base() -> Layer {
    Layer::gzip(&[("etc/os-release", b"ID=test\n"), ("usr/bin/tool", b"#!/bin/sh\n")])
}

fn upper() -> Layer {
    Layer::plain(&[("srv/app", b"print(1)")])
}

async fn dirs(home: &Home, reference: &str) -> Vec<std::path::PathBuf> {
    images::resolve(home, reference, "test".into()).await.unwrap().layer_dirs
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn an_oci_archive_becomes_layers_and_an_image() {
    in_time(async {
        let home = Home::new();
        let archive = home.file("image.tar", &Layout::of("test/app:1", &[base(), upper()]).archive());
        let infos = home.load(&archive).await.unwrap();
        assert_eq!(infos.iter().map(|info| info.reference.as_str()).collect::<Vec<_>>(), ["test/app:1"]);
        assert_eq!((infos[0].layer_count, infos[0].os.as_deref()), (2, Some("linux")));
        let dirs = dirs(&home, "docker.io/test/app:1").await;
        assert_eq!(text(&dirs[0].join("etc/os-release")), "ID=test\n");
        assert_eq!(text(&dirs[1].join("srv/app")), "print(1)");
        let detail: ImageDetail = images::inspect(&home, "test/app:1").await.unwrap();
        let config = detail.config.unwrap();
        assert_eq!((config.env, config.user.as_deref()), (vec!["A=1".to_owned()], Some("1000")));
        assert_eq!(detail.layers[0].diff_id, base().diff_id());
        assert!(detail.layers.iter().all(|layer| layer.erofs_size_bytes.is_some_and(|size| size > 0)));
        home.assert_nothing_half_made();
    })
    .await;
}

#[tokio::test]
async fn a_docker_archive_is_the_same_image_each_time() {
    in_time(async {
        let home = Home::new();
        let bytes = docker_archive(&["app:1", "app:latest"], &[base(), upper()]);
        let first = home.load(&home.file("image.tar", &bytes)).await.unwrap();
        let again = home.load(&home.file("image.tar.gz", &gzip(&bytes))).await.unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(first[0].manifest_digest, again[0].manifest_digest);
        assert_eq!(home.layer_count(), 2);
        assert_eq!(text(&dirs(&home, "app").await[1].join("srv/app")), "print(1)");
    })
    .await;
}

#[tokio::test]
async fn compressed_archives_and_layers_of_every_kind() {
    in_time(async {
        let home = Home::new();
        let layers = [base(), upper(), Layer::zstd(&[("srv/more", b"z")])];
        let bytes = Layout::of("kinds", &layers).archive();
        for (name, packed) in [("a.tar", bytes.clone()), ("a.tar.gz", gzip(&bytes)), ("a.tar.zst", zstd(&bytes))] {
            home.load(&home.file(name, &packed)).await.unwrap();
        }
        assert_eq!(text(&dirs(&home, "kinds").await[2].join("srv/more")), "z");
        home.assert_nothing_half_made();
    })
    .await;
}

#[tokio::test]
async fn the_names_of_a_layout_beside_a_docker_manifest_count() {
    in_time(async {
        let home = Home::new();
        let layers = [base()];
        let mut layout = Layout::of("", &layers);
        let config = sha256(config(&layers).to_string().as_bytes());
        let name = format!("blobs/sha256/{}", &config["sha256:".len()..]);
        let manifest = json!([{"Config": name, "RepoTags": ["both:2"], "Layers": ["unused"]}]).to_string();
        layout.files.insert("manifest.json".into(), manifest.into_bytes());
        let infos = home.load(&home.file("image.tar", &layout.archive())).await.unwrap();
        assert_eq!(infos[0].reference, "both:2");
    })
    .await;
}

#[tokio::test]
async fn names_from_the_caller_and_from_nowhere() {
    in_time(async {
        let home = Home::new();
        let archive = home.file("image.tar", &Layout::of("", &[base()]).archive());
        let infos = home.load(&archive).await.unwrap();
        assert!(infos[0].reference.starts_with("imported:"), "{}", infos[0].reference);
        let infos = home.load_tagged(&archive, "mine").await.unwrap();
        assert_eq!(infos[0].reference, "mine");
        for spelling in ["mine", "mine:latest", "docker.io/library/mine", "library/mine:latest"] {
            assert_eq!(images::get(&home, spelling).await.unwrap().reference, "mine", "{spelling}");
        }
        let digest = infos[0].manifest_digest.clone().unwrap();
        assert!(images::get(&home, &digest).await.is_ok());
        assert!(images::get(&home, &format!("mine@{digest}")).await.is_ok());
        let other = format!("mine@sha256:{}", "0".repeat(64));
        assert!(matches!(images::get(&home, &other).await, Err(MicrosandboxError::ImageNotFound(_))));
        assert!(matches!(home.load_tagged(&archive, "host").await, Err(MicrosandboxError::InvalidConfig(_))));
    })
    .await;
}

#[tokio::test]
async fn a_name_in_another_spelling_moves() {
    in_time(async {
        let home = Home::new();
        home.load(&home.file("one.tar", &Layout::of("app", &[base()]).archive())).await.unwrap();
        home.load(&home.file("two.tar", &Layout::of("docker.io/library/app:latest", &[upper()]).archive()))
            .await
            .unwrap();
        let listed = images::list(&home).await.unwrap();
        assert_eq!(listed.iter().map(|i| i.reference.as_str()).collect::<Vec<_>>(), ["docker.io/library/app:latest"]);
        assert!(dirs(&home, "app").await[0].join("srv/app").exists());
    })
    .await;
}

#[tokio::test]
async fn a_nested_index_gives_the_image_for_this_machine() {
    in_time(async {
        let home = Home::new();
        let mut layout = Layout::default();
        let mut foreign = layout.image("", &[base()]);
        foreign["platform"] = json!({"architecture": "vax", "os": "linux"});
        let mut attestation = foreign.clone();
        attestation["platform"] = json!({"architecture": "unknown", "os": "unknown"});
        let mut ours = layout.image("", &[upper()]);
        ours["platform"] = json!({"architecture": architecture(), "os": "linux", "variant": "v1"});
        let inner = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [attestation, foreign, ours]});
        let (digest, size) = layout.blob(inner.to_string().as_bytes());
        let name =
            json!({"io.containerd.image.name": "docker.io/library/many:3", "org.opencontainers.image.ref.name": "3"});
        layout.index = vec![json!({"mediaType": OCI_INDEX, "digest": digest, "size": size, "annotations": name})];
        let infos = home.load(&home.file("image.tar", &layout.archive())).await.unwrap();
        assert_eq!(infos[0].reference, "docker.io/library/many:3");
        assert!(dirs(&home, "many:3").await[0].join("srv/app").exists());
        assert_eq!(home.layer_count(), 1, "the other machine's layer is not unpacked");
    })
    .await;
}

// hazard: I11
#[tokio::test]
async fn wrong_layer_content_never_enters_the_cache() {
    in_time(async {
        let home = Home::new();
        let mut wrong = Layout::of("x", &[upper()]);
        let name = format!("blobs/sha256/{}", &sha256(&upper().blob)["sha256:".len()..]);
        // In the content of the file, so that the tar stays a tar.
        wrong.files.get_mut(&name).unwrap()[512] ^= 1;
        home.refuses(wrong.archive(), DigestMismatch).await;
        home.load(&home.file("right.tar", &Layout::of("x", &[upper()]).archive())).await.unwrap();
        assert_eq!(home.layer_count(), 1);
    })
    .await;
}

// hazard: I11
#[tokio::test]
async fn a_wrong_diff_id_is_refused() {
    in_time(async {
        let home = Home::new();
        for layer in [base(), upper()] {
            let layers = [layer];
            let mut config = config(&layers);
            config["rootfs"]["diff_ids"] = json!([format!("sha256:{}", "0".repeat(64))]);
            let mut layout = Layout::default();
            layout.image_with("x", &layers, config, |_| {});
            home.refuses(layout.archive(), DigestMismatch).await;
        }
    })
    .await;
}

// hazard: L1
#[tokio::test]
async fn one_bad_layer_of_three_leaves_none() {
    in_time(async {
        let home = Home::new();
        let broken = Layer { blob: gzip(b"no tar at all"), tar: b"no tar at all".to_vec(), suffix: "+gzip" };
        home.refuses(Layout::of("x", &[base(), upper(), broken]).archive(), CorruptLayer).await;
        let path = tar_with_name("../../escape");
        let escape = Layer { blob: path.clone(), tar: path, suffix: "" };
        home.refuses(Layout::of("x", &[base(), escape]).archive(), UnsafeEntry).await;
    })
    .await;
}

/// A tar with one file of a name that the writer would not accept.
fn tar_with_name(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(0);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend([0; 1024]);
    bytes
}

// hazard: L2
#[tokio::test]
async fn the_same_archive_by_many_concurrently() {
    in_time(async {
        let home = Home::new();
        let archive = home.file("image.tar", &Layout::of("app", &[base(), upper()]).archive());
        let backends: Vec<_> = (0..4).map(|_| home.second()).collect();
        let loads = backends.iter().map(|backend| images::load(backend, &archive, None, None));
        let results: Vec<MicrosandboxResult<_>> = futures::future::join_all(loads).await;
        for result in results {
            result.unwrap();
        }
        assert_eq!(home.layer_count(), 2);
        home.assert_nothing_half_made();
    })
    .await;
}

// hazard: L1
#[tokio::test]
async fn what_a_killed_import_left_is_swept_by_the_next() {
    in_time(async {
        let home = Home::new();
        let archive = home.file("image.tar", &Layout::of("app", &[base()]).archive());
        home.load(&archive).await.unwrap();
        let dead = home.layers_dir().join(".tmp-dead");
        std::fs::create_dir_all(dead.join("0/etc")).unwrap();
        let live = home.layers_dir().join(".tmp-live");
        std::fs::create_dir_all(&live).unwrap();
        let lock = std::fs::File::create(live.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        home.load(&archive).await.unwrap();
        assert!(!dead.exists() && live.exists());
    })
    .await;
}

// hazard: L1
#[tokio::test]
async fn a_cancelled_import_leaves_all_or_nothing() {
    in_time(async {
        let home = Home::new();
        let big = vec![7; 4 << 20];
        let layers: Vec<Layer> = (0..4).map(|i| Layer::gzip(&[(&format!("f{i}"), &big)])).collect();
        let archive = home.file("image.tar", &Layout::of("app", &layers).archive());
        for millis in [1, 3, 10, 30] {
            let load = home.load(&archive);
            // Whether it is done by then does not matter: what counts is what is there. Layers are there before their image is.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(millis), load).await;
            let there = (home.layer_count(), images::list(&home).await.unwrap().len());
            assert!(matches!(there, (0, 0) | (4, 0 | 1)), "layers and images of a cancelled import: {there:?}");
        }
        home.load(&archive).await.unwrap();
        assert_eq!(home.layer_count(), 4);
        images::prune(&home, Default::default()).await.unwrap();
        home.assert_nothing_half_made();
    })
    .await;
}

// hazard: I13
#[tokio::test]
async fn more_layers_than_one_process_opens() {
    in_time(async {
        let home = Home::new();
        let layers: Vec<Layer> =
            (0..130).map(|i| Layer::plain(&[(&format!("layer/{i}"), i.to_string().as_bytes())])).collect();
        home.load(&home.file("image.tar", &Layout::of("deep", &layers).archive())).await.unwrap();
        let dirs = dirs(&home, "deep").await;
        assert_eq!(dirs.len(), 130);
        assert_eq!(text(&dirs[129].join("layer/129")), "129");
    })
    .await;
}

// hazard: I13
#[tokio::test]
async fn one_layer_twice_and_on_two_bases() {
    in_time(async {
        let home = Home::new();
        home.load(&home.file("a.tar", &Layout::of("a", &[base(), upper(), base()]).archive())).await.unwrap();
        let twice = dirs(&home, "a").await;
        assert!(twice.len() == 3 && twice[0] != twice[2]);
        home.load(&home.file("b.tar", &Layout::of("b", &[base(), upper()]).archive())).await.unwrap();
        assert_eq!(dirs(&home, "b").await, twice[..2]);
        assert_eq!(home.layer_count(), 3);
    })
    .await;
}

#[tokio::test]
async fn removal_frees_what_nothing_needs() {
    in_time(async {
        let home = Home::new();
        home.load(&home.file("a.tar", &Layout::of("a", &[base(), upper()]).archive())).await.unwrap();
        home.load(&home.file("b.tar", &Layout::of("b", &[base()]).archive())).await.unwrap();
        images::remove(&home, "a:latest", false).await.unwrap();
        assert_eq!(home.layer_count(), 1);
        assert!(matches!(images::get(&home, "a").await, Err(MicrosandboxError::ImageNotFound(_))));
        assert!(matches!(images::remove(&home, "a", false).await, Err(MicrosandboxError::ImageNotFound(_))));
        let report = images::prune(&home, Default::default()).await.unwrap();
        assert_eq!((report.image_refs_removed, report.layers_removed), (1, 1));
        assert!(report.bytes_reclaimed.unwrap() > 0);
        assert_eq!(home.layer_count(), 0);
        home.assert_nothing_half_made();
    })
    .await;
}

/// A directory of another id, which no other user may enter, with a file in it.
fn private_layer() -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, mode) in
        [("home/joe/", tar::EntryType::Directory, 0o700), ("home/joe/key", tar::EntryType::Regular, 0o400)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_size(0);
        builder.append_data(&mut header, name, &b""[..]).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    Layer { blob: tar.clone(), tar, suffix: "" }
}

#[tokio::test]
async fn files_of_other_ids_are_removed_too() {
    in_time(async {
        let home = Home::new();
        let broken = Layer { blob: gzip(b"no tar at all"), tar: b"no tar at all".to_vec(), suffix: "+gzip" };
        home.refuses(Layout::of("x", &[private_layer(), broken]).archive(), CorruptLayer).await;
        home.load(&home.file("a.tar", &Layout::of("a", &[private_layer()]).archive())).await.unwrap();
        images::remove(&home, "a", false).await.unwrap();
        assert_eq!(home.layer_count(), 0);
        home.assert_nothing_half_made();
    })
    .await;
}

#[tokio::test]
async fn an_image_in_use_keeps_its_layers() {
    in_time(async {
        let home = Home::new();
        home.load(&home.file("a.tar", &Layout::of("a", &[base(), upper()]).archive())).await.unwrap();
        let detail = images::inspect(&home, "a").await.unwrap();
        let digest = detail.handle.manifest_digest.clone();
        let mut spec = SandboxSpec { name: "box".into(), ..SandboxSpec::default() };
        spec.image_defaults.diff_ids = detail.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let store = home.store().await.unwrap();
        let row = store.insert_sandbox(&spec, SandboxStatus::Stopped).await.unwrap();
        store.set_rootfs(row.id, digest.as_deref(), "erofs").await.unwrap();
        let refused = images::remove(&home, "a", false).await;
        assert!(matches!(refused, Err(MicrosandboxError::ImageInUse { holder, .. }) if holder == "box"));
        assert_eq!(images::prune(&home, Default::default()).await.unwrap().skipped_in_use, 1);
        images::remove(&home, "a", true).await.unwrap();
        images::prune(&home, Default::default()).await.unwrap();
        assert_eq!(images::layer_dirs(&home, &spec.image_defaults.diff_ids).unwrap().len(), 2);
        store.delete_sandbox(row.id).await.unwrap();
        images::prune(&home, Default::default()).await.unwrap();
        assert_eq!(home.layer_count(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_vanished_layer_is_reported_and_loaded_again() {
    in_time(async {
        let home = Home::new();
        let archive = home.file("a.tar", &Layout::of("a", &[base()]).archive());
        home.load(&archive).await.unwrap();
        std::fs::remove_dir_all(&dirs(&home, "a").await[0]).unwrap();
        let error = images::resolve(&home, "a", "test".into()).await.unwrap_err();
        assert!(matches!(&error, MicrosandboxError::ImageNotFound(text) if text.contains("load it again")), "{error}");
        home.load(&archive).await.unwrap();
        assert_eq!(dirs(&home, "a").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn progress_reaches_the_end_of_every_layer() {
    in_time(async {
        let home = Home::new();
        let archive = home.file("a.tar", &Layout::of("a", &[base(), upper()]).archive());
        let seen: Arc<Mutex<Vec<ImageProgress>>> = Arc::default();
        let sink = seen.clone();
        let progress = Arc::new(move |step: ImageProgress| sink.lock().unwrap().push(step));
        images::load(&home, &archive, None, Some(progress)).await.unwrap();
        let seen = seen.lock().unwrap();
        for index in 0..2 {
            let last = seen.iter().rfind(|step| step.layer_index == index).unwrap();
            assert_eq!((last.phase, last.completed_bytes, last.layer_count), ("unpack", last.total_bytes, 2));
        }
    })
    .await;
}

#[tokio::test]
async fn a_pipe_is_an_archive_too() {
    in_time(async {
        let home = Home::new();
        let bytes = gzip(&Layout::of("piped", &[base()]).archive());
        let path = home.file("x", b"").with_file_name("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let target = path.clone();
        // Opening waits for the reader; what is written then may come in any pieces.
        let writer = std::thread::spawn(move || std::fs::write(target, bytes).unwrap());
        home.load(&path).await.unwrap();
        writer.join().unwrap();
        assert!(images::get(&home, "piped").await.is_ok());
        home.assert_nothing_half_made();
    })
    .await;
}
