use super::*;
use futures::StreamExt;
use microsandbox_core::error::MicrosandboxError;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

const DEADLINE: Duration = Duration::from_secs(20);

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn append(&self, file: &str, text: &str) {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(self.path().join(file)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    fn line(&self, second: u32, source: &str, text: &str) {
        let line = format!(r#"{{"t":"2026-01-01T00:00:{second:02}.5Z","s":"{source}","d":"{text}","id":3}}"#);
        self.append("exec.log", &(line + "\n"));
    }
    fn rotate(&self) {
        for number in (0..4).rev() {
            let name = |n: u32| if n == 0 { "exec.log".to_string() } else { format!("exec.log.{n}") };
            let _ = std::fs::rename(self.path().join(name(number)), self.path().join(name(number + 1)));
        }
        self.append("exec.log", "");
    }
    async fn texts(&self, options: LogOptions) -> Vec<String> {
        texts(logs(self.path(), options).await.unwrap())
    }
    async fn stream(&self, options: LogStreamOptions, alive: Arc<AtomicBool>) -> MicrosandboxResult<LogStream> {
        log_stream(self.path().into(), options, move || alive.load(Ordering::SeqCst)).await
    }
}

fn texts(entries: Vec<LogEntry>) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.data).into_owned()).collect()
}

fn at(second: u32) -> chrono::DateTime<chrono::Utc> {
    format!("2026-01-01T00:00:{second:02}.5Z").parse().unwrap()
}

async fn item(stream: &mut LogStream) -> Option<LogEntry> {
    tokio::time::timeout(DEADLINE, stream.next()).await.expect("the stream stalled").map(Result::unwrap)
}

// hazard: G1
#[tokio::test]
async fn rotations_are_read_oldest_first_and_a_torn_line_is_none() {
    let home = Home::new();
    for second in 0..6 {
        home.line(second, "stdout", &format!("l{second}"));
        if second % 2 == 1 {
            home.rotate();
        }
    }
    home.line(6, "stderr", "l6");
    home.append("exec.log", r#"{"t":"2026-01-01T00:00:07Z","s":"stdout","d":"to"#);
    assert_eq!(home.texts(LogOptions::default()).await, ["l0", "l1", "l2", "l3", "l4", "l5", "l6"]);
    let tail = LogOptions { tail: Some(2), ..LogOptions::default() };
    assert_eq!(home.texts(tail).await, ["l5", "l6"]);
    let window = LogOptions { since: Some(at(2)), until: Some(at(4)), ..LogOptions::default() };
    assert_eq!(home.texts(window).await, ["l2", "l3"]);
    let stderr = LogOptions { sources: vec![LogSource::Stderr], ..LogOptions::default() };
    assert_eq!(home.texts(stderr).await, ["l6"]);
}

// hazard: G1
#[tokio::test]
async fn a_rotation_in_progress_hides_no_older_file() {
    let home = Home::new();
    for second in 0..3 {
        home.line(second, "stdout", &format!("l{second}"));
        if second < 2 {
            home.rotate();
        }
    }
    // As the writer leaves the names between two of its renames.
    for (from, to) in [("exec.log.2", "exec.log.3"), ("exec.log.1", "exec.log.2")] {
        std::fs::rename(home.path().join(from), home.path().join(to)).unwrap();
    }
    assert_eq!(home.texts(LogOptions::default()).await, ["l0", "l1", "l2"]);
}

#[tokio::test]
async fn system_entries_are_merged_by_time_and_have_no_session() {
    let home = Home::new();
    home.line(1, "system", "started");
    home.line(3, "stdout", "out");
    home.append("runtime.log", "2026-01-01T00:00:02.5Z runtime says\nand continues\n");
    home.append("kernel.log", "2026-01-01T00:00:09.5Z kernel says\n");
    assert_eq!(home.texts(LogOptions::default()).await, ["out"]);
    let all = LogOptions { sources: vec![LogSource::Stdout, LogSource::System], ..LogOptions::default() };
    let entries = logs(home.path(), all).await.unwrap();
    assert!(entries.iter().all(|entry| entry.session_id.is_none() == (entry.source == LogSource::System)));
    assert_eq!(texts(entries), ["started", "runtime says", "and continues", "out", "kernel says"]);
}

#[tokio::test]
async fn bytes_that_are_no_text_come_back_as_they_were() {
    let home = Home::new();
    home.append(
        "exec.log",
        "{\"t\":\"2026-01-01T00:00:01Z\",\"s\":\"output\",\"d\":\"/wA=\",\"id\":1,\"e\":\"b64\"}\n",
    );
    let entries = logs(home.path(), LogOptions::default()).await.unwrap();
    assert_eq!(&entries[0].data[..], b"\xff\0");
    assert_eq!(entries[0].source, LogSource::Output);
}

#[tokio::test]
async fn every_cursor_resumes_after_its_entry_across_rotations() {
    let home = Home::new();
    for second in 0..9 {
        home.line(second, "stdout", &format!("l{second}"));
        if second % 3 == 2 {
            home.rotate();
        }
    }
    let all = logs(home.path(), LogOptions::default()).await.unwrap();
    home.rotate();
    for (index, entry) in all.iter().enumerate() {
        let options = LogStreamOptions { from_cursor: Some(entry.cursor.clone()), ..LogStreamOptions::default() };
        let stream = home.stream(options, Arc::default()).await.unwrap();
        let rest: Vec<LogEntry> = stream.map(Result::unwrap).collect().await;
        assert_eq!(texts(rest), texts(all[index + 1..].to_vec()));
    }
    let start = LogStreamOptions { from_cursor: Some("AA==".into()), ..LogStreamOptions::default() };
    assert_eq!(home.stream(start, Arc::default()).await.unwrap().count().await, 9);
}

#[tokio::test]
async fn a_bad_or_outlived_cursor_is_an_error() {
    let home = Home::new();
    home.line(1, "stdout", "x");
    let cursor = logs(home.path(), LogOptions::default()).await.unwrap()[0].cursor.clone();
    std::fs::remove_file(home.path().join("exec.log")).unwrap();
    home.line(2, "stdout", "y");
    for bad in [cursor.as_str(), "!", "AQ==", "BAAAAA==", &"A".repeat(4000)] {
        let options = LogStreamOptions { from_cursor: Some(bad.into()), ..LogStreamOptions::default() };
        let error = home.stream(options, Arc::default()).await.err().unwrap();
        assert!(matches!(error, MicrosandboxError::InvalidCursor(_)), "{bad}: {error}");
    }
}

// hazard: G1
#[tokio::test]
async fn a_follower_sees_every_line_through_rotations() {
    let home = Home::new();
    let alive = Arc::new(AtomicBool::new(true));
    let options = LogStreamOptions { follow: true, ..LogStreamOptions::default() };
    let mut stream = home.stream(options, alive.clone()).await.unwrap();
    for number in 0..200 {
        home.line(number % 60, "stdout", &format!("n{number}"));
        if number % 40 == 39 {
            home.rotate();
        }
        assert_eq!(texts(vec![item(&mut stream).await.unwrap()]), [format!("n{number}")]);
    }
    home.line(1, "stdout", "last words");
    alive.store(false, Ordering::SeqCst);
    assert_eq!(texts(vec![item(&mut stream).await.unwrap()]), ["last words"]);
    assert!(item(&mut stream).await.is_none());
}

// hazard: G1
#[tokio::test]
async fn lines_that_were_rotated_away_unread_are_marked() {
    let home = Home::new();
    home.line(0, "stdout", "seen");
    let alive = Arc::new(AtomicBool::new(true));
    let options = LogStreamOptions { follow: true, ..LogStreamOptions::default() };
    let mut stream = home.stream(options, alive.clone()).await.unwrap();
    assert_eq!(texts(vec![item(&mut stream).await.unwrap()]), ["seen"]);
    std::fs::remove_file(home.path().join("exec.log")).unwrap();
    home.line(5, "stdout", "after");
    let gap = item(&mut stream).await.unwrap();
    assert_eq!(gap.source, LogSource::System);
    assert_eq!(texts(vec![item(&mut stream).await.unwrap()]), ["after"]);
    alive.store(false, Ordering::SeqCst);
    assert!(item(&mut stream).await.is_none());
}

#[tokio::test]
async fn until_ends_a_stream() {
    let home = Home::new();
    for second in 0..5 {
        home.line(second, "stdout", &format!("l{second}"));
    }
    let options = LogStreamOptions { until: Some(at(2)), follow: true, ..LogStreamOptions::default() };
    let stream = home.stream(options, Arc::new(AtomicBool::new(true))).await.unwrap();
    let entries: Vec<LogEntry> = tokio::time::timeout(DEADLINE, stream.map(Result::unwrap).collect()).await.unwrap();
    assert_eq!(texts(entries), ["l0", "l1"]);
}

#[tokio::test]
async fn no_log_yet_is_an_empty_log() {
    let home = Home::new();
    assert!(logs(&home.path().join("missing"), LogOptions::default()).await.unwrap().is_empty());
}
