//! The environment as a value, so that rules about variables can be tried without changing the process's own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where variables are looked up. Values are read when asked for, never kept.
#[derive(Clone, Default)]
pub enum Environment {
    /// This process's.
    #[default]
    Process,
    /// These and no others.
    Fixed(BTreeMap<String, OsString>),
}

impl Environment {
    /// From pairs.
    pub fn of<K: Into<String>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (K, V)>) -> Environment {
        Environment::Fixed(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// Set, perhaps empty.
    pub fn raw(&self, name: &str) -> Option<OsString> {
        match self {
            Environment::Process => std::env::var_os(name),
            Environment::Fixed(variables) => variables.get(name).cloned(),
        }
    }

    /// Trimmed; blank counts as unset. What is not UTF-8 keeps a replacement character and so matches no keyword.
    pub fn text(&self, name: &str) -> Option<String> {
        let value = self.raw(name)?.to_string_lossy().trim().to_owned();
        if value.is_empty() { None } else { Some(value) }
    }

    /// Verbatim; empty counts as unset.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Environment::Process => f.write_str("Process"),
            Environment::Fixed(variables) => f.debug_set().entries(variables.keys()).finish(),
        }
    }
}
