//! Image references: which spellings mean the same image.

/// Longest reference.
const MAX_REFERENCE: usize = 255;
const MAX_TAG: usize = 128;
const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_DOMAIN_ALIAS: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";
/// The word that means this machine's own image, and therefore names no other.
pub const HOST: &str = "host";

/// A reference in its full form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    domain: String,
    path: String,
    /// Absent only beside a digest.
    tag: Option<String>,
    /// `sha256:<hex>`: pins the manifest.
    digest: Option<String>,
}

impl Reference {
    /// `alpine`, `alpine:3.20`, `ghcr.io/org/image:tag`, `alpine@sha256:…`; the error is for people.
    pub fn parse(text: &str) -> Result<Reference, String> {
        let wrong = |why: &str| Err(format!("{text:?} is not an image reference: {why}"));
        if text.is_empty() || text.len() > MAX_REFERENCE {
            return wrong("it must have 1 to 255 characters");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if super::document::Sha256Digest::parse(digest).is_ok() => {
                (rest, Some(digest.to_owned()))
            }
            Some(_) => return wrong("after @ comes sha256: and 64 lower-case hexadecimal digits"),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return wrong("a tag has letters, digits, _ . - and at most 128 of them");
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path),
            _ => (DEFAULT_DOMAIN, name),
        };
        let domain = if domain == DEFAULT_DOMAIN_ALIAS { DEFAULT_DOMAIN } else { domain };
        if !path.split('/').all(is_path_component) || !is_host_and_port(domain) {
            return wrong("a name has lower-case letters and digits, joined by . _ - or /");
        }
        let library = domain == DEFAULT_DOMAIN && !path.contains('/');
        let path = if library { format!("library/{path}") } else { path.to_owned() };
        let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }

    /// `host` or `host:port` of the registry.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within its registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or(DEFAULT_TAG)
    }

    /// The one name under which an image is recorded: short for those of the default registry, as people write them.
    pub fn canonical(&self) -> String {
        let name = match (self.domain.as_str(), self.path.strip_prefix("library/")) {
            (DEFAULT_DOMAIN, Some(short)) => short.to_owned(),
            (DEFAULT_DOMAIN, None) => self.path.clone(),
            _ => format!("{}/{}", self.domain, self.path),
        };
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{name}@{digest}"),
            (None, _) => format!("{name}:{}", self.tag()),
        }
    }

    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// A digest alone gives no name.
    pub fn has_tag(&self) -> bool {
        self.tag.is_some()
    }

    /// Name and tag alone.
    pub fn without_digest(mut self) -> Reference {
        self.digest = None;
        self
    }

    /// Name and tag in full.
    pub fn full(&self) -> String {
        format!("{}/{}:{}", self.domain, self.path, self.tag())
    }

    /// Same repository, whatever tag and digest.
    pub fn same_repository(&self, other: &Reference) -> bool {
        (&self.domain, &self.path) == (&other.domain, &other.path)
    }

    /// Every spelling of the name and tag, the digest left out; the full form first.
    pub fn spellings(&self) -> Vec<String> {
        let mut names = vec![format!("{}/{}", self.domain, self.path)];
        if self.domain == DEFAULT_DOMAIN {
            names.push(self.path.clone());
            names.push(format!("{DEFAULT_DOMAIN_ALIAS}/{}", self.path));
            if let Some(short) = self.path.strip_prefix("library/") {
                names.push(short.to_owned());
                names.push(format!("{DEFAULT_DOMAIN}/{short}"));
                names.push(format!("{DEFAULT_DOMAIN_ALIAS}/{short}"));
            }
        }
        let tag = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let mut all: Vec<String> = names.iter().map(|name| format!("{name}:{tag}")).collect();
        if tag == DEFAULT_TAG {
            all.extend(names);
        }
        all
    }
}

/// `localhost`, a name with a dot, or one with a port.
fn is_domain(text: &str) -> bool {
    text == "localhost" || text.contains('.') || text.contains(':') || text.bytes().any(|b| b.is_ascii_uppercase())
}

/// Labels joined by dots and a port, or an IPv6 address in brackets and a port.
fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        label.bytes().next().is_some_and(plain)
            && label.bytes().last().is_some_and(plain)
            && label.bytes().all(|byte| plain(byte) || byte == b'-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host_fits && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = text.bytes().next().is_some_and(word);
    first && text.len() <= MAX_TAG && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_path_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else { return false };
    plain(first) && plain(last) && text.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_spellings_are_one_image() {
        let same = [
            "alpine",
            "alpine:latest",
            "library/alpine",
            "docker.io/alpine",
            "docker.io/library/alpine:latest",
            "index.docker.io/library/alpine",
        ];
        let full = Reference::parse(same[0]).unwrap();
        for text in same {
            assert_eq!(Reference::parse(text).unwrap(), full, "{text}");
            assert!(full.spellings().iter().any(|spelling| spelling == text), "{text}");
        }
        for other in ["alpine:3", "joe/alpine", "ghcr.io/library/alpine", "localhost/alpine"] {
            assert_ne!(Reference::parse(other).unwrap(), full, "{other}");
        }
    }

    #[test]
    fn a_reference_has_a_full_and_a_short_spelling() {
        for (text, full, short) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/joe/app:2", "docker.io/joe/app:2", "joe/app:2"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.full(), reference.canonical()), (full.to_owned(), short.to_owned()));
        }
    }

    #[test]
    fn every_spelling_parses_back() {
        for text in ["alpine:3.20", "[::1]:5000/a", "joe/app", "localhost:5000/a/b:v1", "ghcr.io/org/img"] {
            let reference = Reference::parse(text).unwrap();
            for spelling in reference.spellings() {
                assert_eq!(Reference::parse(&spelling).unwrap(), reference, "{spelling}");
            }
        }
    }

    #[test]
    fn a_digest_pins_and_needs_no_tag() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = Reference::parse(&format!("alpine@{digest}")).unwrap();
        assert_eq!(pinned.digest(), Some(digest.as_str()));
        assert!(pinned.same_repository(&Reference::parse("docker.io/library/alpine:3").unwrap()));
    }

    // hazard: I1
    #[test]
    fn names_that_are_no_references_are_refused() {
        for text in [
            "",
            "/",
            "a//b",
            "../x",
            "a/../b",
            "UPPER",
            "a b",
            "a:",
            "a:b:c",
            "a@sha256:1",
            "a@",
            ":tag",
            "-a",
            "a/",
            "a\n",
            "é",
            "a:..",
            "a.-b/c",
            "localhost:0/c",
            "localhost:x/c",
            "[::g]:1/c",
            &"a".repeat(256),
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }
}
