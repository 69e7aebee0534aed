//! Archives that must not be imported: each is refused with its kind, and nothing of it stays.

use crate::archive::*;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::error::ImageErrorKind::{CorruptLayer, DigestMismatch, LimitExceeded};
use microsandbox_images as images;
use serde_json::{Value, json};

fn layer() -> Layer {
    Layer::plain(&[("etc/os-release", b"ID=test\n")])
}

/// A layout with one image whose manifest was spoiled.
fn spoiled(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let layers = [layer()];
    let mut layout = Layout::default();
    layout.image_with("x", &layers, config(&layers), change);
    layout.archive()
}

/// A layout with one image whose configuration was spoiled.
fn spoiled_config(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let layers = [layer()];
    let mut config = config(&layers);
    change(&mut config);
    let mut layout = Layout::default();
    layout.image_with("x", &layers, config, |_| {});
    layout.archive()
}

// hazard: I11
#[tokio::test]
async fn contents_must_match_their_digests() {
    in_time(async {
        let home = Home::new();
        let layout = Layout::of("x", &[layer()]);
        for name in layout.files.keys() {
            let mut wrong = Layout::of("x", &[layer()]);
            let bytes = wrong.files.get_mut(name).unwrap();
            // The layer's first byte is of a name: still a tar, another content.
            bytes[0] ^= 1;
            home.refuses(wrong.archive(), DigestMismatch).await;
        }
    })
    .await;
}

// hazard: I11
#[tokio::test]
async fn sizes_must_match() {
    in_time(async {
        let home = Home::new();
        home.refuses(spoiled(|m| m["layers"][0]["size"] = json!(1)), DigestMismatch).await;
        home.refuses(spoiled(|m| m["config"]["size"] = json!(u64::MAX)), DigestMismatch).await;
        let mut layout = Layout::of("x", &[layer()]);
        layout.index[0]["size"] = json!(3);
        home.refuses(layout.archive(), DigestMismatch).await;
    })
    .await;
}

// hazard: I11
#[tokio::test]
async fn digests_of_other_forms_are_refused() {
    in_time(async {
        let home = Home::new();
        let upper = |m: &mut Value| {
            let digest = m["layers"][0]["digest"].as_str().unwrap().to_uppercase().replace("SHA256", "sha256");
            m["layers"][0]["digest"] = json!(digest);
        };
        home.refuses(spoiled(upper), DigestMismatch).await;
        for digest in ["sha512:00", "sha256:00", "", "md5:0123", "sha256:../../../etc/passwd"] {
            home.refuses(spoiled(|m| m["layers"][0]["digest"] = json!(digest)), DigestMismatch).await;
            home.refuses(spoiled_config(|c| c["rootfs"]["diff_ids"][0] = json!(digest)), DigestMismatch).await;
        }
    })
    .await;
}

// hazard: I12
#[tokio::test]
async fn media_types_are_what_they_say() {
    in_time(async {
        let home = Home::new();
        home.refuses(spoiled(|m| m["mediaType"] = json!(OCI_INDEX)), CorruptLayer).await;
        home.refuses(spoiled(|m| m["config"]["mediaType"] = json!("text/plain")), CorruptLayer).await;
        home.refuses(spoiled(|m| m["layers"][0]["mediaType"] = json!(OCI_CONFIG)), CorruptLayer).await;
        home.refuses(spoiled(|m| m["layers"][0]["mediaType"] = json!(format!("{OCI_LAYER}+gzip"))), CorruptLayer).await;
        home.refuses(spoiled(|m| m["manifests"] = json!([])), CorruptLayer).await;
        let mut layout = Layout::of("x", &[layer()]);
        layout.index[0]["mediaType"] = json!(OCI_INDEX);
        home.refuses(layout.archive(), CorruptLayer).await;
        layout.index[0]["mediaType"] = json!("application/octet-stream");
        home.refuses(layout.archive(), CorruptLayer).await;
    })
    .await;
}

// hazard: I12
#[tokio::test]
async fn layers_are_counted() {
    in_time(async {
        let home = Home::new();
        home.refuses(spoiled(|m| m["layers"] = json!([])), CorruptLayer).await;
        let many = |m: &mut Value| m["layers"] = Value::Array(vec![m["layers"][0].clone(); 10_000]);
        let text = home.refuses(spoiled(many), LimitExceeded).await;
        assert!(text.contains("image.layers"), "{text}");
        home.refuses(spoiled_config(|c| c["rootfs"]["diff_ids"] = json!([])), CorruptLayer).await;
    })
    .await;
}

// hazard: I12
#[tokio::test]
async fn documents_are_bounded() {
    in_time(async {
        let home = Home::new();
        let mut layout = Layout::default();
        layout.files.insert("index.json".into(), vec![b' '; 100 << 20]);
        let text = home.refuses(layout.archive(), LimitExceeded).await;
        assert!(text.contains("image.manifest_bytes"), "{text}");
        let deep = format!("{{\"schemaVersion\":2,\"manifests\":{}", "[".repeat(100_000));
        layout.files.insert("index.json".into(), deep.into_bytes());
        home.refuses(layout.archive(), LimitExceeded).await;
        let mut big = Layout::default();
        let filler = "x".repeat(5 << 20);
        let layers = [layer()];
        let mut config = config(&layers);
        config["filler"] = json!(filler);
        big.image_with("x", &layers, config, |_| {});
        home.refuses(big.archive(), LimitExceeded).await;
    })
    .await;
}

// hazard: I12
#[tokio::test]
async fn broken_documents_are_corrupt() {
    in_time(async {
        let home = Home::new();
        for text in
            ["", "{", "[]", "null", "{\"schemaVersion\":2}", "\u{0}", "{\"schemaVersion\":2,\"manifests\":[{}]}"]
        {
            let mut layout = Layout::default();
            layout.files.insert("index.json".into(), text.as_bytes().to_vec());
            home.refuses(layout.archive(), CorruptLayer).await;
        }
        home.refuses(spoiled_config(|c| c["rootfs"]["type"] = json!("squashfs")), CorruptLayer).await;
        home.refuses(spoiled_config(|c| c["config"]["Env"] = json!(["A=\u{0}"])), CorruptLayer).await;
        home.refuses(spoiled_config(|c| c["config"]["Env"] = json!({"A": 1})), CorruptLayer).await;
    })
    .await;
}

// hazard: I12
#[tokio::test]
async fn indexes_that_lead_on_and_on_end() {
    in_time(async {
        let home = Home::new();
        let mut layout = Layout::of("x", &[layer()]);
        let mut inner = layout.index.remove(0);
        for _ in 0..20 {
            let document = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner]}).to_string();
            let (digest, size) = layout.blob(document.as_bytes());
            inner = json!({"mediaType": OCI_INDEX, "digest": digest, "size": size});
        }
        layout.index.push(inner);
        home.refuses(layout.archive(), LimitExceeded).await;
    })
    .await;
}

// hazard: I9
#[tokio::test]
async fn ambiguous_archives_are_refused() {
    in_time(async {
        let home = Home::new();
        let mut twice = tar(&[("index.json", b"{}"), ("index.json", b"[]")]);
        home.refuses(twice.clone(), CorruptLayer).await;
        home.refuses(tar(&[("index.json", b"{}"), ("./index.json", b"[]")]), CorruptLayer).await;
        // A checksum that does not fit, and a size that leads past the end.
        twice[0] ^= 1;
        home.refuses(twice, CorruptLayer).await;
        let mut long = tar(&[("index.json", b"{}")]);
        long.truncate(600);
        home.refuses(long, CorruptLayer).await;
    })
    .await;
}

// hazard: I9
#[tokio::test]
async fn sizes_that_are_no_sizes_are_refused() {
    in_time(async {
        let home = Home::new();
        for field in [
            *b"77777777777\0",
            *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            *b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
            *b"00000000x00\0",
        ] {
            let mut bytes = tar(&[("index.json", b"{}")]);
            bytes[124..136].copy_from_slice(&field);
            bytes[148..156].copy_from_slice(b"        ");
            let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            home.refuses(bytes, CorruptLayer).await;
        }
    })
    .await;
}

// hazard: I10
#[tokio::test]
async fn a_compressed_archive_that_unfolds_is_stopped() {
    in_time(async {
        let home = Home::new();
        // 80 MiB of zeros at 1000 to 1: over the ratio beyond the first 64 MiB.
        let zeros = vec![0; 80 << 20];
        for bomb in [gzip_at(&zeros, flate2::Compression::best()), zstd(&zeros)] {
            let text = home.refuses(bomb, LimitExceeded).await;
            assert!(text.contains("image.ratio") && text.contains("MSB_IMAGE_LIMITS"), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_archive_is_said_so() {
    in_time(async {
        let home = Home::new();
        for bytes in [&b""[..], b"hello", &[0; 1024], &[0x1f, 0x8b, 0, 0, 0, 0], b"BZh91AY&SY", b"\xfd7zXZ\0...."] {
            home.refuses(bytes.to_vec(), CorruptLayer).await;
        }
        home.refuses(tar(&[("etc/passwd", b"root")]), CorruptLayer).await;
        let dir = home.layers_dir();
        assert!(matches!(home.load(&dir).await, Err(MicrosandboxError::InvalidConfig(_))));
        assert!(matches!(home.load(&dir.join("missing.tar")).await, Err(MicrosandboxError::Io { .. })));
    })
    .await;
}

#[tokio::test]
async fn an_image_for_another_machine_is_named() {
    in_time(async {
        let home = Home::new();
        let path = home.file("foreign.tar", &spoiled_config(|c| c["architecture"] = json!("vax")));
        let error = home.load(&path).await.unwrap_err();
        assert!(matches!(&error, MicrosandboxError::ImageNotFound(text) if text.contains("linux/vax")), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_unwritten_pipe_does_not_block_a_cancelled_import() {
    in_time(async {
        let home = Home::new();
        let path = home.file("x", b"").with_file_name("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // A writer that is there and silent.
        let _writer = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let import = home.load(&path);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(300), import).await.is_err());
        // The lock is free again: a removal of images does not wait for it.
        in_time(images::prune(&home, Default::default())).await.unwrap();
        home.assert_nothing_half_made();
    })
    .await;
}
