//! Image archives made in a test, right ones and wrong ones, and a home to load them into.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use microsandbox_core::config::{LocalConfig, RegistriesConfig};
use microsandbox_core::error::ImageErrorKind;
use microsandbox_core::model::ImageInfo;
use microsandbox_core::{MicrosandboxError, MicrosandboxResult};
use microsandbox_home::Home as State;
use microsandbox_images as images;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Longer than any test should take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Fails a test that hangs.
pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("the test took too long")
}

/// A home of one test.
pub struct Home {
    dir: tempfile::TempDir,
    state: State,
}

impl std::ops::Deref for Home {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl Home {
    pub fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(LocalConfig::default_for_home(dir.path().join("home")));
        Home { dir, state }
    }

    /// One whose registries are configured.
    pub fn of_registries(set: impl FnOnce(&mut RegistriesConfig)) -> Home {
        let dir = tempfile::tempdir().unwrap();
        let mut config = LocalConfig::default_for_home(dir.path().join("home"));
        set(&mut config.registries);
        Home { dir, state: State::new(config) }
    }

    /// A second client of the same home.
    pub fn second(&self) -> State {
        State::new(LocalConfig::default_for_home(self.dir.path().join("home")))
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn layers_dir(&self) -> PathBuf {
        self.cache_dir().join("layers")
    }

    pub async fn load(&self, archive: &Path) -> MicrosandboxResult<Vec<ImageInfo>> {
        images::load(self, archive, None, None).await
    }

    pub async fn load_tagged(&self, archive: &Path, tag: &str) -> MicrosandboxResult<Vec<ImageInfo>> {
        images::load(self, archive, Some(tag.into()), None).await
    }

    /// Loads `archive`, which must be refused with `kind`, and looks that nothing of it stayed.
    pub async fn refuses(&self, archive: Vec<u8>, kind: ImageErrorKind) -> String {
        let path = self.file("refused.tar", &archive);
        let error = self.load(&path).await.expect_err("the archive is wrong");
        match &error {
            MicrosandboxError::ImagePull { kind: actual, .. } => assert_eq!(*actual, kind, "{error}"),
            other => panic!("{other:?}"),
        }
        self.assert_nothing_half_made();
        assert!(images::list(self).await.unwrap().is_empty(), "a refused image is listed");
        assert_eq!(self.layer_count(), 0, "a refused layer is in the cache");
        error.to_string()
    }

    pub fn layer_count(&self) -> usize {
        names(&self.layers_dir()).iter().filter(|name| name.len() == 64).count()
    }

    pub fn assert_nothing_half_made(&self) {
        let left: Vec<String> =
            names(&self.layers_dir()).into_iter().filter(|name| name.starts_with(".tmp-")).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        assert!(names(&self.cache_dir().join("tmp")).is_empty(), "a temporary file stayed");
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    gzip_at(bytes, flate2::Compression::fast())
}

pub fn gzip_at(bytes: &[u8], level: flate2::Compression) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A tar of these files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A layer: its tar, and how it is stored.
#[derive(Clone)]
pub struct Layer {
    pub tar: Vec<u8>,
    pub blob: Vec<u8>,
    pub suffix: &'static str,
}

impl Layer {
    pub fn plain(files: &[(&str, &[u8])]) -> Layer {
        let tar = tar(files);
        Layer { blob: tar.clone(), tar, suffix: "" }
    }

    pub fn gzip(files: &[(&str, &[u8])]) -> Layer {
        let tar = tar(files);
        Layer { blob: gzip(&tar), tar, suffix: "+gzip" }
    }

    pub fn zstd(files: &[(&str, &[u8])]) -> Layer {
        let tar = tar(files);
        Layer { blob: zstd(&tar), tar, suffix: "+zstd" }
    }

    pub fn diff_id(&self) -> String {
        sha256(&self.tar)
    }

    fn descriptor(&self) -> Value {
        descriptor(&format!("{OCI_LAYER}{}", self.suffix), &self.blob)
    }
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

pub fn config(layers: &[Layer]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(Layer::diff_id).collect();
    json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Env": ["A=1"], "Cmd": ["/bin/sh"], "WorkingDir": "/srv", "User": "1000", "Labels": {"k": "v"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// An OCI image layout that is being written.
#[derive(Default)]
pub struct Layout {
    pub files: BTreeMap<String, Vec<u8>>,
    pub index: Vec<Value>,
}

impl Layout {
    /// One image named `name`.
    pub fn of(name: &str, layers: &[Layer]) -> Layout {
        let mut layout = Layout::default();
        layout.image(name, layers);
        layout
    }

    pub fn image(&mut self, name: &str, layers: &[Layer]) -> Value {
        self.image_with(name, layers, config(layers), |_| {})
    }

    /// `change` may spoil the manifest before it is stored.
    pub fn image_with(
        &mut self,
        name: &str,
        layers: &[Layer],
        config: Value,
        change: impl FnOnce(&mut Value),
    ) -> Value {
        for layer in layers {
            self.blob(&layer.blob);
        }
        let config = self.blob(config.to_string().as_bytes());
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config.0, "size": config.1},
            "layers": layers.iter().map(Layer::descriptor).collect::<Vec<_>>(),
        });
        change(&mut manifest);
        let stored = self.blob(manifest.to_string().as_bytes());
        let mut entry = json!({"mediaType": OCI_MANIFEST, "digest": stored.0, "size": stored.1});
        if !name.is_empty() {
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        self.index.push(entry.clone());
        entry
    }

    /// Digest and size.
    pub fn blob(&mut self, bytes: &[u8]) -> (String, usize) {
        let digest = sha256(bytes);
        self.files.insert(format!("blobs/sha256/{}", &digest["sha256:".len()..]), bytes.to_vec());
        (digest, bytes.len())
    }

    pub fn archive(&self) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.index}).to_string();
        let mut files: Vec<(&str, &[u8])> = vec![("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)];
        files.extend(self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
        if !self.files.contains_key("index.json") {
            files.push(("index.json", index.as_bytes()));
        }
        tar(&files)
    }
}

/// A Docker archive without a layout, as `docker save` wrote before version 25.
pub fn docker_archive(tags: &[&str], layers: &[Layer]) -> Vec<u8> {
    let config = config(layers).to_string();
    let config_name = format!("{}.json", &sha256(config.as_bytes())["sha256:".len()..]);
    let names: Vec<String> = (0..layers.len()).map(|i| format!("layer-{i}/layer.tar")).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![(&config_name, config.as_bytes())];
    files.extend(names.iter().zip(layers).map(|(name, layer)| (name.as_str(), layer.blob.as_slice())));
    files.push(("manifest.json", manifest.as_bytes()));
    tar(&files)
}
