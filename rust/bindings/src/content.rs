//! Content on its way to Python, once: what a file or a stream holds is put into the object that the caller gets while it
//! arrives. Collected here first, it would be in memory twice at the end.

use bytes::Bytes;
use futures::StreamExt as _;
use microsandbox_core::collected::{READ_BYTES, too_large};
use microsandbox_core::model::FsReadStream;
use microsandbox_core::{MicrosandboxError, MicrosandboxResult};
use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::errors;

/// Pieces that wait for the interpreter, and their bytes: taking its lock for each piece would cost more than copying.
const PIECES: usize = 8;
const HELD: usize = 2 << 20;
/// Content that is put together at its end.
const SMALL: usize = 4 << 20;
/// A smaller piece is copied, so that it does not keep the block in memory into which it was read.
const COPIED_BELOW: usize = 64 << 10;
/// Most memory that a text takes while it is decoded, unless the caller says how large the file may be.
const TEXT_BYTES: usize = 64 << 20;

/// Content of at most as many bytes as its reader allowed.
pub struct Content {
    pieces: Vec<Bytes>,
    held: usize,
    /// An `io.BytesIO` with what came before the pieces: it gives away its own object.
    whole: Option<Py<PyAny>>,
    /// Bytes that it begins with. They are zeros of the kernel, which take no memory before they are written.
    room: usize,
}

impl Content {
    /// What is left of the stream.
    pub async fn gather(stream: &mut FsReadStream, path: &str, most: Option<u64>) -> MicrosandboxResult<Content> {
        let most = most.unwrap_or(READ_BYTES);
        let room = most.min(READ_BYTES) as usize;
        let mut content = Content { pieces: Vec::new(), held: 0, whole: None, room };
        let mut total = 0;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            total += piece.len() as u64;
            if total > most {
                return Err(too_large(path, most));
            }
            content.push(piece)?;
        }
        Ok(content)
    }

    fn push(&mut self, piece: Bytes) -> MicrosandboxResult<()> {
        self.held += piece.len();
        self.pieces.push(if piece.len() < COPIED_BELOW { Bytes::copy_from_slice(&piece) } else { piece });
        let is_small = self.whole.is_none() && self.held < SMALL && self.pieces.len() < SMALL / COPIED_BELOW;
        if is_small || (self.whole.is_some() && self.pieces.len() < PIECES && self.held < HELD) {
            return Ok(());
        }
        let unkept = |why: String| MicrosandboxError::Runtime(format!("what was read cannot be kept: {why}"));
        Python::try_attach(|py| self.hand_over(py).map_err(|error| unkept(error.to_string())))
            .unwrap_or_else(|| Err(unkept("the interpreter is closing".into())))
    }

    fn hand_over(&mut self, py: Python<'_>) -> PyResult<()> {
        let whole = match self.whole.take() {
            Some(whole) => whole.into_bound(py),
            None => {
                // No other reference is kept: the object is written in place, and not copied first.
                let room = py.get_type::<PyBytes>().call1((self.room,))?;
                py.import("io")?.getattr("BytesIO")?.call1((room,))?
            }
        };
        for piece in self.pieces.drain(..) {
            whole.call_method1("write", (PyBytes::new(py, &piece),))?;
        }
        self.held = 0;
        self.whole = Some(whole.unbind());
        Ok(())
    }

    fn bytes<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        if self.whole.is_some() {
            self.hand_over(py)?;
        }
        match (&self.whole, &self.pieces[..]) {
            (Some(whole), _) => {
                whole.bind(py).call_method0("truncate")?;
                Ok(whole.bind(py).call_method0("getvalue")?.cast_into()?)
            }
            (None, [piece]) => Ok(PyBytes::new(py, piece)),
            (None, pieces) => PyBytes::new_with(py, self.held, |mut out| {
                for piece in pieces {
                    let (here, rest) = out.split_at_mut(piece.len());
                    here.copy_from_slice(piece);
                    out = rest;
                }
                Ok(())
            }),
        }
    }
}

impl<'py> IntoPyObject<'py> for Content {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = PyErr;
    fn into_pyobject(mut self, py: Python<'py>) -> PyResult<Self::Output> {
        self.bytes(py)
    }
}

/// Content that becomes a text.
pub struct TextContent {
    pub content: Content,
    pub path: String,
    /// The caller said how large the file may be.
    pub allowed: bool,
}

impl<'py> IntoPyObject<'py> for TextContent {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;
    fn into_pyobject(mut self, py: Python<'py>) -> PyResult<Self::Output> {
        let bytes = self.content.bytes(py)?;
        drop(self.content);
        let takes = memory_of_text(bytes.as_bytes());
        if !self.allowed && takes > TEXT_BYTES {
            return Err(errors::to_python(py, too_large_for_text(&self.path, bytes.as_bytes().len(), takes)));
        }
        PyString::from_encoded_object(&bytes, Some(c"utf-8"), Some(c"strict"))?.into_bound_py_any(py)
    }
}

/// The bytes, and the text that Python makes of them: every character takes as much as the widest one, and a text that is not
/// ASCII is made in two steps.
fn memory_of_text(bytes: &[u8]) -> usize {
    let len = bytes.len();
    match bytes.iter().copied().max() {
        None | Some(..0x80) => 2 * len,
        Some(..0xc4) => 3 * len,
        Some(..0xf0) => 4 * len,
        Some(_) => 6 * len,
    }
}

fn too_large_for_text(path: &str, len: usize, takes: usize) -> MicrosandboxError {
    MicrosandboxError::Filesystem {
        operation: "read".into(),
        path: path.into(),
        kind: "LimitExceeded".into(),
        errno: None,
        message: format!(
            "its {len} bytes take {takes} bytes of memory as a text, more than {TEXT_BYTES} (fs.read_text_bytes); pass max_bytes= \
             to allow that, or use read_stream"
        ),
    }
}
