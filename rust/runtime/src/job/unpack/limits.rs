//! Why unpacking stops, and the bounds that make it stop. Every text that comes from an image is quoted and escaped.

use microsandbox_contract::{Headroom, ImageLimits, JobError, JobErrorKind};
use microsandbox_rooted::tar;
pub use microsandbox_rooted::tar::quoted;
use rustix::fd::AsFd;
use rustix::io::Errno;

/// A job that cannot go on.
pub type Outcome<T> = Result<T, JobError>;

/// Why the tar of a layer is not read any further.
pub fn refused(limits: &ImageLimits, refusal: tar::Error) -> JobError {
    match refusal {
        tar::Error::Malformed(text) => corrupt(text),
        tar::Error::Unsupported(text) => error(
            JobErrorKind::CorruptLayer,
            text,
            "build the image anew with another tool, or its layers with GNU tar",
        ),
        tar::Error::UnsafeName(text) => unsafe_entry(text),
        tar::Error::ExtensionTooLong => {
            exceeded("pax_bytes", limits.pax_bytes, "an extended header or a map of a sparse file with more bytes")
        }
    }
}

pub fn unsafe_entry(message: String) -> JobError {
    error(
        JobErrorKind::UnsafeEntry,
        message,
        "the image was made to write outside of its root or is broken: do not use it",
    )
}

pub fn corrupt(message: impl Into<String>) -> JobError {
    error(
        JobErrorKind::CorruptLayer,
        message.into(),
        "load or pull the image again; if it stays, the image itself is damaged",
    )
}

pub fn digest_mismatch(message: String) -> JobError {
    error(
        JobErrorKind::DigestMismatch,
        message,
        "load or pull the image again; if it stays, the image was changed after it was made",
    )
}

/// A failed system call on an object of the tree.
pub fn failed(action: &str, name: &[u8], errno: Errno) -> JobError {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error());
    let message = format!("{action} {}: {text}", quoted(name));
    let (kind, hint) = match errno {
        Errno::NOSPC | Errno::DQUOT => (JobErrorKind::NoSpace, "free space on the file system of the product home"),
        Errno::PERM | Errno::ACCESS | Errno::ROFS => {
            (JobErrorKind::Denied, "check the owner of the product home and its id mapping")
        }
        Errno::NAMETOOLONG => {
            (JobErrorKind::UnsafeEntry, "a name in the image is longer than this file system can hold")
        }
        _ => (JobErrorKind::Io, "check the file system of the product home"),
    };
    JobError { kind, message, errno: Some(errno.raw_os_error()), hint: hint.into() }
}

/// Says in which layer it was: an image has many, and the digest is how other tools name them.
pub fn of_layer(digest: &str, error: JobError) -> JobError {
    let digest = quoted(digest.as_bytes());
    JobError { message: format!("layer {}: {}", digest.trim_matches('"'), error.message), ..error }
}

fn error(kind: JobErrorKind, message: String, hint: &str) -> JobError {
    JobError { kind, message, errno: None, hint: hint.to_owned() }
}

fn exceeded(name: &str, limit: u64, what: &str) -> JobError {
    error(
        JobErrorKind::LimitExceeded,
        format!("image.{name}: {what} than {limit}"),
        &format!("if you trust the image, raise the limit image.{name}"),
    )
}

/// The paths of the directories of one layer, which are kept until its end.
pub fn too_many_names(most: usize) -> JobError {
    error(
        JobErrorKind::LimitExceeded,
        format!("the paths of the directories of the layer have more than {most} bytes"),
        "build the image with fewer or shorter names of directories, or in more layers",
    )
}

/// What has been unpacked so far, against the bounds.
pub struct Budget {
    limits: ImageLimits,
    headroom: Headroom,
    entries: u64,
    total: u64,
    layer: u64,
    /// Bytes written since the free space was looked at.
    unseen: u64,
}

/// Bytes written between two looks at the free space.
const LOOK_EVERY: u64 = 16 << 20;
/// What an entry takes of the disk besides its content, about.
const ENTRY_BYTES: u64 = 4096;

impl Budget {
    pub fn new(limits: ImageLimits, headroom: Headroom) -> Budget {
        // The first look comes with the first entry.
        Budget { limits, headroom, entries: 0, total: 0, layer: 0, unseen: LOOK_EVERY }
    }

    /// `bytes` more are on the file system of `place`: refused where less than the headroom is free by now.
    pub fn written(&mut self, place: impl AsFd, bytes: u64) -> Outcome<()> {
        self.unseen = self.unseen.saturating_add(bytes);
        if self.unseen < LOOK_EVERY {
            return Ok(());
        }
        self.unseen = 0;
        // Where the free space cannot be read, a full disk still refuses the write.
        let Ok(stat) = rustix::fs::fstatvfs(place) else { return Ok(()) };
        self.headroom.check(&stat).map_err(|shortage| {
            let message = format!("unpack a layer: the file system of the product home has {shortage}");
            JobError { kind: JobErrorKind::NoSpace, message, errno: None, hint: String::new() }
        })
    }

    pub fn begin_layer(&mut self) {
        self.layer = 0;
    }

    pub fn limits(&self) -> &ImageLimits {
        &self.limits
    }

    /// Bytes of file content in this layer.
    pub fn layer_bytes(&self) -> u64 {
        self.layer
    }

    /// One more entry with `size` bytes of content, `depth` names deep, on the file system of `place`.
    pub fn entry(&mut self, place: impl AsFd, size: u64, depth: usize) -> Outcome<()> {
        self.written(place, ENTRY_BYTES)?;
        self.entries += 1;
        self.layer = self.layer.saturating_add(size);
        self.total = self.total.saturating_add(size);
        let limits = &self.limits;
        let checks = [
            (self.entries > limits.entries, "entries", limits.entries, "more entries"),
            (depth as u64 > u64::from(limits.path_depth), "path_depth", u64::from(limits.path_depth), "a path deeper"),
            (size > limits.file_bytes, "file_bytes", limits.file_bytes, "a file with more bytes"),
            (self.layer > limits.layer_bytes, "layer_bytes", limits.layer_bytes, "a layer with more bytes"),
            (self.total > limits.total_bytes, "total_bytes", limits.total_bytes, "more bytes in all"),
        ];
        match checks.iter().find(|(over, ..)| *over) {
            Some((_, name, limit, what)) => Err(exceeded(name, *limit, what)),
            None => Ok(()),
        }
    }
}

/// Unpacked bytes that need no justification by packed ones.
const RATIO_FREE: u64 = 64 << 20;

/// `unpacked` bytes came out of `packed` ones.
pub fn check_ratio(limits: &ImageLimits, packed: u64, unpacked: u64) -> Outcome<()> {
    let allowed = RATIO_FREE.saturating_add(packed.saturating_mul(limits.ratio));
    if unpacked > allowed {
        return Err(exceeded("ratio", limits.ratio, "more unpacked bytes for each packed one"));
    }
    // Headers and padding count here: an archive of nothing but empty entries is bounded as well.
    let stream = limits.layer_bytes.saturating_add(limits.entries.saturating_mul(2048));
    if unpacked > stream {
        return Err(exceeded("layer_bytes", limits.layer_bytes, "a layer with more bytes"));
    }
    Ok(())
}

/// A zstd frame that wants a larger window.
pub fn window_exceeded(limits: &ImageLimits) -> JobError {
    exceeded("zstd_window", limits.zstd_window_bytes, "a zstd window with more bytes")
}
