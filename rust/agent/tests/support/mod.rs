//! Starts the real agent binary and speaks the protocol to it over real sockets.
#![allow(unsafe_code, reason = "system calls that no safe wrapper makes")]
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::disallowed_methods, reason = "starts the agent under test, as the runtime does")]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use microsandbox_protocol::frame::{self, Flags, FrameDecoder, decode_id_range};
use microsandbox_protocol::message::*;
use microsandbox_protocol::{Kind, Message};

pub const TOKEN: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Runs a test with a deadline: a hang is a failure, not a stuck build.
pub fn within<T: Send + 'static>(seconds: u64, test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = test();
        let _ = done.send(());
        result
    });
    match wait.recv_timeout(Duration::from_secs(seconds)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not finished after {seconds} s"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Polls until `ready` says so.
pub fn until(what: &str, ready: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What came over the private channel.
#[derive(Default)]
pub struct Upward {
    pub ready: Mutex<Option<Ready>>,
    pub log: Mutex<Vec<(u32, LogRecord)>>,
    pub log_bytes: AtomicU64,
    pub activity: Mutex<Vec<Activity>>,
    /// Keep the text of records, not only their sizes.
    pub keep: AtomicBool,
    /// The runtime stops reading while this is set.
    pub stalled: AtomicBool,
    pub ended: AtomicBool,
}

pub struct Agent {
    pub child: Child,
    pub control: Option<UnixStream>,
    pub socket: PathBuf,
    pub dir: tempfile::TempDir,
    pub upward: Arc<Upward>,
    reaped: Option<ExitStatus>,
}

pub fn bootstrap() -> Bootstrap {
    Bootstrap {
        token: TOKEN.to_vec(),
        env: vec!["SANDBOX=yes".into()],
        cwd: "/".into(),
        makes_cwd: false,
        user: None,
        rlimits: Vec::new(),
        shutdown_grace_ms: 2000,
        drain_ms: 300,
        max_clients: 16,
        machine: None,
        init: None,
        restricted: false,
    }
}

pub fn agent_binary() -> PathBuf {
    match std::env::var_os("MSB_AGENT") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_msb-agent").into(),
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Lays out a root file system around this machine's programs and starts the agent as PID 1 in it.
const JAIL: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
cd "$ROOT"
for d in usr bin sbin lib lib32 lib64; do
  if [ -L /$d ]; then cp -P /$d $d
  elif [ -d /$d ]; then mkdir $d; mount --rbind /$d $d; fi
done
mkdir -p proc dev/pts etc tmp root sys
mount -t proc proc proc
for d in null zero full random urandom; do touch dev/$d; mount --bind /dev/$d dev/$d; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
printf 'root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n' > etc/passwd
printf 'root:x:0:\nalice:x:1000:\nstaff:x:50:alice,bob\ngames:x:60:root,alice\n' > etc/group
touch agent; mount --bind "$AGENT" agent
exec chroot . /agent
"#;

impl Agent {
    /// An ordinary process that sees the host's root.
    pub fn start() -> Agent {
        Agent::start_with(bootstrap())
    }

    pub fn start_with(mut bootstrap: Bootstrap) -> Agent {
        if !is_root() {
            // Outside of namespaces an ordinary user can only be itself.
            let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
            bootstrap.user.get_or_insert(format!("{}:{}", uid.as_raw(), gid.as_raw()));
        }
        Agent::spawn(|_| Command::new(agent_binary()), Some(bootstrap))
    }

    /// PID 1 of its own namespaces, in a root of its own.
    pub fn jailed() -> Agent {
        Agent::jailed_with(bootstrap())
    }

    pub fn jailed_with(bootstrap: Bootstrap) -> Agent {
        Agent::spawn(
            |dir| {
                let mut command = Command::new("unshare");
                command.args(if is_root() { &["-mpf"][..] } else { &["-rmpf"][..] });
                let root = dir.join("root");
                std::fs::create_dir(&root).unwrap();
                command.args(["--kill-child", "sh", "-c", JAIL]).env("ROOT", root).env("AGENT", agent_binary());
                command
            },
            Some(bootstrap),
        )
    }

    /// Started; nothing is sent to it.
    pub fn mute() -> Agent {
        Agent::spawn(|_| Command::new(agent_binary()), None)
    }

    fn spawn(program: impl Fn(&Path) -> Command, bootstrap: Option<Bootstrap>) -> Agent {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = program(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let handed: [(RawFd, RawFd); 2] = [(listener.as_raw_fd(), 3), (theirs.as_raw_fd(), 4)];
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let high: Vec<RawFd> =
                    handed.iter().map(|(from, _)| libc::fcntl(*from, libc::F_DUPFD_CLOEXEC, 200)).collect();
                for (fd, (_, to)) in high.into_iter().zip(handed) {
                    if libc::dup2(fd, to) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop((listener, OwnedFd::from(theirs)));
        let upward = Arc::new(Upward::default());
        upward.keep.store(true, Ordering::Relaxed);
        let reader = ours.try_clone().unwrap();
        let shared = Arc::clone(&upward);
        std::thread::spawn(move || read_upward(reader, &shared));
        let agent = Agent { child, control: Some(ours), socket, dir, upward, reaped: None };
        if let Some(bootstrap) = bootstrap {
            agent.tell(&Kind::Bootstrap, &bootstrap);
            until("the agent is ready", || agent.upward.ready.lock().unwrap().is_some());
        }
        agent
    }

    /// Sends a frame as the runtime.
    pub fn tell<T: serde::Serialize>(&self, kind: &Kind, payload: &T) {
        let frame = frame::encode(0, Flags::NONE, kind, payload).unwrap();
        self.control.as_ref().unwrap().write_all_ref(&frame);
    }

    pub fn connect(&self) -> Client {
        Client::hello(&self.socket, TOKEN, (1, 1))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All captured output of one source.
    pub fn logged(&self, session: u64, source: u8) -> Vec<u8> {
        let log = self.upward.log.lock().unwrap();
        let records = log.iter().filter(|(id, record)| u64::from(*id) == session && record.source == source);
        records.flat_map(|(_, record)| record.data.clone()).collect()
    }

    /// Waits for the agent to exit without being killed.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.reaped = Some(status);
                return status;
            }
            assert!(Instant::now() < end, "the agent still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident set in KiB.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            // The reader thread holds the same socket: dropping ours alone would not end it.
            let _ = control.shutdown(std::net::Shutdown::Both);
        }
        if self.reaped.is_none() {
            // The end of the private channel ends it; the kill is for a broken one.
            let end = Instant::now() + Duration::from_secs(3);
            while self.child.try_wait().unwrap().is_none() {
                if Instant::now() > end {
                    let _ = self.child.kill();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

trait WriteRef {
    fn write_all_ref(&self, data: &[u8]);
}

impl WriteRef for UnixStream {
    fn write_all_ref(&self, data: &[u8]) {
        let mut stream: &UnixStream = self;
        stream.write_all(data).unwrap();
    }
}

fn read_upward(mut stream: UnixStream, upward: &Upward) {
    let mut decoder = Frames::default();
    loop {
        while upward.stalled.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let Some(message) = decoder.next(&mut stream) else { break };
        match message.kind {
            Kind::Ready => *upward.ready.lock().unwrap() = Some(message.parse().unwrap()),
            Kind::Activity => upward.activity.lock().unwrap().push(message.parse().unwrap()),
            Kind::Log => {
                let data = message.data_len();
                upward.log_bytes.fetch_add(data, Ordering::Relaxed);
                if upward.keep.load(Ordering::Relaxed) {
                    upward.log.lock().unwrap().push((message.id, message.parse().unwrap()));
                }
            }
            other => panic!("the agent sent {other:?} to the runtime"),
        }
    }
    upward.ended.store(true, Ordering::Relaxed);
}

trait DataLen {
    fn data_len(&self) -> u64;
}

impl DataLen for Message {
    /// Bytes of program output in a log record: notes of the agent's own (source 4) do not count.
    fn data_len(&self) -> u64 {
        let source = self.payload[b"\xa3\x66source".len()];
        if source == 4 { 0 } else { self.data().unwrap().len() as u64 }
    }
}

#[derive(Default)]
struct Frames {
    buffer: BytesMut,
    decoder: FrameDecoder,
    chunk: Vec<u8>,
}

impl Frames {
    /// `None` at end of file.
    fn next(&mut self, stream: &mut impl Read) -> Option<Message> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame.open().unwrap());
            }
            self.chunk.resize(256 << 10, 0);
            match stream.read(&mut self.chunk) {
                Ok(0) => return None,
                Ok(got) => self.buffer.extend_from_slice(&self.chunk[..got]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }
}

/// A connected client.
pub struct Client {
    pub stream: UnixStream,
    pub range: (u32, u32),
    pub ready: Option<Ready>,
    pub refusal: Option<CoreError>,
    frames: Frames,
    next_id: u32,
}

/// How an exec went.
#[derive(Debug, Default)]
pub struct Ran {
    pub started: Option<ExecStarted>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exited: Option<ExecExited>,
    pub failed: Option<ExecFailed>,
    pub stdin_error: Option<StdinError>,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
    pub fn exit(&self) -> &ExecExited {
        self.exited.as_ref().unwrap_or_else(|| panic!("did not exit: {:?}", self.failed))
    }
    pub fn failure(&self) -> &ExecFailed {
        self.failed.as_ref().unwrap_or_else(|| panic!("did not fail: {:?}", self.exited))
    }
}

impl Client {
    pub fn raw(socket: &Path) -> UnixStream {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Connects and greets; `refusal` is set when the agent did not want to.
    pub fn hello(socket: &Path, token: &[u8], extensions: (u32, u32)) -> Client {
        let mut stream = Client::raw(socket);
        let hello = Hello { token: token.to_vec(), extension_min: extensions.0, extension_max: extensions.1 };
        stream.write_all(&frame::encode(0, Flags::NONE, &Kind::Hello, &hello).unwrap()).unwrap();
        let mut range = [0; 8];
        stream.read_exact(&mut range).unwrap();
        let range = decode_id_range(range).unwrap();
        let mut client =
            Client { stream, range, ready: None, refusal: None, frames: Frames::default(), next_id: range.0 };
        let first = client.recv().expect("an answer to the hello");
        match first.kind {
            Kind::Ready => client.ready = Some(first.parse().unwrap()),
            Kind::Error => client.refusal = Some(first.parse().unwrap()),
            other => panic!("{other:?} as answer to the hello"),
        }
        client
    }

    pub fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }

    pub fn send<T: serde::Serialize>(&mut self, id: u32, kind: &Kind, payload: &T) {
        self.stream.write_all(&frame::encode(id, Flags::NONE, kind, payload).unwrap()).unwrap();
    }

    pub fn recv(&mut self) -> Option<Message> {
        self.frames.next(&mut self.stream)
    }

    /// The answer to a request that has exactly one.
    pub fn ask<T: serde::Serialize>(&mut self, kind: &Kind, payload: &T) -> Message {
        let id = self.id();
        self.send(id, kind, payload);
        let answer = self.recv().expect("an answer");
        assert_eq!(answer.id, id);
        answer
    }

    pub fn exec(&mut self, request: &ExecRequest) -> Ran {
        let id = self.start(request);
        self.finish(id)
    }

    pub fn start(&mut self, request: &ExecRequest) -> u32 {
        let id = self.id();
        self.send(id, &Kind::ExecRequest, request);
        id
    }

    /// `sh -c script`.
    pub fn sh(&mut self, script: &str) -> Ran {
        self.exec(&sh(script))
    }

    /// Collects until the end, giving credit for everything that came.
    pub fn finish(&mut self, id: u32) -> Ran {
        let mut ran = Ran::default();
        while !self.step(id, &mut ran) {}
        ran
    }

    /// Takes one frame into `ran`; true at the end.
    pub fn step(&mut self, id: u32, ran: &mut Ran) -> bool {
        let message = self.recv().expect("the session's end");
        assert_eq!(message.id, id, "a frame of another session: {:?}", message.kind);
        match message.kind {
            Kind::ExecStarted => ran.started = Some(message.parse().unwrap()),
            Kind::ExecStdout | Kind::ExecStderr => {
                let data = message.data().unwrap();
                let credit = Credit { bytes: data.len() as u64 };
                let credit = frame::encode(id, Flags::NONE, &Kind::Credit, &credit).unwrap();
                // An agent that shuts down may have said everything and be gone by now.
                if let Err(error) = self.stream.write_all(&credit) {
                    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
                }
                let sink = if message.kind == Kind::ExecStdout { &mut ran.stdout } else { &mut ran.stderr };
                sink.extend_from_slice(&data);
            }
            Kind::Credit => {}
            Kind::ExecStdinError => ran.stdin_error = Some(message.parse().unwrap()),
            Kind::ExecExited => {
                assert!(message.flags.contains(Flags::TERMINAL));
                ran.exited = Some(message.parse().unwrap());
                return true;
            }
            Kind::ExecFailed => {
                assert!(message.flags.contains(Flags::TERMINAL));
                ran.failed = Some(message.parse().unwrap());
                return true;
            }
            ref other => panic!("{other:?} in a session: {:?}", message.parse::<CoreError>()),
        }
        false
    }

    pub fn stdin(&mut self, id: u32, data: &[u8]) {
        self.send(id, &Kind::ExecStdin, &Data { data: data.to_vec() });
    }

    /// One file call without content.
    pub fn fs(&mut self, op: FsOp) -> FsResponse {
        let answer = self.ask(&Kind::FsRequest, &FsRequest { op, window: None });
        assert_eq!(answer.kind, Kind::FsResponse, "{:?}", answer.parse::<CoreError>());
        answer.parse().unwrap()
    }

    pub fn write_file(&mut self, path: &str, data: &[u8], atomic: bool) -> FsResponse {
        self.upload(FsOp::WriteFile { path: path.into(), mode: None, atomic, mtime: None }, data)
    }

    pub fn upload(&mut self, op: FsOp, data: &[u8]) -> FsResponse {
        let id = self.id();
        self.send(id, &Kind::FsRequest, &FsRequest { op, window: None });
        for chunk in data.chunks(1 << 20) {
            let head = frame::encode_data_head(id, Flags::NONE, &Kind::FsData, chunk.len());
            self.stream.write_all(&head).unwrap();
            self.stream.write_all(chunk).unwrap();
        }
        self.send(id, &Kind::FsData, &Data { data: Vec::new() });
        let answer = self.recv().unwrap();
        assert_eq!((answer.id, &answer.kind), (id, &Kind::FsResponse));
        answer.parse().unwrap()
    }

    pub fn read_file(&mut self, path: &str) -> Result<Vec<u8>, Box<FsResponse>> {
        self.download(FsOp::ReadFile { path: path.into() }, None)
    }

    pub fn download(&mut self, op: FsOp, window: Option<u64>) -> Result<Vec<u8>, Box<FsResponse>> {
        let id = self.id();
        self.send(id, &Kind::FsRequest, &FsRequest { op, window });
        let mut content = Vec::new();
        loop {
            let message = self.recv().expect("the file's end");
            assert_eq!(message.id, id);
            if message.kind == Kind::FsData {
                let data = message.data().unwrap();
                content.extend_from_slice(&data);
                self.send(id, &Kind::Credit, &Credit { bytes: data.len() as u64 });
                continue;
            }
            let response: FsResponse = message.parse().unwrap();
            if !response.ok {
                return Err(Box::new(response));
            }
            assert_eq!(response.bytes, Some(content.len() as u64));
            return Ok(content);
        }
    }

    pub fn next_data(&mut self) -> Bytes {
        self.recv().unwrap().data().unwrap()
    }
}

pub fn program(cmd: &str, args: &[&str]) -> ExecRequest {
    ExecRequest {
        cmd: cmd.into(),
        args: args.iter().map(|s| s.to_string()).collect(),
        no_stdin: true,
        rows: 24,
        cols: 80,
        ..ExecRequest::default()
    }
}

pub fn sh(script: &str) -> ExecRequest {
    program("sh", &["-c", script])
}
