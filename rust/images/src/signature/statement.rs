//! What was signed. The signature is verified over the bytes before anything in them is read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::keys::Keys;
use crate::document::{self, Sha256Digest};

/// Subjects of a statement that are looked at.
const SUBJECTS_MAX: usize = 64;
/// `critical.type` of a simple signature (cosign, Signature specification).
const SIMPLE: &str = "cosign container image signature";
/// Of a statement that signs an image, and nothing else about it (cosign 3).
const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

#[derive(Deserialize)]
struct Simple {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: SubjectDigest,
}

#[derive(Deserialize)]
struct SubjectDigest {
    #[serde(default)]
    sha256: String,
}

/// Whether `payload`, signed as `signature` (base64) says, is a simple signature of `image` by one of the keys.
pub fn signs_simply(payload: &[u8], signature: &str, image: &Sha256Digest, keys: &Keys) -> bool {
    let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
    if !keys.signed(payload, &signature) {
        return false;
    }
    let Ok(Simple { critical }) = document::parse(payload, "signature") else { return false };
    critical.kind == SIMPLE && critical.image.docker_manifest_digest == image.as_str()
}

/// Whether a bundle 0.3 (sigstore, bundle.proto) signs `image` with one of the keys. Its transparency log and certificates are
/// not looked at: the key decides.
pub fn signs_as_bundle(bundle: &[u8], image: &Sha256Digest, keys: &Keys) -> bool {
    let Ok(Bundle { media_type, dsse_envelope }) = document::parse(bundle, "bundle") else { return false };
    if media_type != BUNDLE_TYPE || dsse_envelope.payload_type != PAYLOAD_TYPE {
        return false;
    }
    // One signature (bundle.proto: exactly one).
    let [Signature { sig }] = dsse_envelope.signatures.as_slice() else { return false };
    let (Ok(payload), Ok(signature)) = (STANDARD.decode(&dsse_envelope.payload), STANDARD.decode(sig)) else {
        return false;
    };
    if !keys.signed(&encoded(&payload), &signature) {
        return false;
    }
    let Ok(statement) = document::parse::<Statement>(&payload, "statement") else { return false };
    STATEMENTS.contains(&statement.kind.as_str())
        && statement.predicate_type == SIGN_PREDICATE
        && statement.subject.iter().take(SUBJECTS_MAX).any(|subject| subject.digest.sha256 == image.hex())
}

/// The bytes that a DSSE signature is of (DSSE protocol, PAE).
fn encoded(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::super::keys::tests::Signer;
    use super::*;

    pub fn simple(image: &Sha256Digest) -> Vec<u8> {
        simple_of(image, SIMPLE)
    }

    fn simple_of(image: &Sha256Digest, kind: &str) -> Vec<u8> {
        let image = json!({"docker-manifest-digest": image.as_str()});
        let critical = json!({"identity": {"docker-reference": ""}, "image": image, "type": kind});
        serde_json::to_vec(&json!({"critical": critical, "optional": null})).unwrap()
    }

    pub fn bundle(image: &Sha256Digest, signer: &Signer) -> Vec<u8> {
        bundle_of(image, signer, SIGN_PREDICATE)
    }

    fn bundle_of(image: &Sha256Digest, signer: &Signer, predicate: &str) -> Vec<u8> {
        let subject = json!([{"digest": {"sha256": image.hex()}}]);
        let statement =
            json!({"_type": STATEMENTS[0], "predicateType": predicate, "subject": subject, "predicate": {}});
        let payload = serde_json::to_vec(&statement).unwrap();
        let signatures = json!([{"sig": STANDARD.encode(signer.sign(&encoded(&payload)))}]);
        let envelope =
            json!({"payload": STANDARD.encode(&payload), "payloadType": PAYLOAD_TYPE, "signatures": signatures});
        let material = json!({"publicKey": {"hint": ""}});
        let bundle = json!({"mediaType": BUNDLE_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope});
        serde_json::to_vec(&bundle).unwrap()
    }

    #[test]
    fn a_simple_signature_is_of_one_image_and_one_key() {
        let (signer, other) = (Signer::new(), Signer::new());
        let (image, another) = (Sha256Digest::of(b"image"), Sha256Digest::of(b"another"));
        let payload = simple(&image);
        let signature = STANDARD.encode(signer.sign(&payload));
        assert!(signs_simply(&payload, &signature, &image, &signer.keys()));
        assert!(!signs_simply(&payload, &signature, &another, &signer.keys()));
        assert!(!signs_simply(&payload, &signature, &image, &other.keys()));
        assert!(!signs_simply(&simple(&another), &signature, &another, &signer.keys()));
        assert!(!signs_simply(&payload, "no base64", &image, &signer.keys()));
        let attestation = simple_of(&image, "something else");
        assert!(!signs_simply(&attestation, &STANDARD.encode(signer.sign(&attestation)), &image, &signer.keys()));
    }

    #[test]
    fn a_bundle_of_another_image_or_purpose_signs_nothing() {
        let (signer, other) = (Signer::new(), Signer::new());
        let (image, another) = (Sha256Digest::of(b"image"), Sha256Digest::of(b"another"));
        let good = bundle(&image, &signer);
        assert!(signs_as_bundle(&good, &image, &signer.keys()));
        assert!(!signs_as_bundle(&good, &another, &signer.keys()), "replayed for another image");
        assert!(!signs_as_bundle(&good, &image, &other.keys()));
        let sbom = bundle_of(&image, &signer, "https://spdx.dev/Document");
        assert!(!signs_as_bundle(&sbom, &image, &signer.keys()), "an attestation is no signature of the image");
        let text = String::from_utf8(good).unwrap();
        assert!(!signs_as_bundle(text.replace("bundle.v0.3", "bundle.v0.9").as_bytes(), &image, &signer.keys()));
        assert!(!signs_as_bundle(b"{}", &image, &signer.keys()));
    }
}
