//! One line of a log file as an entry.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::DEFAULT_SOURCES;
use microsandbox_core::model::LogSource;

/// The source of a line that stands for output that is not in the log.
const GAP: &str = "gap";

/// A line of `exec.log`.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(borrow)]
    d: Cow<'a, str>,
    #[serde(default)]
    id: Option<u64>,
    #[serde(borrow, default)]
    e: Option<Cow<'a, str>>,
}

/// What a line says.
pub struct Parsed {
    pub timestamp: DateTime<Utc>,
    pub source: LogSource,
    pub session_id: Option<u64>,
    pub data: Bytes,
}

/// Which entries are wanted.
#[derive(Clone)]
pub struct Filter {
    sources: Vec<LogSource>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl Filter {
    /// `since` inclusive, `until` exclusive; no sources means the three of programs.
    pub fn new(sources: &[LogSource], since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Filter {
        let sources = if sources.is_empty() { DEFAULT_SOURCES.to_vec() } else { sources.to_vec() };
        Filter { sources, since, until }
    }

    pub fn wants(&self, source: LogSource) -> bool {
        self.sources.contains(&source)
    }

    fn admits(&self, source: LogSource, timestamp: DateTime<Utc>) -> bool {
        self.wants(source) && self.covers(timestamp)
    }

    fn covers(&self, timestamp: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| timestamp >= since) && self.until.is_none_or(|until| timestamp < until)
    }
}

/// A JSON line. What is not one (a line torn by a kill or a full disk) is no entry.
pub fn record(line: &[u8], filter: &Filter) -> Option<Parsed> {
    let record: Record<'_> = serde_json::from_slice(line).ok()?;
    let timestamp = time(&record.t)?;
    // The place of missing output is shown whatever the sources are: silence would be a lie about all of them.
    let is_gap = record.s == GAP;
    let source = if is_gap { LogSource::System } else { LogSource::parse(&record.s)? };
    if !(is_gap && filter.covers(timestamp) || filter.admits(source, timestamp)) {
        return None;
    }
    let data = match record.e.as_deref() {
        None => Bytes::from(record.d.into_owned()),
        Some("b64") => STANDARD.decode(record.d.as_bytes()).ok()?.into(),
        Some(_) => return None,
    };
    let session_id = record.id.filter(|_| source != LogSource::System);
    Some(Parsed { timestamp, source, session_id, data })
}

/// A line of `runtime.log` or `kernel.log`: a leading RFC 3339 time counts, else the line is as old as the one before.
pub fn text(line: &[u8], last: &mut DateTime<Utc>, filter: &Filter) -> Option<Parsed> {
    let mut data = line;
    let space = line.iter().position(|&byte| byte == b' ').filter(|&end| end <= 40);
    if let Some(end) = space
        && let Some(stamp) = std::str::from_utf8(&line[..end]).ok().and_then(time)
    {
        *last = stamp;
        data = &line[end + 1..];
    }
    filter.admits(LogSource::System, *last).then(|| Parsed {
        timestamp: *last,
        source: LogSource::System,
        session_id: None,
        data: Bytes::copy_from_slice(data),
    })
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc))
}
