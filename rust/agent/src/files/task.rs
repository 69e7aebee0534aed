//! File work in steps. A step never waits for a client: it takes the input that is there, or produces one chunk, and
//! hands the task back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use microsandbox_protocol::message::{FsAttrs, FsData, FsOp, OpenOptions};
use rustix::fs::{Mode, OFlags};

use super::error::{FsError, check_path};
use super::handles::Handle;
use super::pack::Pack;
use super::reader::{Reader, open_error, require_regular};
use super::root::Root;
use super::unpack::Unpack;
use super::watch::Watch;
use super::writer::Writer;
use super::{attributes, copy, entries, names, remove, rename};

const DEFAULT_FILE_MODE: u32 = 0o644;

/// What is to be done.
pub enum Task {
    /// One step, by path.
    Path(FsOp),
    ReadDir(Arc<Handle>, u32),
    FStat(Arc<Handle>),
    FSetStat(Arc<Handle>, FsAttrs),
    Read(Reader),
    Write(Writer),
    ReadTar(Pack),
    WriteTar(Unpack),
    /// The client is gone: only free what the task holds.
    Discard(Box<Task>),
}

/// The result of a finished task.
pub enum Answer {
    Nothing,
    /// A transfer of so many bytes.
    Moved(u64),
    Data(FsData),
    Opened(Box<Handle>),
    Watching(Box<Watch>),
}

/// One step for a worker.
pub struct Job {
    pub call: u64,
    pub task: Task,
    pub root: Arc<Root>,
    pub cancel: Arc<AtomicBool>,
    /// Data for a [`Task::Write`], in order.
    pub input: Vec<Bytes>,
    /// No more data follows `input`.
    pub ended: bool,
    /// Largest chunk a [`Task::Read`] may produce.
    pub budget: usize,
}

/// What came of a step.
pub struct Done {
    pub call: u64,
    /// To be continued.
    pub task: Option<Task>,
    pub chunk: Vec<u8>,
    /// Set when the task is finished.
    pub outcome: Option<Result<Answer, FsError>>,
}

impl Job {
    /// Runs on a worker.
    pub fn run(self) -> Done {
        let mut done = Done { call: self.call, task: None, chunk: Vec::new(), outcome: None };
        match self.task {
            Task::Read(mut reader) => {
                let step = reader.step(&self.root, self.budget);
                done.read(step, reader.total, || Task::Read(reader));
            }
            Task::ReadTar(mut reader) => {
                let step = reader.step(&self.root, self.budget);
                done.read(step, reader.total, || Task::ReadTar(reader));
            }
            Task::Write(mut writer) => match feed(&mut writer, &self.root, &self.input) {
                Ok(()) if self.ended => {
                    let written = writer.written;
                    done.outcome = Some(writer.finish().map(|()| Answer::Moved(written)));
                }
                Ok(()) => done.task = Some(Task::Write(writer)),
                Err(error) => done.outcome = Some(Err(error)),
            },
            Task::WriteTar(mut writer) => match writer.write(&self.root, self.input) {
                Ok(()) if self.ended => {
                    let written = writer.written;
                    done.outcome = Some(writer.finish().map(|()| Answer::Moved(written)));
                }
                Ok(()) => done.task = Some(Task::WriteTar(writer)),
                Err(error) => done.outcome = Some(Err(error)),
            },
            other => done.outcome = Some(once(other, &self.root, &self.cancel)),
        }
        done
    }
}

impl Done {
    /// Takes a step of a reader: a chunk, and whether it was the last.
    fn read(&mut self, step: Result<(Vec<u8>, bool), FsError>, total: u64, rest: impl FnOnce() -> Task) {
        match step {
            Ok((chunk, last)) => {
                self.chunk = chunk;
                if last {
                    self.outcome = Some(Ok(Answer::Moved(total)));
                } else {
                    self.task = Some(rest());
                }
            }
            Err(error) => self.outcome = Some(Err(error)),
        }
    }
}

fn feed(writer: &mut Writer, root: &Root, input: &[Bytes]) -> Result<(), FsError> {
    writer.open(root)?;
    input.iter().try_for_each(|data| writer.write(data))
}

fn once(task: Task, root: &Root, cancel: &AtomicBool) -> Result<Answer, FsError> {
    let nothing = |()| Answer::Nothing;
    match task {
        Task::Path(op) => by_path(op, root, cancel),
        Task::ReadDir(handle, limit) => Ok(Answer::Data(FsData::List(entries::page(&handle, limit)?))),
        Task::FStat(handle) => Ok(Answer::Data(FsData::Stat(entries::fstat(&handle)?))),
        Task::FSetStat(handle, attrs) => attributes::set_open(&handle, &attrs).map(nothing),
        Task::Discard(task) => {
            drop(task);
            Ok(Answer::Nothing)
        }
        // These run in steps of their own.
        Task::Read(_) | Task::Write(_) | Task::ReadTar(_) | Task::WriteTar(_) => Err(unsupported()),
    }
}

fn by_path(op: FsOp, root: &Root, cancel: &AtomicBool) -> Result<Answer, FsError> {
    let nothing = |()| Answer::Nothing;
    match op {
        FsOp::RealPath { path } => Ok(Answer::Data(FsData::Path(names::real_path(root, &path)?))),
        FsOp::Stat { path, follow_symlink } => {
            Ok(Answer::Data(FsData::Stat(entries::stat(root, &path, follow_symlink)?)))
        }
        FsOp::SetStat { path, follow_symlink, attrs } => {
            attributes::set(root, &path, follow_symlink, &attrs).map(nothing)
        }
        FsOp::List { path } => Ok(Answer::Data(FsData::List(entries::list(root, &path)?))),
        FsOp::ReadLink { path } => Ok(Answer::Data(FsData::Path(names::readlink(root, &path)?))),
        FsOp::Symlink { target, link_path } => names::symlink(root, &target, &link_path).map(nothing),
        FsOp::Mkdir { path, mode } => names::mkdir(root, &path, mode).map(nothing),
        FsOp::Remove { path } => names::remove(root, &path).map(nothing),
        FsOp::RemoveDir { path, recursive } => remove::remove_dir(root, &path, recursive, cancel).map(nothing),
        FsOp::Copy { src, dst } => copy::copy(root, &src, &dst, cancel).map(nothing),
        FsOp::Rename { src, dst } => rename::rename(root, &src, &dst, cancel).map(nothing),
        FsOp::OpenFile { path, options } => Ok(Answer::Opened(Box::new(open_file(root, path, &options)?))),
        FsOp::OpenDir { path } => Ok(Answer::Opened(Box::new(entries::open_dir(root, &path)?))),
        FsOp::Watch { path, recursive } => Ok(Answer::Watching(Box::new(Watch::new(root, path, recursive)?))),
        // The server turns these into other tasks.
        FsOp::CloseHandle { .. }
        | FsOp::Read { .. }
        | FsOp::Write { .. }
        | FsOp::ReadDir { .. }
        | FsOp::FStat { .. }
        | FsOp::FSetStat { .. }
        | FsOp::ReadFile { .. }
        | FsOp::WriteFile { .. }
        | FsOp::ReadTar { .. }
        | FsOp::WriteTar { .. } => Err(unsupported()),
    }
}

fn unsupported() -> FsError {
    FsError { kind: "ENOSYS", errno: Some(libc::ENOSYS), message: "not an operation of one step".to_owned() }
}

fn open_file(root: &Root, path: String, options: &OpenOptions) -> Result<Handle, FsError> {
    check_path(&path)?;
    let writes = options.write || options.append;
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    flags |= match (options.read, writes) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    if options.append {
        flags |= OFlags::APPEND;
    }
    let mut mode = Mode::empty();
    if options.create || options.create_new {
        flags |= OFlags::CREATE;
        mode = Mode::from_raw_mode(options.mode.unwrap_or(DEFAULT_FILE_MODE) & 0o7777);
    }
    if options.create_new {
        flags |= OFlags::EXCL;
    }
    let fd = root.open(&path, flags, mode).map_err(|error| open_error(error, "cannot open", &path))?;
    require_regular(std::os::fd::AsFd::as_fd(&fd), "cannot open", &path)?;
    if options.truncate && writes {
        rustix::fs::ftruncate(&fd, 0).map_err(|error| FsError::at(error, "cannot truncate", &path))?;
    }
    Ok(Handle { fd, path, listing: None })
}
