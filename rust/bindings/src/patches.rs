//! Changes of the root file system.

use bytes::Bytes;
use microsandbox_core::model::Patch;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::arguments::{items_of, newtype};
use crate::enums::{Member, PatchKind};

newtype!(
    /// In order.
    Patches(Vec<Patch>) = |object| {
        items_of(object, "PatchConfig")?.iter().map(|item| item.extract::<PatchConfig>()?.patch()).collect()
    }
);

/// The dataclass of this name, which has checked the fields that its kind needs.
#[derive(FromPyObject)]
struct PatchConfig {
    kind: Member<PatchKind>,
    path: Option<String>,
    content: Option<Content>,
    src: Option<String>,
    dst: Option<String>,
    target: Option<String>,
    link: Option<String>,
    mode: Option<u32>,
    replace: bool,
}

#[derive(FromPyObject)]
enum Content {
    Text(String),
    Raw(PyBackedBytes),
}

impl PatchConfig {
    fn patch(self) -> PyResult<Patch> {
        let PatchConfig { kind: Member(kind), path, content, src, dst, target, link, mode, replace } = self;
        if mode.is_some_and(|mode| mode > 0o7777) {
            return Err(PyValueError::new_err("mode must be permission bits: 0 to 0o7777"));
        }
        let content = content.map(|content| match content {
            Content::Text(text) => Bytes::from(text),
            Content::Raw(data) => Bytes::from_owner(data),
        });
        Ok(match kind {
            PatchKind::Text | PatchKind::File => {
                Patch::File { path: need(path, "path")?, content: need(content, "content")?, mode, replace }
            }
            PatchKind::Mkdir => Patch::Mkdir { path: need(path, "path")?, mode },
            PatchKind::Append => Patch::Append { path: need(path, "path")?, content: need(content, "content")? },
            PatchKind::CopyFile => {
                Patch::CopyFile { src: need(src, "src")?.into(), dst: need(dst, "dst")?, mode, replace }
            }
            PatchKind::CopyDir => Patch::CopyDir { src: need(src, "src")?.into(), dst: need(dst, "dst")?, replace },
            PatchKind::Symlink => {
                Patch::Symlink { target: need(target, "target")?, link: need(link, "link")?, replace }
            }
            PatchKind::Remove => Patch::Remove { path: need(path, "path")? },
        })
    }
}

fn need<T>(field: Option<T>, name: &str) -> PyResult<T> {
    field.ok_or_else(|| PyTypeError::new_err(format!("PatchConfig.{name} is required for this kind")))
}
