//! `msb logs`: captured output of running and stopped sandboxes.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use microsandbox_core::model::{LogEntry, LogOptions, LogSource, LogStreamOptions};
use microsandbox_core::{Sandbox, SandboxHandle};
use regex::Regex;
use serde::Serialize;

use crate::flags::duration::parse_moment;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};
use crate::output::units::timestamp;
use crate::terminal::console::{json_for_terminals, printable};

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name of the sandbox.
    #[arg(value_name = "NAME")]
    name: String,
    /// Only the last N entries.
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Only entries from this time on: RFC 3339, or 5m for five minutes ago.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<DateTime<Utc>>,
    /// Only entries before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<DateTime<Utc>>,
    /// Follow new entries until the sandbox stops.
    #[arg(short, long)]
    follow: bool,
    /// Only the output of this job; with --follow until the job exits.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Show the time of each line.
    #[arg(long)]
    timestamps: bool,
    /// Show the session id of each line: one id per program run.
    #[arg(long)]
    show_id: bool,
    /// Sources to show, separated by commas [default: stdout,stderr,output].
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    source: Vec<Source>,
    /// Only lines that match this regular expression.
    #[arg(long, value_name = "RE")]
    grep: Option<Regex>,
    /// Print JSON Lines: t (time), s (source), d (text), id (session); e is b64 where d is base64, not text.
    #[arg(long, conflicts_with_all = ["timestamps", "show_id", "color_sessions"])]
    json: bool,
    /// Pass control characters of the guest to a terminal; other destinations always get the bytes.
    #[arg(long)]
    raw: bool,
    /// When to colour standard error and system messages.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: ColorWhen,
    /// The same as --color never.
    #[arg(long, conflicts_with = "color")]
    no_color: bool,
    /// Use one colour per session.
    #[arg(long)]
    color_sessions: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    Stdout,
    Stderr,
    /// Output of programs on a pseudo-terminal.
    Output,
    /// Messages of the sandbox's runtime process.
    System,
    All,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ColorWhen {
    #[default]
    Auto,
    Always,
    Never,
}

const RESET: &str = "\x1b[0m";
const STDERR: &str = "\x1b[31m";
const SYSTEM: &str = "\x1b[2m";
const SESSIONS: [&str; 5] = ["\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m"];

pub async fn run(args: LogsArgs, call: &Invocation) -> Outcome<()> {
    let handle = Sandbox::get(&call.backend, &args.name).await?;
    let sources = sources(&args.source);
    let writer = Writer::new(&args, call);
    if let Some(job) = &args.job {
        let session = crate::verbs::jobs::session(&args.name, job.clone(), call).await?;
        return of_job(&args, &handle, session, sources, &writer).await;
    }
    let mut cursor = None;
    // A stream has no tail: the last existing entries are read first, then new entries are followed from there.
    if !args.follow || args.tail.is_some() {
        let options = LogOptions { tail: args.tail, since: args.since, until: args.until, sources: sources.clone() };
        for entry in handle.logs(options).await? {
            writer.write(&entry)?;
            cursor = Some(entry.cursor);
        }
    }
    if args.follow { follow(&args, &handle, sources, cursor, &writer).await } else { Ok(()) }
}

/// The output of one session, until the agent's entry about its exit, which is the last entry of the session.
async fn of_job(
    args: &LogsArgs,
    handle: &SandboxHandle,
    session: Option<u64>,
    wanted: Vec<LogSource>,
    writer: &Writer<'_>,
) -> Outcome<()> {
    let ended = session.map(|session| format!("(session {session})"));
    let options = LogStreamOptions {
        sources: sources(&[Source::All]),
        since: args.since,
        until: args.until,
        from_cursor: None,
        follow: args.follow,
    };
    let mut stream = handle.log_stream(options).await?;
    let mut last = std::collections::VecDeque::new();
    while let Some(entry) = stream.next().await {
        let entry = entry?;
        let is_wanted = match wanted.as_slice() {
            [] => entry.source != LogSource::System,
            wanted => wanted.contains(&entry.source),
        };
        if entry.session_id == session && is_wanted {
            match args.tail {
                // A followed log has no end to count from.
                Some(tail) if !args.follow => {
                    last.push_back(entry);
                    if last.len() > tail {
                        last.pop_front();
                    }
                }
                _ => writer.write(&entry)?,
            }
        } else if entry.source == LogSource::System && is_gap_of(&entry.data, ended.as_deref()) {
            writer.write(&entry)?;
        } else if entry.source == LogSource::System
            && ended.as_ref().is_some_and(|ended| {
                let text = String::from_utf8_lossy(&entry.data);
                text.contains("exec ended: ") && text.contains(ended.as_str())
            })
        {
            break;
        }
    }
    last.iter().try_for_each(|entry| writer.write(entry))
}

/// A marker in place of output of the session.
fn is_gap_of(data: &[u8], session: Option<&str>) -> bool {
    let text = String::from_utf8_lossy(data);
    text.contains(" were dropped: ") && session.is_some_and(|session| text.contains(session))
}

async fn follow(
    args: &LogsArgs,
    handle: &SandboxHandle,
    sources: Vec<LogSource>,
    from_cursor: Option<String>,
    writer: &Writer<'_>,
) -> Outcome<()> {
    let options = LogStreamOptions { sources, since: args.since, until: args.until, from_cursor, follow: true };
    let mut stream = handle.log_stream(options).await?;
    while let Some(entry) = stream.next().await {
        writer.write(&entry?)?;
    }
    Ok(())
}

fn sources(asked: &[Source]) -> Vec<LogSource> {
    if asked.contains(&Source::All) {
        return vec![LogSource::Stdout, LogSource::Stderr, LogSource::Output, LogSource::System];
    }
    let one = |source: &Source| match source {
        Source::Stdout => LogSource::Stdout,
        Source::Stderr => LogSource::Stderr,
        Source::Output => LogSource::Output,
        Source::System | Source::All => LogSource::System,
    };
    asked.iter().map(one).collect()
}

/// A line for a terminal. The line end of a pseudo-terminal's output is one, not a control character.
fn for_terminal(line: &str) -> String {
    match line.strip_suffix("\r\n") {
        Some(text) => format!("{}\n", printable(text)),
        None => printable(line),
    }
}

/// Prints entries.
struct Writer<'a> {
    args: &'a LogsArgs,
    call: &'a Invocation,
    color: bool,
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    t: String,
    s: &'static str,
    d: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<&'a str>,
}

impl<'a> Writer<'a> {
    fn new(args: &'a LogsArgs, call: &'a Invocation) -> Self {
        let color = match args.color {
            _ if args.no_color => false,
            ColorWhen::Auto => call.console.colors(),
            ColorWhen::Always => true,
            ColorWhen::Never => false,
        };
        Writer { args, call, color }
    }

    fn write(&self, entry: &LogEntry) -> Outcome<()> {
        let by_line = self.args.timestamps || self.args.show_id || self.args.grep.is_some();
        if self.args.json {
            return self.json(entry);
        }
        let escapes = self.call.console.out_is_terminal && !self.args.raw;
        if !by_line && !self.color && !escapes && entry.source != LogSource::System {
            return self.call.console.print_bytes(&entry.data);
        }
        let text = String::from_utf8_lossy(&entry.data);
        let mut shown = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            if self.args.grep.as_ref().is_some_and(|grep| !grep.is_match(line.trim_end_matches('\n'))) {
                continue;
            }
            let safe = if escapes { for_terminal(line).into() } else { Cow::Borrowed(line) };
            self.put_line(entry, &safe, by_line || entry.source == LogSource::System, &mut shown);
        }
        self.call.console.print(&shown)
    }

    /// One line. `whole`: with a line end, also where the program wrote none.
    fn put_line(&self, entry: &LogEntry, line: &str, whole: bool, shown: &mut String) {
        let color = self.color_of(entry);
        if self.args.timestamps {
            shown.push_str(&timestamp(entry.timestamp));
            shown.push(' ');
        }
        if self.args.show_id {
            shown.push_str(&entry.session_id.map_or_else(|| "[-] ".to_owned(), |id| format!("[{id}] ")));
        }
        let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        shown.push_str(color);
        shown.push_str(text);
        if !color.is_empty() {
            shown.push_str(RESET);
        }
        shown.push_str(if whole { "\n" } else { end });
    }

    fn color_of(&self, entry: &LogEntry) -> &'static str {
        match (self.color, entry.source, entry.session_id) {
            (false, ..) => "",
            (true, _, Some(id)) if self.args.color_sessions => SESSIONS[id as usize % SESSIONS.len()],
            (true, LogSource::Stderr, _) => STDERR,
            (true, LogSource::System, _) => SYSTEM,
            (true, LogSource::Stdout | LogSource::Output, _) => "",
        }
    }

    fn json(&self, entry: &LogEntry) -> Outcome<()> {
        let text = std::str::from_utf8(&entry.data);
        if self
            .args
            .grep
            .as_ref()
            .is_some_and(|grep| !text.is_ok_and(|text| grep.is_match(text.trim_end_matches('\n'))))
        {
            return Ok(());
        }
        let (d, e) = match text {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (base64(&entry.data), Some("b64")),
        };
        let line = JsonEntry { t: timestamp(entry.timestamp), s: entry.source.as_str(), d, id: entry.session_id, e };
        let line = serde_json::to_string(&line)
            .map_err(|error| Failure::message(format!("cannot write the entry as JSON: {error}")))?;
        self.call.console.line(&json_for_terminals(&line))
    }
}

/// RFC 4648 with padding, as in the log file.
fn base64(data: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(data)
}

#[cfg(test)]
mod tests {
    use super::for_terminal;

    #[test]
    fn a_terminal_gets_no_control_characters_of_the_guest() {
        assert_eq!(for_terminal("\x1b[2Jgone\r\n"), "\\u{1b}[2Jgone\n");
        assert_eq!(for_terminal("back\rover\n"), "back\\rover\n");
    }
}
