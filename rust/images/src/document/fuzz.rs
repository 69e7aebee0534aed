//! Changed documents of images: index, manifest, configuration, and what Docker writes. The first byte chooses.

use microsandbox_mutation::Target;

use super::Sha256Digest;
use crate::document;
use crate::failure::Failure;

const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"true",
    b"\"schemaVersion\":2",
    b"\"manifests\":[]",
    b"\"layers\":[]",
    b"\"config\":{}",
    b"\"digest\":\"sha256:",
    b"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}",
    b"\"mediaType\":\"application/vnd.oci.image.index.v1+json\"",
    b"\\u0000",
    b"\\ud800",
    b"\"size\":-1",
    b"\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}",
    b"\"history\":[{\"empty_layer\":true}]",
];
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn shown<T>(read: Result<T, Failure>) -> String {
    match read {
        Ok(_) => "read".into(),
        Err(failure) => format!("{failure:?}").chars().filter(char::is_ascii_alphabetic).take(60).collect(),
    }
}

fn check(input: &[u8]) -> String {
    let Some((first, bytes)) = input.split_first() else { return String::new() };
    match first % 4 {
        0 => shown(document::index(bytes, "index.json", None).inspect(|all| {
            for descriptor in all {
                let _ = (descriptor.kind(), descriptor.annotation("org.opencontainers.image.ref.name"));
                let _ = Sha256Digest::parse(&descriptor.digest).map(|digest| assert_eq!(digest.hex().len(), 64));
            }
        })),
        1 => shown(document::manifest(bytes, "a manifest", MANIFEST).inspect(|manifest| {
            assert!((1..=document::MAX_LAYERS).contains(&manifest.layers.len()));
        })),
        2 => shown(document::config(bytes, "a configuration", usize::from(first / 4)).inspect(|config| {
            assert_eq!(config.rootfs.diff_ids.len(), usize::from(first / 4));
        })),
        _ => shown(document::docker(bytes)),
    }
}

#[test]
fn fuzz_image_documents() {
    Target::new("image_documents", WORDS).run(check);
}
