//! A `PatchConfig` as a patch of the model.

use microsandbox_core::model::Patch;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// From what `_to_dict` gave, which has checked the fields that its kind needs.
pub fn patch_of(config: &Bound<'_, PyAny>) -> PyResult<Patch> {
    let text = |name: &str| -> PyResult<String> { config.get_item(name)?.extract() };
    let get = |name: &str| config.call_method1("get", (name,));
    let mode: Option<u32> = get("mode")?.extract()?;
    if mode.is_some_and(|mode| mode > 0o7777) {
        return Err(PyValueError::new_err("mode must be permission bits: 0 to 0o7777"));
    }
    let replace = get("replace")?.extract::<Option<bool>>()?.unwrap_or(false);
    let kind = text("kind")?;
    Ok(match kind.as_str() {
        "text" => Patch::File { path: text("path")?, content: text("content")?.into(), mode, replace },
        "file" => {
            let content = config.get_item("content")?.cast_into::<PyBytes>()?.as_bytes().to_vec().into();
            Patch::File { path: text("path")?, content, mode, replace }
        }
        "mkdir" => Patch::Mkdir { path: text("path")?, mode },
        "append" => Patch::Append { path: text("path")?, content: text("content")?.into() },
        "copy_file" => Patch::CopyFile { src: text("src")?.into(), dst: text("dst")?, mode, replace },
        "copy_dir" => Patch::CopyDir { src: text("src")?.into(), dst: text("dst")?, replace },
        "symlink" => Patch::Symlink { target: text("target")?, link: text("link")?, replace },
        "remove" => Patch::Remove { path: text("path")? },
        other => return Err(PyValueError::new_err(format!("unknown kind of patch: {other}"))),
    })
}
