//! A file tree: directories and regular files, by normalised absolute path.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::Utc;

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{FsAttributes, FsEntry, FsEntryKind, FsListStream, FsMetadata};

const DIRECTORY_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_644;
const DIRECTORIES: [&str; 9] = ["/", "/bin", "/dev", "/etc", "/home", "/root", "/tmp", "/usr", "/var"];

#[derive(Debug, Clone)]
enum Content {
    Directory,
    File(Bytes),
}

#[derive(Debug, Clone)]
struct Node {
    content: Content,
    mode: u32,
    modified_ms: f64,
    created_ms: f64,
}

impl Node {
    fn new(content: Content, mode: u32) -> Node {
        let now = Utc::now().timestamp_millis() as f64;
        Node { content, mode, modified_ms: now, created_ms: now }
    }
    fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory)
    }
    fn size(&self) -> u64 {
        match &self.content {
            Content::Directory => 0,
            Content::File(data) => data.len() as u64,
        }
    }
    fn kind(&self) -> FsEntryKind {
        if self.is_directory() { FsEntryKind::Directory } else { FsEntryKind::File }
    }
}

/// The files of one sandbox; they outlive its runs.
#[derive(Debug, Clone)]
pub struct FileTree {
    nodes: BTreeMap<String, Node>,
}

/// `/a/./b/../c` as `/a/c`; never above the root.
pub fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// Everything strictly below `path` begins with this.
fn below(path: &str) -> String {
    if path == "/" { "/".into() } else { format!("{path}/") }
}

struct Subject<'a> {
    operation: &'a str,
    path: &'a str,
}

impl Subject<'_> {
    fn missing(&self) -> MicrosandboxError {
        MicrosandboxError::PathNotFound { operation: self.operation.into(), path: self.path.into() }
    }
    fn error(&self, kind: &str, errno: i32) -> MicrosandboxError {
        MicrosandboxError::Filesystem {
            operation: self.operation.into(),
            path: self.path.into(),
            kind: kind.into(),
            errno: Some(errno),
            message: std::io::Error::from_raw_os_error(errno).to_string(),
        }
    }
    fn not_a_directory(&self) -> MicrosandboxError {
        self.error("ENOTDIR", libc::ENOTDIR)
    }
    fn is_a_directory(&self) -> MicrosandboxError {
        self.error("EISDIR", libc::EISDIR)
    }
}

impl FileTree {
    pub fn new() -> FileTree {
        let mut nodes = BTreeMap::new();
        for path in DIRECTORIES {
            let mode = if path == "/tmp" { 0o041_777 } else { DIRECTORY_MODE };
            nodes.insert(path.to_string(), Node::new(Content::Directory, mode));
        }
        FileTree { nodes }
    }

    /// Nothing but the root.
    pub fn empty() -> FileTree {
        FileTree { nodes: BTreeMap::from([("/".to_string(), Node::new(Content::Directory, DIRECTORY_MODE))]) }
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.nodes.values().map(Node::size).sum()
    }

    pub fn is_directory(&self, path: &str) -> bool {
        self.nodes.get(&normalise(path)).is_some_and(Node::is_directory)
    }

    fn node(&self, subject: &Subject<'_>) -> MicrosandboxResult<(String, &Node)> {
        let path = normalise(subject.path);
        if let Some(node) = self.nodes.get(&path) {
            if subject.path.ends_with('/') && !node.is_directory() {
                return Err(subject.not_a_directory());
            }
            return Ok((path, node));
        }
        self.home(subject, &path)?;
        Err(subject.missing())
    }

    /// Checks that the parent directory of a path exists.
    fn home(&self, subject: &Subject<'_>, path: &str) -> MicrosandboxResult<()> {
        let mut above = parent(path);
        loop {
            match self.nodes.get(above) {
                Some(node) if !node.is_directory() => return Err(subject.not_a_directory()),
                Some(_) if above == parent(path) => return Ok(()),
                Some(_) => return Err(subject.missing()),
                None => above = parent(above),
            }
        }
    }

    pub fn read(&self, path: &str) -> MicrosandboxResult<Bytes> {
        let subject = Subject { operation: "read", path };
        match &self.node(&subject)?.1.content {
            Content::File(data) => Ok(data.clone()),
            Content::Directory => Err(subject.is_a_directory()),
        }
    }

    pub fn write(&mut self, path: &str, data: Bytes, mode: Option<u32>) -> MicrosandboxResult<()> {
        let subject = Subject { operation: "write", path };
        let at = normalise(path);
        if path.ends_with('/') || self.nodes.get(&at).is_some_and(Node::is_directory) {
            return Err(subject.is_a_directory());
        }
        self.home(&subject, &at)?;
        let mode = mode.map(|mode| 0o100_000 | mode & 0o777);
        match self.nodes.get_mut(&at) {
            Some(node) => {
                node.content = Content::File(data);
                node.mode = mode.unwrap_or(node.mode);
                node.modified_ms = Utc::now().timestamp_millis() as f64;
            }
            None => {
                self.nodes.insert(at, Node::new(Content::File(data), mode.unwrap_or(FILE_MODE)));
            }
        }
        Ok(())
    }

    pub fn list(&self, path: &str) -> MicrosandboxResult<Vec<FsEntry>> {
        let subject = Subject { operation: "list", path };
        let (at, node) = self.node(&subject)?;
        if !node.is_directory() {
            return Err(subject.not_a_directory());
        }
        let prefix = below(&at);
        let inside = self.nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let children = inside.filter(|(path, _)| path.len() > prefix.len() && !path[prefix.len()..].contains('/'));
        Ok(children
            .map(|(path, node)| FsEntry {
                path: path.clone(),
                kind: node.kind(),
                size: node.size(),
                mode: node.mode,
                modified_ms: Some(node.modified_ms),
            })
            .collect())
    }

    pub fn stat(&self, operation: &str, path: &str) -> MicrosandboxResult<FsMetadata> {
        let (_, node) = self.node(&Subject { operation, path })?;
        Ok(FsMetadata {
            kind: node.kind(),
            size: node.size(),
            mode: node.mode,
            uid: 0,
            gid: 0,
            readonly: node.mode & 0o222 == 0,
            modified_ms: Some(node.modified_ms),
            modified: None,
            created_ms: Some(node.created_ms),
        })
    }

    /// Everything belongs to root here: another owner is refused, as is a directory's size.
    pub fn set(&mut self, path: &str, attributes: &FsAttributes) -> MicrosandboxResult<()> {
        let subject = Subject { operation: "set", path };
        let at = self.node(&subject)?.0;
        if [attributes.uid, attributes.gid].into_iter().flatten().any(|id| id != 0) {
            return Err(subject.error("EPERM", libc::EPERM));
        }
        let Some(node) = self.nodes.get_mut(&at) else { return Err(subject.missing()) };
        if let Some(size) = attributes.size {
            let Content::File(data) = &node.content else { return Err(subject.is_a_directory()) };
            let mut data = data.to_vec();
            data.resize(size as usize, 0);
            node.content = Content::File(data.into());
        }
        if let Some(mode) = attributes.mode {
            node.mode = node.mode & !0o7777 | mode & 0o7777;
        }
        if let Some(modified) = attributes.modified {
            node.modified_ms = modified as f64 * 1000.0;
        }
        Ok(())
    }

    pub fn mkdir(&mut self, path: &str) -> MicrosandboxResult<()> {
        let subject = Subject { operation: "mkdir", path };
        let at = normalise(path);
        let mut missing = Vec::new();
        let mut above = at.as_str();
        loop {
            match self.nodes.get(above) {
                Some(node) if node.is_directory() => break,
                Some(_) => return Err(subject.not_a_directory()),
                None => missing.push(above.to_string()),
            }
            above = parent(above);
        }
        for path in missing {
            self.nodes.insert(path, Node::new(Content::Directory, DIRECTORY_MODE));
        }
        Ok(())
    }

    pub fn remove(&mut self, path: &str, recursive: bool) -> MicrosandboxResult<()> {
        let subject = Subject { operation: "remove", path };
        let (at, node) = self.node(&subject)?;
        match (node.is_directory(), recursive) {
            (true, false) => return Err(subject.is_a_directory()),
            (false, true) => return Err(subject.not_a_directory()),
            _ => {}
        }
        if at == "/" {
            return Err(subject.error("EBUSY", libc::EBUSY));
        }
        let prefix = below(&at);
        self.nodes.retain(|path, _| *path != at && !path.starts_with(&prefix));
        Ok(())
    }

    pub fn copy(&mut self, from: &str, to: &str) -> MicrosandboxResult<()> {
        let (source, node) = self.node(&Subject { operation: "copy", path: from })?;
        let node = node.clone();
        let subject = Subject { operation: "copy", path: to };
        let target = normalise(to);
        self.home(&subject, &target)?;
        if !node.is_directory() {
            if self.nodes.get(&target).is_some_and(Node::is_directory) {
                return Err(subject.is_a_directory());
            }
            self.nodes.insert(target, node);
            return Ok(());
        }
        if target == source || target.starts_with(&below(&source)) {
            return Err(subject.error("EINVAL", libc::EINVAL));
        }
        if self.nodes.get(&target).is_some_and(|node| !node.is_directory()) {
            return Err(subject.not_a_directory());
        }
        for (path, node) in self.subtree(&source) {
            self.nodes.insert(format!("{target}{}", &path[source.len()..]), node);
        }
        Ok(())
    }

    pub fn rename(&mut self, from: &str, to: &str) -> MicrosandboxResult<()> {
        let (source, node) = self.node(&Subject { operation: "rename", path: from })?;
        let moves_directory = node.is_directory();
        let subject = Subject { operation: "rename", path: to };
        let target = normalise(to);
        self.home(&subject, &target)?;
        if target == source {
            return Ok(());
        }
        if source == "/" || target.starts_with(&below(&source)) {
            return Err(subject.error("EINVAL", libc::EINVAL));
        }
        match self.nodes.get(&target) {
            Some(there) if there.is_directory() && !moves_directory => return Err(subject.is_a_directory()),
            Some(there) if !there.is_directory() && moves_directory => return Err(subject.not_a_directory()),
            Some(there) if there.is_directory() && self.subtree(&target).len() > 1 => {
                return Err(subject.error("ENOTEMPTY", libc::ENOTEMPTY));
            }
            _ => {}
        }
        for (path, node) in self.subtree(&source) {
            self.nodes.remove(&path);
            self.nodes.insert(format!("{target}{}", &path[source.len()..]), node);
        }
        Ok(())
    }

    fn subtree(&self, root: &str) -> Vec<(String, Node)> {
        let prefix = below(root);
        let inside = self.nodes.iter().filter(|(path, _)| *path == root || path.starts_with(&prefix));
        inside.map(|(path, node)| (path.clone(), node.clone())).collect()
    }
}

/// A listing in one page.
pub fn one_page(entries: Vec<FsEntry>) -> FsListStream {
    let pages = (!entries.is_empty()).then_some(Ok(entries));
    Box::pin(futures::stream::iter(pages))
}
