//! Values between processes: `pickle`, `copy`, worker pools.
//!
//! Every result that is plain data is a [`Value`]: its parts make it again. `__reduce__` of its class is [`reduce`], and
//! `_restore` is what the other process calls. A class that is bound to its process (a connection, a stream) is none, and
//! refuses.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use microsandbox_core::error::ExecFailure;
use microsandbox_core::model;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::time::Duration;

use crate::backend::BackendInfo;
use crate::enums::Member;
use crate::exec::{ExecEvent, ExecOutput};
use crate::files::{FsEntry, FsEvent, FsMetadata};
use crate::handle::SandboxStopResult;
use crate::image::{ImageConfigDetail, ImageLayerDetail, ImagePruneReport};
use crate::logs::LogEntry;
use crate::metrics::SandboxMetrics;

/// Plain data.
pub trait Value: Sized {
    const NAME: &'static str;
    /// What makes it again.
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>>;
    fn of_parts(parts: &Bound<'_, PyTuple>) -> PyResult<Self>;
}

/// What `__reduce__` returns.
pub type Reduced<'py> = (Bound<'py, PyAny>, (&'static str, Bound<'py, PyTuple>));

pub fn reduce<'py, T: Value>(py: Python<'py>, value: &T) -> PyResult<Reduced<'py>> {
    let restore = py.import("microsandbox._microsandbox")?.getattr("_restore")?;
    Ok((restore, (T::NAME, value.parts(py)?)))
}

/// `__reduce__` of what is bound to its process.
pub fn refuse() -> PyResult<()> {
    let text =
        "this object belongs to the process that made it: pass the name, and look it up again in the other process";
    Err(PyTypeError::new_err(text))
}

/// A time, to the nanosecond.
type Time = (i64, u32);

fn time(time: DateTime<Utc>) -> Time {
    (time.timestamp(), time.timestamp_subsec_nanos())
}

fn of_time((seconds, nanos): Time) -> PyResult<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, nanos).ok_or_else(|| PyValueError::new_err("a time out of range"))
}

/// Bytes; a path may be any bytes as well, which its text holds in a form of its own.
struct Data(Bytes);

impl<'a, 'py> FromPyObject<'a, 'py> for Data {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Data(Bytes::copy_from_slice(object.cast::<PyBytes>()?.as_bytes())))
    }
}

macro_rules! values {
    ($py:ident; $($class:ident: $value:ident => $parts:expr, $pattern:pat = $types:ty => $made:expr;)+) => {
        $(
            #[allow(clippy::type_complexity, reason = "the fields, one after the other")]
            impl Value for $class {
                const NAME: &'static str = stringify!($class);
                fn parts<'py>(&self, $py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
                    let $value = self;
                    $parts.into_pyobject($py)
                }
                fn of_parts(parts: &Bound<'_, PyTuple>) -> PyResult<Self> {
                    let $pattern: $types = parts.extract()?;
                    Ok($made)
                }
            }
        )+

        /// Makes a value again in the process that it travelled to.
        #[pyfunction(name = "_restore")]
        pub fn restore<'py>(name: &str, parts: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
            let py = parts.py();
            match name {
                $($class::NAME => Ok(Bound::new(py, $class::of_parts(parts)?)?.into_any()),)+
                other => Err(PyValueError::new_err(format!("{other:?} is no value of this version of microsandbox"))),
            }
        }
    };
}

values! {
    py;
    BackendInfo: v => (v.kind.clone(), v.api_url.clone(), v.source.clone(), v.profile.clone()),
        (kind, api_url, source, profile) = (String, Option<String>, String, Option<String>) =>
        BackendInfo { kind, api_url, source, profile };
    FsEntry: v => (&v.entry.path, Member(v.entry.kind), v.entry.size, v.entry.mode, v.entry.modified_ms),
        (path, Member(kind), size, mode, modified_ms) = (String, Member<model::FsEntryKind>, u64, u32, Option<f64>) =>
        FsEntry::new(model::FsEntry { path, kind, size, mode, modified_ms });
    FsEvent: v => (Member(v.event.kind), &v.event.path, v.event.from.as_ref(), v.event.is_dir),
        (Member(kind), path, from, is_dir) = (Member<model::FsEventKind>, String, Option<String>, bool) =>
        FsEvent { event: model::FsEvent { kind, path, from, is_dir } };
    FsMetadata: v => {
            let m = &v.metadata;
            (Member(m.kind), m.size, m.mode, m.uid, m.gid, m.readonly, m.modified_ms, m.created_ms)
        },
        (Member(kind), size, mode, uid, gid, readonly, modified_ms, created_ms) =
            (Member<model::FsEntryKind>, u64, u32, u32, u32, bool, Option<f64>, Option<f64>) =>
        // The exact time is for copies in this process; Python sees milliseconds.
        FsMetadata::new(model::FsMetadata {
            kind, size, mode, uid, gid, readonly, modified_ms, modified: None, created_ms,
        });
    ImageConfigDetail: v => {
            let c = v.config.clone();
            (c.digest, c.env, c.cmd, c.entrypoint, c.working_dir, c.user, c.labels, c.stop_signal)
        },
        (digest, env, cmd, entrypoint, working_dir, user, labels, stop_signal) = (
            String, Vec<String>, Option<Vec<String>>, Option<Vec<String>>, Option<String>, Option<String>,
            Option<std::collections::BTreeMap<String, String>>, Option<String>,
        ) =>
        ImageConfigDetail { config: model::ImageConfigDetail {
            digest, env, cmd, entrypoint, working_dir, user, labels, stop_signal,
        } };
    ImageLayerDetail: v => {
            let l = v.layer.clone();
            (l.diff_id, l.blob_digest, l.media_type, l.compressed_size_bytes, l.erofs_size_bytes, l.position)
        },
        (diff_id, blob_digest, media_type, compressed_size_bytes, erofs_size_bytes, position) =
            (String, String, Option<String>, Option<u64>, Option<u64>, u32) =>
        ImageLayerDetail { layer: model::ImageLayerDetail {
            diff_id, blob_digest, media_type, compressed_size_bytes, erofs_size_bytes, position,
        } };
    ImagePruneReport: v => {
            let r = &v.report;
            (
                (r.image_refs_removed, r.manifests_removed, r.layers_removed, r.blobs_removed, r.parts_removed),
                (r.skipped_in_use, r.bytes_reclaimed, r.dry_run),
                (&r.removed[..], v.holders()),
            )
        },
        (counts, (skipped_in_use, bytes_reclaimed, dry_run), (removed, in_use)) = (
            (u64, u64, u64, u64, u64), (u64, Option<u64>, bool), (Vec<String>, Vec<(String, String)>),
        ) => {
            let (image_refs_removed, manifests_removed, layers_removed, blobs_removed, parts_removed) = counts;
            let holder = |(reference, holder)| model::ImageHolder { reference, holder };
            ImagePruneReport { report: model::ImagePruneReport {
                dry_run, image_refs_removed, manifests_removed, layers_removed, blobs_removed, parts_removed,
                skipped_in_use, bytes_reclaimed, removed, in_use: in_use.into_iter().map(holder).collect(),
            } }
        };
    LogEntry: v => {
            let e = &v.entry;
            (time(e.timestamp), Member(e.source), e.session_id, &e.data[..], &e.cursor)
        },
        (timestamp, Member(source), session_id, Data(data), cursor) =
            (Time, Member<model::LogSource>, Option<u64>, Data, String) =>
        LogEntry::new(model::LogEntry { timestamp: of_time(timestamp)?, source, session_id, data, cursor });
    SandboxMetrics: v => {
            let s = &v.sample;
            (
                (s.cpu_percent, s.vcpu_time_ns, s.uptime_ms, time(s.timestamp)),
                (s.memory_bytes, s.memory_available_bytes, s.memory_host_resident_bytes, s.memory_limit_bytes),
                (s.disk_read_bytes, s.disk_write_bytes, s.net_rx_bytes, s.net_tx_bytes),
                (s.upper_used_bytes, s.upper_free_bytes, s.upper_host_allocated_bytes),
            )
        },
        (clocks, memory, traffic, upper) = (
            (f64, u64, u64, Time), (u64, Option<u64>, Option<u64>, u64), (u64, u64, u64, u64),
            (Option<u64>, Option<u64>, Option<u64>),
        ) =>
        SandboxMetrics::new(model::SandboxMetrics {
            cpu_percent: clocks.0,
            vcpu_time_ns: clocks.1,
            uptime_ms: clocks.2,
            timestamp: of_time(clocks.3)?,
            memory_bytes: memory.0,
            memory_available_bytes: memory.1,
            memory_host_resident_bytes: memory.2,
            memory_limit_bytes: memory.3,
            disk_read_bytes: traffic.0,
            disk_write_bytes: traffic.1,
            net_rx_bytes: traffic.2,
            net_tx_bytes: traffic.3,
            upper_used_bytes: upper.0,
            upper_free_bytes: upper.1,
            upper_host_allocated_bytes: upper.2,
        });
    SandboxStopResult: v => {
            let r = &v.result;
            (&r.name, Member(r.status), r.exit_code, r.signal, time(r.observed_at), r.source.as_ref())
        },
        (name, Member(status), exit_code, signal, observed_at, source) =
            (String, Member<model::SandboxStatus>, Option<i32>, Option<i32>, Time, Option<String>) =>
        SandboxStopResult::new(model::SandboxStopResult {
            name, status, exit_code, signal, observed_at: of_time(observed_at)?, source,
        });
    ExecOutput: v => {
            let (exit, stdout, stderr, stdout_total, stderr_total) = v.parts(py);
            (exit_parts(exit), stdout, stderr, stdout_total, stderr_total)
        },
        (exit, Data(stdout), Data(stderr), stdout_total, stderr_total) = (Exit, Data, Data, u64, u64) =>
        ExecOutput::new(model::ExecOutput { exit: of_exit(exit), stdout, stderr, stdout_total, stderr_total });
    ExecEvent: v => event_parts(&v.event),
        (kind, number, data, exit, failure) = (u8, Option<i64>, Option<Data>, Option<Exit>, Option<Failure>) =>
        ExecEvent { event: of_event(kind, number, data, exit, failure)? };
}

/// An exit, as tuples.
type Exit = ((i32, Option<i32>, bool, bool), (bool, u32, u64, u32));

fn exit_parts(exit: &model::ExecExit) -> Exit {
    let took = exit.duration;
    (
        (exit.code, exit.signal, exit.oom_killed, exit.timed_out),
        (exit.drained, exit.descendants, took.as_secs(), took.subsec_nanos()),
    )
}

fn of_exit(parts: Exit) -> model::ExecExit {
    let ((code, signal, oom_killed, timed_out), (drained, descendants, secs, nanos)) = parts;
    let duration = Duration::new(secs, nanos % 1_000_000_000);
    model::ExecExit { code, signal, oom_killed, timed_out, drained, descendants, duration }
}

/// A failed start, as a tuple.
type Failure = (String, String, Option<i32>, Option<String>, Option<String>);
type EventParts<'a> = (u8, Option<i64>, Option<&'a [u8]>, Option<Exit>, Option<Failure>);

fn event_parts(event: &model::ExecEvent) -> EventParts<'_> {
    use model::ExecEvent as Event;
    match event {
        Event::Started { pid } => (0, Some(i64::from(*pid)), None, None, None),
        Event::Stdout(data) => (1, None, Some(data), None, None),
        Event::Stderr(data) => (2, None, Some(data), None, None),
        Event::StdinError { errno, message } => (3, errno.map(i64::from), Some(message.as_bytes()), None, None),
        Event::Exited(exit) => (4, None, None, Some(exit_parts(exit)), None),
        Event::Failed(failure) => {
            let f = failure.clone();
            (5, None, None, None, Some((f.kind, f.message, f.errno, f.errno_name, f.stage)))
        }
    }
}

fn of_event(
    kind: u8,
    number: Option<i64>,
    data: Option<Data>,
    exit: Option<Exit>,
    failure: Option<Failure>,
) -> PyResult<model::ExecEvent> {
    use model::ExecEvent as Event;
    match (kind, data, exit, failure) {
        (0, ..) => Ok(Event::Started { pid: number.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default() }),
        (1, Some(Data(data)), ..) => Ok(Event::Stdout(data)),
        (2, Some(Data(data)), ..) => Ok(Event::Stderr(data)),
        (3, Some(Data(data)), ..) => Ok(Event::StdinError {
            errno: number.and_then(|errno| i32::try_from(errno).ok()),
            message: String::from_utf8_lossy(&data).into_owned(),
        }),
        (4, _, Some(exit), _) => Ok(Event::Exited(of_exit(exit))),
        (5, _, _, Some((kind, message, errno, errno_name, stage))) => {
            Ok(Event::Failed(ExecFailure { kind, message, errno, errno_name, stage }))
        }
        _ => Err(PyValueError::new_err("not the parts of an ExecEvent")),
    }
}
