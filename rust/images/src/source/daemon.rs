//! An image of a Docker or Podman daemon on this machine, over its socket: `GET /images/<name>/get`.

use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use microsandbox_contract::ImageLimits;

use super::super::archive::{Cancelled, Spool, spooled};
use super::super::failure::{Failure, corrupt, io};
use super::super::registry::STALL;
use microsandbox_core::error::{ImageErrorKind, MicrosandboxError};

/// Longest head of an answer, and longest text of an error.
const MAX_HEAD: usize = 64 << 10;
/// How often a wait looks whether the caller has gone.
const CANCEL_CHECK: Duration = Duration::from_millis(100);

/// The archive of the image, as an unnamed file.
pub fn fetch(name: &str, spool: &Spool<'_>, limits: &ImageLimits, cancelled: &Cancelled) -> Result<File, Failure> {
    let (mut stream, path) = connect()?;
    let wait = stream.set_read_timeout(Some(CANCEL_CHECK)).and_then(|()| stream.set_write_timeout(Some(STALL)));
    wait.map_err(|e| io("use", &path, e))?;
    // Version 1.0 of the protocol: the answer ends with the connection, without chunks. The name is a checked reference: it has
    // no character that a path of a request could not hold.
    let request = format!("GET /v1.24/images/{name}/get HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| io("write to", &path, e))?;
    let mut answer = Answer { stream, cancelled, held: Vec::new(), used: 0, since: Instant::now() };
    let status = answer.head()?;
    if status != 200 {
        let mut text = Vec::new();
        let _ = (&mut answer).take(MAX_HEAD as u64).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let said = text.trim();
        return Err(match status {
            404 => Failure::Other(MicrosandboxError::ImageNotFound(format!(
                "{name} is not in the daemon at {}",
                path.display()
            ))),
            _ => Failure::of(
                ImageErrorKind::Denied,
                format!("the daemon at {} answered {status} {said:?} for {name}", path.display()),
            ),
        });
    }
    spooled(answer, spool, limits.total_bytes, cancelled)
}

/// The first daemon that answers.
fn connect() -> Result<(UnixStream, PathBuf), Failure> {
    let places = places();
    let mut refusals = Vec::new();
    for path in places {
        match UnixStream::connect(&path) {
            Ok(stream) => return Ok((stream, path)),
            Err(error) => refusals.push(format!("{}: {error}", path.display())),
        }
    }
    Err(Failure::Other(MicrosandboxError::Runtime(format!(
        "no Docker or Podman daemon answers ({}); start one, or name its socket with DOCKER_HOST=unix://PATH",
        refusals.join("; ")
    ))))
}

/// `DOCKER_HOST` alone if it is set, else where the daemons listen by default.
fn places() -> Vec<PathBuf> {
    if let Ok(host) = std::env::var("DOCKER_HOST")
        && !host.is_empty()
    {
        return vec![host.strip_prefix("unix://").unwrap_or(&host).into()];
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let own = own.into_iter().flat_map(|dir| [dir.join("docker.sock"), dir.join("podman/podman.sock")]);
    let machine = ["/var/run/docker.sock", "/run/podman/podman.sock"].map(PathBuf::from);
    own.chain(machine).collect()
}

/// What the daemon sends, first its head.
struct Answer<'a> {
    stream: UnixStream,
    cancelled: &'a Cancelled,
    /// Received and not yet read: what came together with the head.
    held: Vec<u8>,
    used: usize,
    since: Instant,
}

impl Answer<'_> {
    /// Reads up to the empty line; the status.
    fn head(&mut self) -> Result<u16, Failure> {
        let mut head = Vec::new();
        let end = loop {
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if head.len() > MAX_HEAD {
                return Err(corrupt("the head of the daemon's answer is too long"));
            }
            let mut buffer = [0; 4096];
            let read = self.receive(&mut buffer).map_err(|error| self.failed(&error))?;
            if read == 0 {
                return Err(corrupt("the daemon closed the connection before it answered"));
            }
            head.extend_from_slice(&buffer[..read]);
        };
        self.held = head.split_off(end);
        let line = String::from_utf8_lossy(&head[..head.len().min(64)]).into_owned();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| corrupt("what listens at the daemon's socket does not speak HTTP"))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        match self.cancelled.check() {
            Err(cancelled) => cancelled,
            Ok(()) => Failure::of(ImageErrorKind::Stalled, format!("the daemon's answer cannot be read: {error}")),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
                {
                    if self.cancelled.check().is_err() {
                        return Err(std::io::Error::other("the import was cancelled"));
                    }
                    if self.since.elapsed() >= STALL {
                        let text = format!("the daemon sent nothing for {} s (registry.stall)", STALL.as_secs());
                        return Err(std::io::Error::new(ErrorKind::TimedOut, text));
                    }
                }
                Ok(read) => {
                    self.since = Instant::now();
                    return Ok(read);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let held = &self.held[self.used..];
        if held.is_empty() {
            return self.receive(buffer);
        }
        let count = held.len().min(buffer.len());
        buffer[..count].copy_from_slice(&held[..count]);
        self.used += count;
        Ok(count)
    }
}
