//! Changes of files, as inotify(7) reports them.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use microsandbox_protocol::message::FsEvent;
use microsandbox_protocol::names;
use microsandbox_rooted::walk::{Bounds, Order, Step, Walk};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entries::open_path;
use super::error::FsError;
use super::root::Root;

/// Directories that one recursive watch covers.
const MAX_DIRECTORIES: usize = 4096;
/// A longer path cannot be used.
const PATH_MAX: usize = 4096;
/// Entries of a new directory that are reported.
const MAX_FOUND: usize = 10_000;
/// Bytes of events that one read takes from the kernel: some hundred changes.
const BUFFER: usize = 16 << 10;

/// A file, a directory, or a directory with all below it.
pub struct Watch {
    inotify: OwnedFd,
    recursive: bool,
    /// The path of each watched file or directory, by the kernel's number for it.
    paths: HashMap<i32, String>,
    top: i32,
    over: bool,
}

/// An event of the kernel, copied out of the read buffer.
struct Seen {
    at: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Option<String>,
}

impl Watch {
    pub fn new(root: &Root, path: String, recursive: bool) -> Result<Watch, FsError> {
        let failed = |error| FsError::at(error, "cannot watch", &path);
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let mut watch = Watch { inotify, recursive, paths: HashMap::new(), top: -1, over: false };
        let file = open_path(root, &path, true, "cannot watch")?;
        watch.top = watch.add(&file, &path)?;
        let is_dir = rustix::fs::fstat(&file).map_err(failed)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if recursive && is_dir {
            watch.descend(&file, &path, None)?;
        }
        Ok(watch)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// What was watched is gone.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// By descriptor: the path was resolved beneath the root, and may mean something else by now.
    fn add(&mut self, file: &OwnedFd, path: &str) -> Result<i32, FsError> {
        let failed = |error| match error {
            Errno::NOSPC => {
                FsError::limit("the sandbox's user has no inotify watches left (fs.inotify.max_user_watches)")
            }
            error => FsError::at(error, "cannot watch", path),
        };
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let what = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::EXCL_UNLINK;
        let number = inotify::add_watch(&self.inotify, own, what).map_err(failed)?;
        self.paths.insert(number, path.trim_end_matches('/').to_owned());
        Ok(number)
    }

    /// Watches every directory below `top`, which is at `path`; `found` gets what is there already. A directory is watched before it is
    /// listed, so nothing that is made in it is missed.
    fn descend(&mut self, top: &OwnedFd, path: &str, mut found: Option<&mut Vec<FsEvent>>) -> Result<(), FsError> {
        let base = path.trim_end_matches('/');
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(top, c".", flags | OFlags::RDONLY, Mode::empty());
        let walk = opened.and_then(|top| Walk::new(top, Order::Found, Bounds::WIDE));
        let mut walk = walk.map_err(|error| FsError::at(error, "cannot watch", path))?;
        while let Some(step) = walk.step() {
            let entry = match step {
                Ok(Step::Entry(entry)) => entry,
                Err(Errno::OVERFLOW) => {
                    return Err(FsError::limit(format!("{path} has too many directories to watch")));
                }
                // Gone again, or replaced: then there is nothing to watch.
                Ok(Step::Left) | Err(_) => continue,
            };
            let is_dir = entry.kind() == FileType::Directory;
            if !is_dir && found.is_none() {
                continue;
            }
            if base.len() + 1 + entry.path.len() >= PATH_MAX {
                return Err(FsError::limit(format!("a path below {path} is longer than {PATH_MAX} bytes")));
            }
            let child = format!("{base}/{}", names::to_text(entry.path));
            if let Some(found) = &mut found {
                if found.len() >= MAX_FOUND {
                    return Err(FsError::limit(format!("more than {MAX_FOUND} new entries below {path}")));
                }
                found.push(FsEvent { kind: "created".into(), path: child.clone(), from: None, is_dir });
            }
            if !is_dir {
                continue;
            }
            if self.paths.len() >= MAX_DIRECTORIES {
                return Err(FsError::limit(format!("more than {MAX_DIRECTORIES} directories to watch")));
            }
            if let Ok(file) = rustix::fs::openat(entry.directory, entry.name, flags | OFlags::PATH, Mode::empty()) {
                self.add(&file, &child)?;
            }
        }
        Ok(())
    }

    /// What happened since the last time, oldest first.
    pub fn read(&mut self, root: &Root) -> Vec<FsEvent> {
        let mut events = Vec::new();
        let mut left: Option<(u32, FsEvent)> = None;
        for seen in self.raw() {
            let moved = left.take_if(|(cookie, _)| *cookie == seen.cookie && seen.flags.contains(ReadFlags::MOVED_TO));
            self.gone(left.take(), &mut events);
            self.tell(root, seen, moved.map(|(_, event)| event), &mut events, &mut left);
        }
        self.gone(left, &mut events);
        events
    }

    /// What left and came nowhere that is watched is gone.
    fn gone(&mut self, left: Option<(u32, FsEvent)>, events: &mut Vec<FsEvent>) {
        let Some((_, event)) = left else { return };
        self.forget(&event.path);
        events.push(event);
    }

    fn raw(&mut self) -> Vec<Seen> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut all = Vec::new();
        while let Ok(event) = reader.next() {
            all.push(Seen {
                at: event.wd(),
                flags: event.events(),
                cookie: event.cookie(),
                name: event.file_name().map(|name| names::to_text(name.to_bytes()).into_owned()),
            });
            if reader.is_buffer_empty() {
                break;
            }
        }
        all
    }

    fn tell(
        &mut self,
        root: &Root,
        seen: Seen,
        moved: Option<FsEvent>,
        events: &mut Vec<FsEvent>,
        left: &mut Option<(u32, FsEvent)>,
    ) {
        let event = |kind: &str, path: String| FsEvent {
            kind: kind.into(),
            path,
            from: None,
            is_dir: seen.flags.contains(ReadFlags::ISDIR),
        };
        if seen.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return events.push(event("overflow", String::new()));
        }
        let Some(at) = self.paths.get(&seen.at).cloned() else { return };
        if seen.flags.contains(ReadFlags::IGNORED) {
            self.paths.remove(&seen.at);
            self.over |= seen.at == self.top;
            return;
        }
        let Some(name) = &seen.name else {
            return self.tell_of_itself(&seen, at, events);
        };
        let path = format!("{at}/{name}");
        if seen.flags.contains(ReadFlags::MOVED_FROM) {
            *left = Some((seen.cookie, event("deleted", path)));
        } else if seen.flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            let Some(old) = moved else {
                events.push(event("created", path.clone()));
                if self.recursive && seen.flags.contains(ReadFlags::ISDIR) {
                    self.follow(root, &path, events);
                }
                return;
            };
            self.renamed(&old.path, &path);
            events.push(FsEvent { from: Some(old.path), ..event("moved", path.clone()) });
            // Made and renamed before we could watch it.
            if self.recursive && seen.flags.contains(ReadFlags::ISDIR) && !self.paths.values().any(|p| *p == path) {
                self.follow(root, &path, events);
            }
        } else if seen.flags.contains(ReadFlags::DELETE) {
            events.push(event("deleted", path));
        } else if seen.flags.contains(ReadFlags::MODIFY) {
            events.push(event("modified", path));
        } else if seen.flags.contains(ReadFlags::ATTRIB) {
            events.push(event("attributes", path));
        }
    }

    /// Events of the watched file itself; those of a directory below the top are reported by the watch of its parent.
    fn tell_of_itself(&mut self, seen: &Seen, path: String, events: &mut Vec<FsEvent>) {
        if seen.at != self.top {
            return;
        }
        let kind = match seen.flags {
            flags if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) => "deleted",
            flags if flags.contains(ReadFlags::MODIFY) => "modified",
            flags if flags.contains(ReadFlags::ATTRIB) => "attributes",
            _ => return,
        };
        // Its path leads elsewhere now.
        self.over |= kind == "deleted";
        events.push(FsEvent { kind: kind.into(), path, from: None, is_dir: seen.flags.contains(ReadFlags::ISDIR) });
    }

    /// A new directory is watched, too. Entries made in it before its watch was added are reported here, so none is
    /// missed; entries made during the listing may be reported twice.
    fn follow(&mut self, root: &Root, path: &str, events: &mut Vec<FsEvent>) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = root.open(path, flags, Mode::empty()) else { return };
        let all = self.paths.len() < MAX_DIRECTORIES
            && self.add(&file, path).and_then(|_| self.descend(&file, path, Some(events))).is_ok();
        if !all {
            events.push(FsEvent { kind: "overflow".into(), ..FsEvent::default() });
        }
    }

    /// A directory has a new name: its watches are kept, and events they already hold are reported with the new name.
    fn renamed(&mut self, old: &str, new: &str) {
        let below = format!("{old}/");
        for watched in self.paths.values_mut() {
            if watched == old {
                *watched = new.to_owned();
            } else if let Some(rest) = watched.strip_prefix(&below) {
                *watched = format!("{new}/{rest}");
            }
        }
    }

    /// A directory was moved out or deleted: removes the watches of it and of all directories below it.
    fn forget(&mut self, path: &str) {
        let below = format!("{path}/");
        let gone: Vec<i32> = self
            .paths
            .iter()
            .filter(|(_, watched)| *watched == path || watched.starts_with(&below))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.paths.remove(&number);
            // Removed by the kernel already if the directory is gone.
            let _ = inotify::remove_watch(&self.inotify, number);
        }
    }
}
