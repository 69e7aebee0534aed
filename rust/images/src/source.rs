//! Where images come from without a registry: archives, image layouts, and the store of a Docker or Podman daemon.

mod daemon;
mod layout;

use std::fs::File;
use std::path::{Path, PathBuf};

use microsandbox_contract::ImageLimits;

use super::archive::{Archive, Cancelled, Spool};
use super::failure::{Failure, corrupt};
use super::plan::PlannedImage;
use super::reference::Reference;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::ImageSource;

/// A source, and which of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Docker or OCI archive; which of both its content says.
    Archive { path: PathBuf, image: Option<String> },
    /// A directory that is an OCI image layout.
    Layout { directory: PathBuf, image: Option<String> },
    /// An image of a daemon on this machine.
    Daemon { name: String },
}

impl Source {
    /// `docker-archive:FILE[:IMAGE]`, `oci-archive:FILE[:IMAGE]`, `oci:DIR[:IMAGE]` or `docker-daemon:NAME`. `None`: the text has
    /// none of these forms. A path has no colon.
    pub fn parse(text: &str) -> Option<MicrosandboxResult<Source>> {
        if !ImageSource::is_local_source(text) {
            return None;
        }
        let (kind, rest) = text.split_once(':')?;
        let (path, image) = match rest.split_once(':') {
            Some((path, image)) => (path, Some(image.to_owned())),
            None => (rest, None),
        };
        let source = match kind {
            "docker-archive" | "oci-archive" => Source::Archive { path: path.into(), image },
            "oci" => Source::Layout { directory: path.into(), image },
            "docker-daemon" => Source::Daemon { name: rest.to_owned() },
            _ => return None,
        };
        Some(source.checked(text))
    }

    /// What `load` was given: one of these forms, else the path of an archive.
    pub fn of_path(path: &Path) -> MicrosandboxResult<Source> {
        match path.to_str().and_then(Source::parse) {
            Some(source) => source,
            None => Ok(Source::Archive { path: path.to_owned(), image: None }),
        }
    }

    fn checked(self, text: &str) -> MicrosandboxResult<Source> {
        let wrong = |why: &str| Err(MicrosandboxError::InvalidConfig(format!("{text:?}: {why}")));
        match &self {
            Source::Archive { path, .. } | Source::Layout { directory: path, .. } if path.as_os_str().is_empty() => {
                wrong("a path is needed after the first colon")
            }
            Source::Archive { image: Some(image), .. } | Source::Layout { image: Some(image), .. }
                if image.is_empty() =>
            {
                wrong("the name of an image is needed after the second colon")
            }
            Source::Daemon { name } => match Reference::parse(name) {
                Ok(_) => Ok(self),
                Err(why) => Err(MicrosandboxError::InvalidConfig(why)),
            },
            _ => Ok(self),
        }
    }

    /// Opens and indexes the source. What is no archive on disk goes to `spool` first.
    pub fn open(&self, spool: &Spool<'_>, limits: &ImageLimits, cancelled: Cancelled) -> Result<Archive, Failure> {
        match self {
            Source::Archive { path, .. } => Archive::open(path, spool, limits, cancelled),
            Source::Layout { directory, image } => {
                let file = layout::pack(directory, image.as_deref(), spool, limits, &cancelled)?;
                Archive::of(file, directory, cancelled)
            }
            Source::Daemon { name } => {
                let file: File = daemon::fetch(name, spool, limits, &cancelled)?;
                Archive::of(file, Path::new(name), cancelled)
            }
        }
    }

    /// Leaves only the image that was asked for; it gets the name by which it was asked for.
    pub fn select(&self, images: Vec<PlannedImage>) -> Result<Vec<PlannedImage>, Failure> {
        let (wanted, by_name) = match self {
            Source::Archive { image: Some(image), .. } | Source::Layout { image: Some(image), .. } => (image, false),
            Source::Daemon { name } => (name, true),
            _ => return Ok(images),
        };
        let only = images.len() == 1;
        let names: Vec<String> = images.iter().flat_map(|image| image.names.iter().cloned()).collect();
        let fits = |image: &PlannedImage| {
            let named = image.names.iter().any(|name| name == wanted);
            named || image.references.iter().any(|known| super::same_image(known, wanted)) || by_name && only
        };
        let mut found: Vec<PlannedImage> = images.into_iter().filter(fits).collect();
        if found.is_empty() {
            return Err(Failure::Other(MicrosandboxError::ImageNotFound(format!(
                "{wanted} is not in it; it has {}",
                if names.is_empty() { "images without a name".to_owned() } else { names.join(", ") }
            ))));
        }
        if found.len() > 1 {
            return Err(corrupt(format!("{wanted} names {} images in it; use the full name of one", found.len())));
        }
        if by_name && let Some(image) = found.first_mut() {
            image.references = vec![wanted.clone()];
        }
        Ok(found)
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Archive { path, .. } => write!(f, "{}", path.display()),
            Source::Layout { directory, .. } => write!(f, "{}", directory.display()),
            Source::Daemon { name } => write!(f, "docker-daemon:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use microsandbox_core::model::LOCAL_SOURCES;

    use super::*;

    fn parsed(text: &str) -> Source {
        Source::parse(text).unwrap().unwrap()
    }

    #[test]
    fn the_local_sources_are_told_from_references_by_their_prefix() {
        let image = || Some("busybox:1".to_owned());
        assert_eq!(
            parsed("docker-archive:/a.tar:busybox:1"),
            Source::Archive { path: "/a.tar".into(), image: image() }
        );
        assert_eq!(parsed("oci-archive:a.tar"), Source::Archive { path: "a.tar".into(), image: None });
        assert_eq!(parsed("oci:dir:busybox:1"), Source::Layout { directory: "dir".into(), image: image() });
        assert_eq!(parsed("docker-daemon:busybox:1"), Source::Daemon { name: "busybox:1".into() });
        for text in ["busybox:1", "a.tar", "localhost:5000/oci", "./oci:dir"] {
            assert!(Source::parse(text).is_none() && !ImageSource::is_local_source(text), "{text}");
        }
        // What a server refuses by its beginning is all that is understood here.
        for start in LOCAL_SOURCES {
            assert!(Source::parse(&format!("{start}x")).is_some(), "{start}");
        }
        for text in ["oci:", "oci:dir:", "docker-archive:", "docker-daemon:UPPER", "docker-daemon:../x?a=b"] {
            assert!(matches!(Source::parse(text).unwrap(), Err(MicrosandboxError::InvalidConfig(_))), "{text}");
        }
    }
}
