//! JSON documents of images, as their authors wrote them: hostile until checked.
//!
//! Sources: OCI image specification (image-layout, image-index, manifest, config), Docker image specification v1.2.

#[cfg(test)]
mod fuzz;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest as _, Sha256};

use super::failure::{Failure, corrupt, limit, mismatch};
use microsandbox_core::error::ImageErrorKind;

/// `image.manifest_bytes`, `image.config_bytes`.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// `image.layers`.
pub const MAX_LAYERS: usize = 512;
/// Indexes inside indexes.
pub const MAX_INDEX_DEPTH: usize = 4;
/// Nesting of arrays and objects in a document.
const MAX_DEPTH: usize = 64;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPES: [&str; 2] = [OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];
const INDEX_TYPES: [&str; 2] = [OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"];
const CONFIG_TYPES: [&str; 2] = [OCI_CONFIG, "application/vnd.docker.container.image.v1+json"];

/// What a descriptor points to, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Manifest,
    Index,
    Other,
}

/// A checked `sha256:<64 hex>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(String);

impl Sha256Digest {
    /// Only the one algorithm, only lower case, only the full length.
    pub fn parse(text: &str) -> Result<Sha256Digest, Failure> {
        let hex = text.strip_prefix("sha256:").unwrap_or("");
        let plain = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if plain {
            Ok(Sha256Digest(text.to_owned()))
        } else {
            Err(mismatch(format!("{text:?} is not a sha256 digest")))
        }
    }

    pub fn of(bytes: &[u8]) -> Sha256Digest {
        Sha256Digest::from_hash(Sha256::digest(bytes).as_ref())
    }

    pub fn from_hash(hash: &[u8]) -> Sha256Digest {
        Sha256Digest(format!("sha256:{}", hex::encode(hash)))
    }

    /// The ChainID of each layer (OCI image specification, config.md), bottom first. Unpacked layers go by it: what a
    /// layer's entries mean depends on those beneath it (a parent that is a symlink further down), so the same layer on
    /// another base may not be taken for this one.
    pub fn chain(diff_ids: &[Sha256Digest]) -> Vec<Sha256Digest> {
        let mut chain: Vec<Sha256Digest> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            chain.push(match chain.last() {
                None => diff_id.clone(),
                Some(below) => Sha256Digest::of(format!("{} {}", below.as_str(), diff_id.as_str()).as_bytes()),
            });
        }
        chain
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// Where an image layout keeps the blob.
    pub fn blob_path(&self) -> String {
        format!("blobs/sha256/{}", self.hex())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub fn kind(&self) -> Kind {
        kind_of(&self.media_type)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default)]
    pub variant: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIndex {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
}

#[derive(Debug)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// An image's configuration, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub architecture: String,
    pub os: String,
    #[serde(default)]
    pub variant: Option<String>,
    #[serde(default)]
    pub config: Option<RunConfig>,
    pub rootfs: Rootfs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    pub env: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub stop_signal: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Rootfs {
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<String>,
}

/// An entry of a Docker archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerEntry {
    pub config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

/// Reads an image index; `media_type` is what its descriptor claims, if one led here.
pub fn index(bytes: &[u8], what: &str, media_type: Option<&str>) -> Result<Vec<Descriptor>, Failure> {
    let raw: RawIndex = parse(bytes, what)?;
    schema(raw.schema_version, what)?;
    if raw.config.is_some() || raw.layers.is_some() {
        return Err(corrupt(format!("{what} can be read as an index and as a manifest")));
    }
    same_type(raw.media_type.as_deref(), media_type, &INDEX_TYPES, what)?;
    Ok(raw.manifests)
}

/// Reads an image manifest.
pub fn manifest(bytes: &[u8], what: &str, media_type: &str) -> Result<Manifest, Failure> {
    let raw: RawManifest = parse(bytes, what)?;
    schema(raw.schema_version, what)?;
    if raw.manifests.is_some() {
        return Err(corrupt(format!("{what} can be read as a manifest and as an index")));
    }
    same_type(raw.media_type.as_deref(), Some(media_type), &MANIFEST_TYPES, what)?;
    if !CONFIG_TYPES.contains(&raw.config.media_type.as_str()) {
        return Err(corrupt(format!("{what} is not a container image: its config is a {:?}", raw.config.media_type)));
    }
    count_layers(raw.layers.len(), what)?;
    Ok(Manifest { config: raw.config, layers: raw.layers })
}

/// What a manifest or index says of itself, where nothing else says what it is.
pub fn own_media_type(bytes: &[u8], what: &str) -> Result<String, Failure> {
    let own = stated_media_type(bytes, what)?;
    own.ok_or_else(|| corrupt(format!("neither the registry nor {what} says what kind of document it is")))
}

fn stated_media_type(bytes: &[u8], what: &str) -> Result<Option<String>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        #[serde(default)]
        media_type: Option<String>,
    }
    Ok(parse::<Typed>(bytes, what)?.media_type)
}

/// What a media type means.
pub fn kind_of(media_type: &str) -> Kind {
    if MANIFEST_TYPES.contains(&media_type) {
        Kind::Manifest
    } else if INDEX_TYPES.contains(&media_type) {
        Kind::Index
    } else {
        Kind::Other
    }
}

/// Reads a manifest that was verified when it was stored; its media type, and what it names.
pub fn stored_manifest(bytes: &[u8], what: &str) -> Result<(String, Manifest), Failure> {
    let media_type = stated_media_type(bytes, what)?.unwrap_or_else(|| OCI_MANIFEST.to_owned());
    let manifest = manifest(bytes, what, &media_type)?;
    Ok((media_type, manifest))
}

/// Reads an image configuration that must name `layers` layers.
pub fn config(bytes: &[u8], what: &str, layers: usize) -> Result<Config, Failure> {
    let config: Config = parse(bytes, what)?;
    if config.rootfs.kind != "layers" {
        return Err(corrupt(format!("{what} has a root file system of type {:?}", config.rootfs.kind)));
    }
    if config.rootfs.diff_ids.len() != layers {
        let named = config.rootfs.diff_ids.len();
        return Err(corrupt(format!("{what} names {named} layers, the manifest {layers}")));
    }
    let run = config.config.as_ref();
    let texts = run.into_iter().flat_map(|run| {
        let lists = [&run.env, &run.cmd, &run.entrypoint];
        let single = [&run.working_dir, &run.user, &run.stop_signal];
        lists.into_iter().flatten().flatten().chain(single.into_iter().flatten())
    });
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(corrupt(format!("{what} holds a NUL character")));
    }
    Ok(config)
}

/// Reads a Docker archive's `manifest.json`.
pub fn docker(bytes: &[u8]) -> Result<Vec<DockerEntry>, Failure> {
    let entries: Vec<DockerEntry> = parse(bytes, "manifest.json")?;
    for entry in &entries {
        count_layers(entry.layers.len(), "manifest.json")?;
    }
    Ok(entries)
}

fn count_layers(count: usize, what: &str) -> Result<(), Failure> {
    match count {
        0 => Err(corrupt(format!("{what} has no layers"))),
        1..=MAX_LAYERS => Ok(()),
        _ => Err(limit(format!("{what} has {count} layers, more than image.layers = {MAX_LAYERS}"))),
    }
}

fn schema(version: u32, what: &str) -> Result<(), Failure> {
    if version == 2 { Ok(()) } else { Err(corrupt(format!("{what} has schema version {version}, not 2"))) }
}

/// What the document says of itself and what its descriptor says must agree (CVE-2021-41190).
fn same_type(own: Option<&str>, claimed: Option<&str>, allowed: &[&str], what: &str) -> Result<(), Failure> {
    for media_type in [own, claimed].into_iter().flatten() {
        if !allowed.contains(&media_type) {
            return Err(corrupt(format!("{what} is a {media_type:?} where an {} was expected", allowed[0])));
        }
    }
    match (own, claimed) {
        (Some(own), Some(claimed)) if own != claimed => {
            Err(corrupt(format!("{what} calls itself {own:?}, its descriptor {claimed:?}")))
        }
        _ => Ok(()),
    }
}

pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Failure> {
    if depth(bytes) > MAX_DEPTH {
        return Err(limit(format!("{what} is nested deeper than {MAX_DEPTH}")));
    }
    serde_json::from_slice(bytes).map_err(|error| corrupt(format!("{what}: {error}")))
}

/// How deep arrays and objects are nested; brackets in strings do not count.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Checks a whole blob in memory.
pub fn verify(bytes: &[u8], digest: &Sha256Digest, what: &str) -> Result<(), Failure> {
    let actual = Sha256Digest::of(bytes);
    if actual == *digest {
        return Ok(());
    }
    let message = format!("{what} has the digest {}, not {}", actual.as_str(), digest.as_str());
    Err(Failure::of(ImageErrorKind::DigestMismatch, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    // hazard: I11
    #[test]
    fn digests_are_exact() {
        let hex = "a".repeat(64);
        assert!(Sha256Digest::parse(&format!("sha256:{hex}")).is_ok());
        for bad in [
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha512:{}", "a".repeat(128)),
            format!("md5:{hex}"),
            hex.clone(),
            format!("sha256:../{}", "a".repeat(61)),
            String::new(),
        ] {
            assert_eq!(Sha256Digest::parse(&bad).unwrap_err().kind(), Some(ImageErrorKind::DigestMismatch), "{bad}");
        }
    }

    // hazard: I11
    #[test]
    fn a_layer_on_another_base_is_another_chain() {
        let id = |c: &str| Sha256Digest::parse(&format!("sha256:{}", c.repeat(64))).unwrap();
        let one = Sha256Digest::chain(&[id("a"), id("c")]);
        let other = Sha256Digest::chain(&[id("b"), id("c")]);
        assert_eq!(one[0], id("a"));
        assert_ne!(one[1], other[1]);
        let text = format!("{} {}", id("a").as_str(), id("c").as_str());
        assert_eq!(one[1], Sha256Digest::of(text.as_bytes()));
    }

    // hazard: I12
    #[test]
    fn deep_documents_are_refused_before_they_are_parsed() {
        let deep = format!(r#"{{"schemaVersion":2,"manifests":[],"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(index(deep.as_bytes(), "index", None).unwrap_err().kind(), Some(ImageErrorKind::LimitExceeded));
        let quoted = format!(r#"{{"schemaVersion":2,"manifests":[],"x":"{}\"["}}"#, "[".repeat(10_000));
        assert!(index(quoted.as_bytes(), "index", None).is_ok());
    }

    // hazard: I12
    #[test]
    fn a_document_that_is_both_index_and_manifest_is_refused() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"layers":[{{"mediaType":"x","digest":"{digest}","size":1}}],
            "config":{{"mediaType":"{}","digest":"{digest}","size":1}}}}"#,
            CONFIG_TYPES[0]
        );
        assert!(index(both.as_bytes(), "x", None).is_err());
        assert!(manifest(both.as_bytes(), "x", MANIFEST_TYPES[0]).is_err());
    }

    // hazard: I12
    #[test]
    fn media_types_must_agree() {
        let own = |kind: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[]}}"#);
        assert!(index(own(INDEX_TYPES[0]).as_bytes(), "x", Some(INDEX_TYPES[0])).is_ok());
        assert!(index(own(INDEX_TYPES[0]).as_bytes(), "x", Some(INDEX_TYPES[1])).is_err());
        assert!(index(own(MANIFEST_TYPES[0]).as_bytes(), "x", None).is_err());
        assert!(index(own(INDEX_TYPES[0]).as_bytes(), "x", Some(MANIFEST_TYPES[0])).is_err());
    }

    // hazard: I12
    #[test]
    fn duplicate_keys_and_wrong_types_are_refused() {
        for text in [
            r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#,
            r#"{"schemaVersion":"2","manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":{}}"#,
            r#"{"schemaVersion":1,"manifests":[]}"#,
            r#"{"schemaVersion":2}"#,
            "[]",
            "",
        ] {
            assert_eq!(
                index(text.as_bytes(), "x", None).unwrap_err().kind(),
                Some(ImageErrorKind::CorruptLayer),
                "{text}"
            );
        }
    }
}
