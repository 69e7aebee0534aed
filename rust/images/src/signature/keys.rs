//! Public keys of a policy: PEM files as `cosign generate-key-pair` and `openssl` write them (RFC 5280, SubjectPublicKeyInfo).

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

/// Longest file of a key.
const SIZE_MAX: u64 = 64 << 10;
/// What comes before the point of a P-256 key (RFC 5480) and before an Ed25519 key (RFC 8410).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// An uncompressed point, and an Ed25519 key.
const P256_LENGTH: usize = 65;
const ED25519_LENGTH: usize = 32;

struct Key {
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

/// The keys of a policy; a signature by one of them is enough.
pub struct Keys(Vec<Key>);

impl Keys {
    /// Blocks.
    pub fn read(paths: &[PathBuf]) -> MicrosandboxResult<Keys> {
        paths.iter().map(|path| read(path)).collect::<MicrosandboxResult<Vec<Key>>>().map(Keys)
    }

    /// Whether one of them signed these bytes.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.iter().any(|key| UnparsedPublicKey::new(key.algorithm, &key.bytes).verify(message, signature).is_ok())
    }
}

fn read(path: &Path) -> MicrosandboxResult<Key> {
    let failed = |error| MicrosandboxError::io("read the key", path, error);
    let mut text = Vec::new();
    File::open(path).map_err(failed)?.take(SIZE_MAX).read_to_end(&mut text).map_err(failed)?;
    let invalid = |why: &str| MicrosandboxError::InvalidConfig(format!("registries.policy: {}: {why}", path.display()));
    let der = SubjectPublicKeyInfoDer::from_pem_slice(&text)
        .map_err(|_| invalid("it is not a PEM file with a PUBLIC KEY, as `cosign public-key` writes it"))?;
    parse(&der).ok_or_else(|| invalid("the key is of another kind than ECDSA P-256 and Ed25519"))
}

fn parse(der: &[u8]) -> Option<Key> {
    let (algorithm, bytes): (&'static dyn VerificationAlgorithm, &[u8]) =
        match (der.strip_prefix(&P256), der.strip_prefix(&ED25519_PREFIX)) {
            (Some(point), _) if point.len() == P256_LENGTH => (&ECDSA_P256_SHA256_ASN1, point),
            (_, Some(key)) if key.len() == ED25519_LENGTH => (&ED25519, key),
            _ => return None,
        };
    Some(Key { algorithm, bytes: bytes.to_vec() })
}

#[cfg(test)]
pub mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    use super::*;

    /// A key that signs, and the policy's view of it.
    pub struct Signer(EcdsaKeyPair);

    impl Signer {
        pub fn new() -> Signer {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            Signer(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap())
        }

        pub fn sign(&self, message: &[u8]) -> Vec<u8> {
            self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        }

        pub fn keys(&self) -> Keys {
            Keys(vec![parse(&[&P256[..], self.0.public_key().as_ref()].concat()).unwrap()])
        }
    }

    #[test]
    fn a_signature_is_of_its_key_and_its_bytes() {
        let (signer, other) = (Signer::new(), Signer::new());
        let signature = signer.sign(b"message");
        assert!(signer.keys().signed(b"message", &signature));
        assert!(!signer.keys().signed(b"massage", &signature));
        assert!(!other.keys().signed(b"message", &signature));
        assert!(!signer.keys().signed(b"message", &[]));
        let pair =
            Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref()).unwrap();
        let edwards = Keys(vec![parse(&[&ED25519_PREFIX[..], pair.public_key().as_ref()].concat()).unwrap()]);
        assert!(edwards.signed(b"message", pair.sign(b"message").as_ref()));
        assert!(!edwards.signed(b"message", &signature));
    }

    #[test]
    fn a_key_of_another_kind_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, why) in [
            ("", "PUBLIC KEY"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PUBLIC KEY"),
            ("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "ECDSA P-256 and Ed25519"),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let error = Keys::read(&[file.path().to_owned()]).err().unwrap().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Keys::read(&["/nonexistent/key.pub".into()]).is_err());
    }
}
