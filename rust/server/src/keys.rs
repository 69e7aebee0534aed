//! API keys: `<home>/serve/keys.json`, mode 0600, replaced atomically under a lock.
//!
//! Only the SHA-256 of a key is stored. A key is 256 random bits: it cannot be guessed, so a slow hash would protect nothing.
//! A running server checks the identity of the file on every request and reads the file again when it has changed.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use microsandbox_core::{MicrosandboxError, MicrosandboxResult, private, random};
use microsandbox_home::make_private_directory;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Before the random part.
pub const PREFIX: &str = "msb_live_";
/// A longer text is not a key.
const KEY_MAX: usize = 256;
/// A larger file was not written by this program.
const FILE_MAX: u64 = 4 << 20;
const NAME_MAX: usize = 64;

/// A permission of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    #[serde(rename = "sandboxes:read")]
    SandboxesRead,
    #[serde(rename = "sandboxes:write")]
    SandboxesWrite,
    /// Captured output.
    #[serde(rename = "logs:read")]
    LogsRead,
    /// Programs, jobs and terminals inside sandboxes. What they can read and write is theirs to decide: with this scope a key
    /// reaches the files of a sandbox as well.
    #[serde(rename = "exec")]
    Exec,
    /// Files inside sandboxes, through the agent.
    #[serde(rename = "files:read")]
    FilesRead,
    #[serde(rename = "files:write")]
    FilesWrite,
    #[serde(rename = "volumes:read")]
    VolumesRead,
    #[serde(rename = "volumes:write")]
    VolumesWrite,
    /// `/metrics`, which covers the requests of all keys.
    #[serde(rename = "metrics")]
    Metrics,
    /// Widens the other scopes of the key to the objects of every owner, and to those made on the machine of the server.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Scope; 10] = [
        Scope::SandboxesRead,
        Scope::SandboxesWrite,
        Scope::LogsRead,
        Scope::Exec,
        Scope::FilesRead,
        Scope::FilesWrite,
        Scope::VolumesRead,
        Scope::VolumesWrite,
        Scope::Metrics,
        Scope::Admin,
    ];
    /// The scopes of a key for which none are named: all but `metrics` and `admin`.
    pub const DEFAULT: [Scope; 8] = [
        Scope::SandboxesRead,
        Scope::SandboxesWrite,
        Scope::LogsRead,
        Scope::Exec,
        Scope::FilesRead,
        Scope::FilesWrite,
        Scope::VolumesRead,
        Scope::VolumesWrite,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Scope::SandboxesRead => "sandboxes:read",
            Scope::SandboxesWrite => "sandboxes:write",
            Scope::LogsRead => "logs:read",
            Scope::Exec => "exec",
            Scope::FilesRead => "files:read",
            Scope::FilesWrite => "files:write",
            Scope::VolumesRead => "volumes:read",
            Scope::VolumesWrite => "volumes:write",
            Scope::Metrics => "metrics",
            Scope::Admin => "admin",
        }
    }
    pub fn parse(text: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// A key as it is stored: its hash, not its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub id: String,
    pub name: String,
    pub scopes: Vec<Scope>,
    /// The owner of what the key makes, where that is not the key itself: the first of several keys that share their objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    pub created_at: DateTime<Utc>,
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Hexadecimal.
    sha256: String,
}

impl Key {
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
    /// Whom what the key makes belongs to. It is stored with each object and outlives the key.
    pub fn owner(&self) -> &str {
        self.owner.as_deref().unwrap_or(&self.id)
    }
    pub fn expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// Device, inode, size and both times: any rewrite changes at least one.
type Identity = (u64, u64, u64, i64, i64);

#[derive(Default)]
struct Cached {
    identity: Option<Identity>,
    keys: Vec<Key>,
}

/// The keys of one home.
pub struct Keys {
    file: PathBuf,
    cached: Mutex<Cached>,
}

impl Keys {
    /// `directory` is `<home>/serve`; nothing is opened yet.
    pub fn new(directory: &Path) -> Keys {
        Keys { file: directory.join("keys.json"), cached: Mutex::default() }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The key with this text, expired or not. Every stored hash is compared, each in constant time.
    pub fn find(&self, text: &str) -> MicrosandboxResult<Option<Key>> {
        if text.len() > KEY_MAX {
            return Ok(None);
        }
        let hash = hex::encode(Sha256::digest(text.as_bytes()));
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.identity()?;
        if cached.identity != now || now.is_none() {
            cached.keys = if now.is_some() { keys_of(&self.read()?, &self.file)? } else { Vec::new() };
            cached.identity = now;
        }
        let mut found = None;
        for key in &cached.keys {
            if bool::from(key.sha256.as_bytes().ct_eq(hash.as_bytes())) {
                found = Some(key.clone());
            }
        }
        Ok(found)
    }

    pub fn list(&self) -> MicrosandboxResult<Vec<Key>> {
        keys_of(&self.read()?, &self.file)
    }

    /// Creates a key that owns what it makes. This is the only time that the text of the key is returned.
    pub fn create(
        &self,
        name: &str,
        scopes: &[Scope],
        expires_at: Option<DateTime<Utc>>,
    ) -> MicrosandboxResult<(Key, String)> {
        self.create_sharing(None, name, scopes, expires_at)
    }

    /// As [`Keys::create`], for one more key of the owner that the key named `sharing` makes objects for.
    pub fn create_sharing(
        &self,
        sharing: Option<&str>,
        name: &str,
        scopes: &[Scope],
        expires_at: Option<DateTime<Utc>>,
    ) -> MicrosandboxResult<(Key, String)> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(legal) {
            return Err(MicrosandboxError::InvalidConfig(format!(
                "the name of a key must be 1 to {NAME_MAX} of A-Z a-z 0-9 . _ -: got {name:?}"
            )));
        }
        if scopes.is_empty() {
            return Err(MicrosandboxError::InvalidConfig("a key needs at least one scope: name one".into()));
        }
        let owner = match sharing {
            None => None,
            Some(other) => match self.list()?.into_iter().find(|key| key.name == other) {
                Some(key) => Some(key.owner().to_owned()),
                None => return Err(no_key(other)),
            },
        };
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random::bytes::<32>()?));
        let key = Key {
            id: random::hex::<8>()?,
            name: name.into(),
            scopes: Scope::ALL.into_iter().filter(|scope| scopes.contains(scope)).collect(),
            owner,
            created_at: Utc::now(),
            expires_at,
            sha256: hex::encode(Sha256::digest(text.as_bytes())),
        };
        let stored = serde_json::to_value(&key).map_err(|e| MicrosandboxError::json("the new key", e))?;
        self.change(|list| {
            if list.iter().any(|other| other.get("name").and_then(Value::as_str) == Some(name)) {
                return Err(MicrosandboxError::InvalidConfig(format!(
                    "a key named {name} already exists: choose another name, or revoke that key first"
                )));
            }
            list.push(stored);
            Ok(())
        })?;
        Ok((key, text))
    }

    /// Revokes a key; a running server refuses it from the next request on.
    pub fn revoke(&self, name: &str) -> MicrosandboxResult<()> {
        self.change(|list| {
            let before = list.len();
            list.retain(|key| key.get("name").and_then(Value::as_str) != Some(name));
            if list.len() == before {
                return Err(no_key(name));
            }
            Ok(())
        })
    }

    /// The organisation id of this home: a UUID, generated once.
    pub fn organisation(&self) -> MicrosandboxResult<String> {
        let read = |document: &Map<String, Value>| document.get("org_id").and_then(Value::as_str).map(str::to_owned);
        if let Some(id) = read(&self.read()?) {
            return Ok(id);
        }
        let fresh = crate::convert::uuid(&random::hex::<16>()?);
        let mut id = fresh.clone();
        self.rewrite(|document| {
            id = read(document).unwrap_or(fresh);
            document.insert("org_id".into(), json!(id));
            Ok(())
        })?;
        Ok(id)
    }

    fn identity(&self) -> MicrosandboxResult<Option<Identity>> {
        match std::fs::metadata(&self.file) {
            Ok(m) => Ok(Some((m.dev(), m.ino(), m.size(), m.mtime() * 1_000_000_000 + m.mtime_nsec(), m.ctime_nsec()))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(MicrosandboxError::io("stat", &self.file, e)),
        }
    }

    fn read(&self) -> MicrosandboxResult<Map<String, Value>> {
        let text = match std::fs::metadata(&self.file) {
            Ok(m) if m.len() > FILE_MAX => {
                return Err(MicrosandboxError::InvalidConfig(format!(
                    "{} is larger than {FILE_MAX} bytes: it is not a key file of this program",
                    self.file.display()
                )));
            }
            Ok(_) => std::fs::read_to_string(&self.file).map_err(|e| MicrosandboxError::io("read", &self.file, e))?,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Map::new()),
            Err(e) => return Err(MicrosandboxError::io("stat", &self.file, e)),
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(document)) => Ok(document),
            _ => Err(MicrosandboxError::InvalidConfig(format!(
                "{} is not a JSON object: restore the file, or remove it and create new keys",
                self.file.display()
            ))),
        }
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Value>) -> MicrosandboxResult<()>) -> MicrosandboxResult<()> {
        self.rewrite(|document| {
            let keys = document.entry("keys").or_insert_with(|| json!([]));
            let Value::Array(list) = keys else {
                return Err(MicrosandboxError::InvalidConfig(format!("{}: `keys` is not a list", self.file.display())));
            };
            edit(list)
        })
    }

    /// Reads, changes and replaces the file; fields that this version does not know are kept.
    fn rewrite(&self, edit: impl FnOnce(&mut Map<String, Value>) -> MicrosandboxResult<()>) -> MicrosandboxResult<()> {
        let directory = self.file.parent().unwrap_or(Path::new("."));
        make_private_directory(directory)?;
        let lock = directory.join("keys.lock");
        let held = File::options().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let held = held.map_err(|e| MicrosandboxError::io("open", &lock, e))?;
        held.lock().map_err(|e| MicrosandboxError::io("lock", &lock, e))?;
        let mut document = self.read()?;
        document.entry("version").or_insert_with(|| json!(1));
        edit(&mut document)?;
        let text = serde_json::to_string_pretty(&document).map_err(|e| MicrosandboxError::json("the keys", e))?;
        private::write(&self.file, text.as_bytes())
    }
}

fn no_key(name: &str) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(format!("there is no key named {name}: `msb serve key list` lists the keys"))
}

fn keys_of(document: &Map<String, Value>, file: &Path) -> MicrosandboxResult<Vec<Key>> {
    let list = document.get("keys").cloned().unwrap_or_else(|| json!([]));
    let Value::Array(list) = list else {
        return Err(MicrosandboxError::InvalidConfig(format!("{}: `keys` is not a list", file.display())));
    };
    // A key with a scope that this version does not know gives no access.
    Ok(list.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
}

#[cfg(test)]
mod tests;
