//! Manifests, indexes and configurations of a registry: bounded, and what their digests and media types say.

use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};

use super::client::{Client, Request};
use super::patience::Patience;
use crate::document::{self, Descriptor, MAX_DOCUMENT, Sha256Digest};
use crate::failure::{Failure, corrupt, limit, mismatch};
use microsandbox_core::error::MicrosandboxError;

/// What may come for a tag.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const DIGEST: &str = "docker-content-digest";
/// What a server says that does not know what it serves; the document's own word counts then.
const UNSPECIFIC: [&str; 3] = ["application/json", "application/octet-stream", "text/plain"];

/// A manifest or an index.
#[derive(Debug)]
pub struct Document {
    pub digest: Sha256Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl Client {
    /// The digest of what a tag means now; one HEAD. `None`: the registry does not say.
    pub async fn digest_of(&self, tag: &str) -> Result<Option<Sha256Digest>, Failure> {
        let what = format!("manifest {tag}");
        let path = format!("manifests/{tag}");
        let request = Request { method: Method::HEAD, path, accept: MANIFESTS, headers: Vec::new(), what: &what };
        let response = self.send(&request, &mut Patience::default()).await?;
        match response.status() {
            StatusCode::OK => Ok(header(response.headers()).transpose()?),
            StatusCode::NOT_FOUND => Err(self.not_found(tag)),
            _ => Ok(None),
        }
    }

    /// The manifest or index of a tag or a digest.
    pub async fn manifest(&self, reference: &str) -> Result<Document, Failure> {
        let what = format!("manifest {reference}");
        let path = format!("manifests/{reference}");
        let request = Request { method: Method::GET, path, accept: MANIFESTS, headers: Vec::new(), what: &what };
        let mut patience = Patience::default();
        let response = self.send(&request, &mut patience).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(self.not_found(reference)),
            _ => return Err(self.refused(&request, response).await),
        }
        self.refuse_encoding(response.headers(), &what)?;
        let declared = header(response.headers()).transpose()?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let bytes = self.bounded(response, MAX_DOCUMENT as usize, &what).await.map_err(|failure| match failure {
            Failure::Image { kind: microsandbox_core::error::ImageErrorKind::LimitExceeded, .. } => {
                limit(format!("{what} is larger than image.manifest_bytes = {MAX_DOCUMENT}"))
            }
            other => other,
        })?;
        let digest = Sha256Digest::of(&bytes);
        for expected in declared.iter().chain(Sha256Digest::parse(reference).iter()) {
            if *expected != digest {
                let (found, expected) = (digest.as_str(), expected.as_str());
                return Err(mismatch(format!("{what} has the digest {found}, not {expected}")));
            }
        }
        let media_type = if kind.is_empty() || UNSPECIFIC.contains(&kind.as_str()) {
            document::own_media_type(&bytes, &what)?
        } else {
            kind
        };
        Ok(Document { digest, media_type, bytes: bytes.into() })
    }

    /// A configuration, its size and digest verified.
    pub async fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>, Failure> {
        let digest = Sha256Digest::parse(&descriptor.digest)?;
        if descriptor.size > MAX_DOCUMENT {
            let size = descriptor.size;
            return Err(limit(format!("{what} has {size} bytes, more than image.config_bytes = {MAX_DOCUMENT}")));
        }
        let path = format!("blobs/{}", digest.as_str());
        let request = Request { method: Method::GET, path, accept: "*/*", headers: Vec::new(), what };
        let response = self.send(&request, &mut Patience::default()).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(&request, response).await);
        }
        self.refuse_encoding(response.headers(), what)?;
        // One byte more than there may be.
        let bytes = self.bounded(response, descriptor.size as usize, what).await?;
        if bytes.len() as u64 != descriptor.size {
            return Err(mismatch(format!("{what} has {} bytes, its descriptor says {}", bytes.len(), descriptor.size)));
        }
        document::verify(&bytes, &digest, what)?;
        Ok(bytes.into())
    }

    /// What stands beside an image, at most `limit` bytes of it; `None`: absent.
    pub async fn companion(&self, path: &str, accept: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let request =
            Request { method: Method::GET, path: path.to_owned(), accept, headers: Vec::new(), what: "signatures" };
        let response = self.send(&request, &mut Patience::default()).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refused(&request, response).await),
        }
        self.refuse_encoding(response.headers(), request.what)?;
        Ok(Some(self.bounded(response, limit as usize, request.what).await?.into()))
    }

    /// What was asked for is what its digest is of: no other form of it is taken.
    pub fn refuse_encoding(&self, headers: &HeaderMap, what: &str) -> Result<(), Failure> {
        match headers.get(http::header::CONTENT_ENCODING) {
            Some(value) if value != "identity" => Err(corrupt(format!("{what} came with the encoding {value:?}"))),
            _ => Ok(()),
        }
    }

    fn not_found(&self, reference: &str) -> Failure {
        let (host, repository) = (&self.settings.host, &self.settings.repository);
        let joint = if reference.contains(':') { '@' } else { ':' };
        let name = format!("{host}/{repository}{joint}{reference}");
        Failure::Other(MicrosandboxError::ImageNotFound(format!("{name} is not in the registry {host}")))
    }
}

fn header(headers: &HeaderMap) -> Option<Result<Sha256Digest, Failure>> {
    let text = headers.get(DIGEST)?.to_str().unwrap_or_default();
    Some(Sha256Digest::parse(text))
}
