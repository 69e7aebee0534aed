//! The built-in commands. Each does what its namesake does, for the options named here, and refuses others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::files::{FileTree, normalise};
use super::run::{Input, Output};
use super::shell::{Command, Condition, Piece, Target, Word, parse};
use super::{Handler, ScriptCall, Shared, lock};
use microsandbox_core::error::MicrosandboxError;

const BUILT_IN: [&str; 13] =
    ["bash", "cat", "echo", "env", "false", "mkdir", "printenv", "printf", "pwd", "rm", "seq", "sh", "sleep"];
/// Output is passed on in pieces of about this size.
const PIECE: usize = 64 << 10;

/// Where a stream of a command goes.
#[derive(Clone)]
pub enum Sink {
    Stdout,
    Stderr,
    Buffer(Arc<Mutex<Vec<u8>>>),
}

#[derive(Clone)]
pub struct Streams {
    stdout: Sink,
    stderr: Sink,
}

impl Default for Streams {
    fn default() -> Self {
        Streams { stdout: Sink::Stdout, stderr: Sink::Stderr }
    }
}

/// What a program sees.
pub struct Process {
    pub shared: Arc<Shared>,
    pub files: Arc<Mutex<FileTree>>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub user: Option<String>,
    pub stdin: Input,
    /// The same, where it is known as a whole: for scripted commands.
    pub stdin_bytes: Bytes,
    pub output: Output,
}

/// Something that can be run.
pub enum Program {
    BuiltIn(String),
    Scripted(Handler),
}

/// Looks a command up as `PATH` would: scripted ones, then built-in ones in `/bin` and `/usr/bin`.
pub fn find(shared: &Shared, cmd: &str) -> Option<Program> {
    if let Some(handler) = lock(&shared.scripts).get(cmd) {
        return Some(Program::Scripted(handler.clone()));
    }
    let name = cmd.strip_prefix("/usr/bin/").or_else(|| cmd.strip_prefix("/bin/")).unwrap_or(cmd);
    (name == "true" || BUILT_IN.contains(&name)).then(|| Program::BuiltIn(name.into()))
}

impl Process {
    /// Runs one command to its end; its exit status.
    pub async fn run(&mut self, program: Program, cmd: &str, args: &[String], streams: &Streams) -> i32 {
        match program {
            Program::Scripted(handler) => self.scripted(&handler, cmd, args, streams).await,
            Program::BuiltIn(name) => self.built_in(&name, args, streams).await,
        }
    }

    async fn scripted(&mut self, handler: &Handler, cmd: &str, args: &[String], streams: &Streams) -> i32 {
        let call = ScriptCall {
            cmd: cmd.into(),
            args: args.to_vec(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            stdin: self.stdin_bytes.clone(),
        };
        let result = handler(&call);
        if !result.delay.is_zero() {
            tokio::time::sleep(result.delay).await;
        }
        self.put(&streams.stdout, result.stdout);
        self.put(&streams.stderr, result.stderr);
        result.exit_code.clamp(0, 255)
    }

    async fn built_in(&mut self, name: &str, args: &[String], streams: &Streams) -> i32 {
        match name {
            "true" => 0,
            "false" => 1,
            "echo" => self.echo(args, streams),
            "printf" => self.printf(args, streams),
            "pwd" => self.say(streams, &format!("{}\n", self.cwd)),
            "env" | "printenv" => self.print_env(args, streams),
            "seq" => self.seq(args, streams),
            "cat" => self.cat(args, streams).await,
            "sleep" => self.sleep(args, streams).await,
            "mkdir" | "rm" => self.change_files(name, args, streams),
            _ => self.sh(name, args, streams).await,
        }
    }

    fn put(&self, sink: &Sink, data: Bytes) {
        match sink {
            Sink::Stdout => self.output.write(false, data),
            Sink::Stderr => self.output.write(true, data),
            Sink::Buffer(buffer) => lock(buffer).extend_from_slice(&data),
        }
    }

    fn say(&self, streams: &Streams, text: &str) -> i32 {
        self.put(&streams.stdout, Bytes::copy_from_slice(text.as_bytes()));
        0
    }

    fn complain(&self, streams: &Streams, text: &str, code: i32) -> i32 {
        self.put(&streams.stderr, Bytes::from(format!("{text}\n")));
        code
    }

    fn path(&self, path: &str) -> String {
        if path.starts_with('/') { normalise(path) } else { normalise(&format!("{}/{path}", self.cwd)) }
    }

    fn echo(&self, args: &[String], streams: &Streams) -> i32 {
        let (args, end) = match args.split_first() {
            Some((first, rest)) if first == "-n" => (rest, ""),
            _ => (args, "\n"),
        };
        self.say(streams, &(args.join(" ") + end))
    }

    fn printf(&self, args: &[String], streams: &Streams) -> i32 {
        let Some((format, mut args)) = args.split_first() else {
            return self.complain(streams, "printf: a format is missing", 2);
        };
        let mut out = Vec::new();
        loop {
            let before = args.len();
            if let Err(what) = format_once(format, &mut args, &mut out) {
                return self.complain(streams, &format!("printf: {what}"), 1);
            }
            // The format is used again while it takes arguments.
            if args.is_empty() || args.len() == before {
                break;
            }
        }
        self.put(&streams.stdout, out.into());
        0
    }

    fn print_env(&self, args: &[String], streams: &Streams) -> i32 {
        if args.is_empty() {
            let lines: String = self.env.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
            return self.say(streams, &lines);
        }
        let mut code = 0;
        for name in args {
            match self.variable(name) {
                Some(value) => self.put(&streams.stdout, Bytes::from(format!("{value}\n"))),
                None => code = 1,
            }
        }
        code
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn seq(&self, args: &[String], streams: &Streams) -> i32 {
        let numbers: Vec<i64> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
        let (first, last) = match (numbers.as_slice(), args.len()) {
            ([last], 1) => (1, *last),
            ([first, last], 2) => (*first, *last),
            _ => return self.complain(streams, "seq: use `seq LAST` or `seq FIRST LAST`", 1),
        };
        let mut piece = Vec::with_capacity(PIECE);
        for number in first..=last {
            piece.extend_from_slice(format!("{number}\n").as_bytes());
            if piece.len() >= PIECE {
                self.put(&streams.stdout, std::mem::take(&mut piece).into());
            }
        }
        self.put(&streams.stdout, piece.into());
        0
    }

    async fn cat(&mut self, args: &[String], streams: &Streams) -> i32 {
        let mut code = 0;
        let own_input = ["-".to_string()];
        for name in if args.is_empty() { &own_input[..] } else { args } {
            if name == "-" {
                while let Some(data) = self.stdin.recv().await {
                    self.put(&streams.stdout, data);
                }
                continue;
            }
            let content = lock(&self.files).read(&self.path(name));
            match content {
                Ok(data) => self.put(&streams.stdout, data),
                Err(error) => code = self.complain(streams, &format!("cat: {name}: {}", reason(&error)), 1),
            }
        }
        code
    }

    async fn sleep(&self, args: &[String], streams: &Streams) -> i32 {
        let total: Option<f64> = args.iter().map(|arg| arg.parse::<f64>().ok()).sum();
        match total.and_then(|secs| Duration::try_from_secs_f64(secs).ok()) {
            Some(time) if !args.is_empty() => {
                tokio::time::sleep(time).await;
                0
            }
            _ => self.complain(streams, "sleep: invalid time interval", 1),
        }
    }

    fn change_files(&self, name: &str, args: &[String], streams: &Streams) -> i32 {
        let (flags, paths): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.starts_with('-'));
        let recursive = flags.iter().any(|flag| flag.contains('r'));
        let force = flags.iter().any(|flag| flag.contains('f'));
        let mut code = 0;
        for path in paths {
            let full = self.path(path);
            let mut files = lock(&self.files);
            let done = match name {
                "mkdir" => files.mkdir(&full),
                _ => {
                    let tree = recursive && files.is_directory(&full);
                    files.remove(&full, tree)
                }
            };
            drop(files);
            match done {
                Ok(()) => {}
                Err(MicrosandboxError::PathNotFound { .. }) if force => {}
                Err(error) => code = self.complain(streams, &format!("{name}: {path}: {}", reason(&error)), 1),
            }
        }
        code
    }

    async fn sh(&mut self, name: &str, args: &[String], streams: &Streams) -> i32 {
        let [flag, script, ..] = args else {
            return self.complain(
                streams,
                &format!("{name}: only `-c SCRIPT` is understood by the in-memory shell"),
                2,
            );
        };
        if flag != "-c" {
            return self.complain(
                streams,
                &format!("{name}: only `-c SCRIPT` is understood by the in-memory shell"),
                2,
            );
        }
        let script = match parse(script) {
            Ok(script) => script,
            Err(error) => return self.complain(streams, &format!("{name}: {error}"), 2),
        };
        let mut status = 0;
        for (condition, command) in script {
            let wanted = match condition {
                Condition::Always => true,
                Condition::Success => status == 0,
                Condition::Failure => status != 0,
            };
            if !wanted {
                continue;
            }
            let words: Vec<String> = command.words.iter().filter_map(|word| self.expand(word, status)).collect();
            if let Some(("exit", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
                return rest.first().map_or(status, |code| code.parse::<i32>().map_or(2, |code| code & 0xff));
            }
            status = self.simple(name, &command, &words, streams, status).await;
        }
        status
    }

    /// One simple command of a script, with its redirections.
    fn simple<'a>(
        &'a mut self,
        shell: &'a str,
        command: &'a Command,
        words: &'a [String],
        outer: &'a Streams,
        status: i32,
    ) -> BoxFuture<'a, i32> {
        Box::pin(async move {
            let Some((cmd, args)) = words.split_first() else { return 0 };
            let (streams, buffers) = self.redirect(command, outer, status);
            let code = if cmd == "cd" {
                self.change_directory(shell, args, &streams)
            } else {
                match find(&self.shared, cmd) {
                    Some(program) => self.run(program, cmd, args, &streams).await,
                    None => self.complain(&streams, &format!("{shell}: 1: {cmd}: not found"), 127),
                }
            };
            self.store(shell, buffers, outer).unwrap_or(code)
        })
    }

    fn change_directory(&mut self, shell: &str, args: &[String], streams: &Streams) -> i32 {
        let target = self.path(args.first().map_or("/root", String::as_str));
        if !lock(&self.files).is_directory(&target) {
            return self.complain(streams, &format!("{shell}: 1: cd: can't cd to {target}"), 2);
        }
        self.cwd = target;
        0
    }

    fn redirect(&self, command: &Command, outer: &Streams, status: i32) -> (Streams, Vec<Redirected>) {
        let mut streams = outer.clone();
        let mut buffers = Vec::new();
        for (target, error) in [(&command.stdout, false), (&command.stderr, true)] {
            let sink = match target {
                Target::Same => continue,
                Target::Stdout => streams.stdout.clone(),
                Target::Stderr => streams.stderr.clone(),
                Target::File { path, append } => {
                    let buffer = Arc::new(Mutex::new(Vec::new()));
                    let path = self.path(&self.expand(path, status).unwrap_or_default());
                    buffers.push(Redirected { path, append: *append, buffer: buffer.clone() });
                    Sink::Buffer(buffer)
                }
            };
            if error {
                streams.stderr = sink;
            } else {
                streams.stdout = sink;
            }
        }
        (streams, buffers)
    }

    /// Puts redirected output into its files; an exit status if that failed.
    fn store(&self, shell: &str, buffers: Vec<Redirected>, outer: &Streams) -> Option<i32> {
        for redirected in buffers {
            if redirected.path == "/dev/null" {
                continue;
            }
            let mut files = lock(&self.files);
            let mut content = Vec::new();
            if redirected.append
                && let Ok(old) = files.read(&redirected.path)
            {
                content.extend_from_slice(&old);
            }
            content.extend_from_slice(&lock(&redirected.buffer));
            let written = files.write(&redirected.path, content.into(), None);
            drop(files);
            if let Err(error) = written {
                let text = format!("{shell}: 1: cannot create {}: {}", redirected.path, reason(&error));
                return Some(self.complain(outer, &text, 2));
            }
        }
        None
    }

    /// `None`: a word of nothing but unset variables.
    fn expand(&self, word: &Word, status: i32) -> Option<String> {
        let mut out = String::new();
        for piece in word {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Variable(name) => out.push_str(self.variable(name).unwrap_or("")),
                Piece::Status => out.push_str(&status.to_string()),
            }
        }
        let has_text = word.iter().any(|piece| matches!(piece, Piece::Text(_)));
        (has_text || !out.is_empty()).then_some(out)
    }
}

struct Redirected {
    path: String,
    append: bool,
    buffer: Arc<Mutex<Vec<u8>>>,
}

/// The system's words for a file error, as commands print them.
fn reason(error: &MicrosandboxError) -> String {
    match error {
        MicrosandboxError::PathNotFound { .. } => "No such file or directory".into(),
        MicrosandboxError::Filesystem { errno: Some(libc::EISDIR), .. } => "Is a directory".into(),
        MicrosandboxError::Filesystem { errno: Some(libc::ENOTDIR), .. } => "Not a directory".into(),
        MicrosandboxError::Filesystem { errno: Some(libc::EEXIST), .. } => "File exists".into(),
        other => other.to_string(),
    }
}

/// One pass over a `printf` format: `%s %d %%` and the usual escapes.
fn format_once(format: &str, args: &mut &[String], out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = format.bytes().peekable();
    let next = |args: &mut &[String]| match args.split_first() {
        Some((first, others)) => {
            *args = others;
            first.clone()
        }
        None => String::new(),
    };
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => match rest.next() {
                Some(b's') => out.extend_from_slice(next(args).as_bytes()),
                Some(b'd') => {
                    let word = next(args);
                    let number: i64 =
                        if word.is_empty() { 0 } else { word.parse().map_err(|_| format!("{word}: not a number"))? };
                    out.extend_from_slice(number.to_string().as_bytes());
                }
                Some(b'%') => out.push(b'%'),
                _ => return Err("only %s, %d and %% are understood in memory".into()),
            },
            b'\\' => match rest.next() {
                Some(b'n') => out.push(b'\n'),
                Some(b't') => out.push(b'\t'),
                Some(b'r') => out.push(b'\r'),
                Some(b'\\') => out.push(b'\\'),
                Some(digit @ b'0'..=b'7') => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        let Some(digit) = rest.next_if(|b| (b'0'..=b'7').contains(b)) else { break };
                        value = value * 8 + u32::from(digit - b'0');
                    }
                    out.push(value as u8);
                }
                Some(other) => out.extend([b'\\', other]),
                None => out.push(b'\\'),
            },
            byte => out.push(byte),
        }
    }
    Ok(())
}
