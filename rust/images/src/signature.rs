//! Signatures with keys: what `registries.policy` demands of an image, verified before any of its layers is fetched, without any
//! other service. Found as cosign stores them: a tag beside the image (simple signing), and referrers with bundles (OCI
//! distribution specification, listing referrers; the referrers tag schema where a registry has no such listing).

mod keys;
mod statement;

use serde::Deserialize;

use self::keys::Keys;
use super::document::{self, Descriptor, MAX_DOCUMENT, Sha256Digest};
use super::failure::Failure;
use super::reference::Reference;
use super::registry::Upstream;
use microsandbox_core::config::SignaturePolicy;
use microsandbox_core::error::ImageErrorKind;

/// Signatures of one image that are looked at, of each form.
const SIGNATURES_MAX: usize = 32;
/// Longest payload and longest bundle.
const SIGNATURE_MAX: u64 = 1 << 20;
const SIMPLE_LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIMPLE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest whose layers are signatures.
#[derive(Deserialize)]
struct Signatures {
    layers: Vec<Descriptor>,
}

/// What refers to an image.
#[derive(Deserialize)]
struct Referrers {
    manifests: Vec<Descriptor>,
}

/// The entry of the policy that an image falls under: the first that fits.
pub fn policy_of<'a>(policy: &'a [SignaturePolicy], image: &Reference) -> Option<&'a SignaturePolicy> {
    let name = format!("{}/{}", image.domain(), image.path());
    policy.iter().find(|entry| match entry.matches.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => Reference::parse(&entry.matches).is_ok_and(|named| named.same_repository(image)),
    })
}

/// Refuses an image that none of the keys of `policy` has signed. `image` is what the tag or the digest of the reference means:
/// an index that is signed pins its images by their digests.
pub async fn verify(upstream: &Upstream, policy: &SignaturePolicy, image: &Sha256Digest) -> Result<(), Failure> {
    let paths = policy.keys.clone();
    let keys = microsandbox_home::blocking(move || Keys::read(&paths)).await?;
    let mut found = 0;
    if signed_by_tag(upstream, image, &keys, &mut found).await?
        || signed_by_bundle(upstream, image, &keys, &mut found).await?
    {
        return Ok(());
    }
    let what = if found == 0 {
        "has no signature".to_owned()
    } else {
        format!("has {found} signatures, none of them valid for it and by one of the keys")
    };
    Err(Failure::of(
        ImageErrorKind::Unsigned,
        format!("registries.policy demands a signature of {:?}, but {} {what}", policy.matches, image.as_str()),
    ))
}

/// `sha256-<hex>.sig`: a manifest with a payload in each layer.
async fn signed_by_tag(
    upstream: &Upstream,
    image: &Sha256Digest,
    keys: &Keys,
    found: &mut usize,
) -> Result<bool, Failure> {
    let path = format!("manifests/sha256-{}.sig", image.hex());
    let Some(manifest) = upstream.companion(&path, MANIFEST, MAX_DOCUMENT).await? else { return Ok(false) };
    let Signatures { layers } = document::parse(&manifest, "the manifest of signatures")?;
    for layer in layers.iter().filter(|layer| layer.media_type == SIMPLE_LAYER).take(SIGNATURES_MAX) {
        let Some(signature) = layer.annotation(SIMPLE_ANNOTATION) else { continue };
        *found += 1;
        if let Some(payload) = blob(upstream, layer).await?
            && statement::signs_simply(&payload, signature, image, keys)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Referrers whose layers are bundles.
async fn signed_by_bundle(
    upstream: &Upstream,
    image: &Sha256Digest,
    keys: &Keys,
    found: &mut usize,
) -> Result<bool, Failure> {
    let mut listing = upstream.companion(&format!("referrers/{}", image.as_str()), INDEX, MAX_DOCUMENT).await?;
    if listing.is_none() {
        listing = upstream.companion(&format!("manifests/sha256-{}", image.hex()), INDEX, MAX_DOCUMENT).await?;
    }
    let Some(listing) = listing else { return Ok(false) };
    let Referrers { manifests } = document::parse(&listing, "the list of referrers")?;
    for referrer in manifests.iter().filter(|referrer| referrer.media_type == MANIFEST).take(SIGNATURES_MAX) {
        let digest = Sha256Digest::parse(&referrer.digest)?;
        let path = format!("manifests/{}", digest.as_str());
        let Some(manifest) = upstream.companion(&path, MANIFEST, MAX_DOCUMENT).await? else { continue };
        document::verify(&manifest, &digest, "a referrer")?;
        let Signatures { layers } = document::parse(&manifest, "a referrer")?;
        for layer in layers.iter().filter(|layer| layer.media_type == statement::BUNDLE_TYPE).take(1) {
            *found += 1;
            if let Some(bundle) = blob(upstream, layer).await?
                && statement::signs_as_bundle(&bundle, image, keys)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A small blob, verified; `None`: absent.
async fn blob(upstream: &Upstream, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Failure> {
    let digest = Sha256Digest::parse(&descriptor.digest)?;
    let bytes = upstream.companion(&format!("blobs/{}", digest.as_str()), "*/*", SIGNATURE_MAX).await?;
    bytes.map(|bytes| document::verify(&bytes, &digest, "a signature").map(|()| bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_fits_counts() {
        let entry = |matches: &str| SignaturePolicy { matches: matches.into(), keys: vec![matches.into()] };
        let policy = [entry("alpine"), entry("r.example/team/*"), entry("docker.io/*")];
        let of =
            |image: &str| policy_of(&policy, &Reference::parse(image).unwrap()).map(|entry| entry.matches.as_str());
        assert_eq!(of("docker.io/library/alpine:3"), Some("alpine"));
        assert_eq!(of("debian"), Some("docker.io/*"));
        assert_eq!(
            of("r.example/team/app@sha256:0000000000000000000000000000000000000000000000000000000000000000"),
            Some("r.example/team/*")
        );
        assert_eq!(of("r.example/teams"), None);
        assert_eq!(of("other.example/alpine"), None);
    }
}
