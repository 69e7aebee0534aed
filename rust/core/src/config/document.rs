//! Reading the document, and changing one key of it without touching the others.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::SdkConfig;
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// The version of the document that this program writes and reads; a document without one is of this version.
const VERSION: u64 = 1;
/// The key that names the active profile.
const ACTIVE: &str = "active_profile";
/// The keys that are objects of settings.
const SECTIONS: [&str; 12] = [
    "database",
    "paths",
    "sandbox_defaults",
    "runtime",
    "registries",
    "ssh",
    "metrics",
    "boot",
    "disk",
    "images",
    "serve",
    "profiles",
];
/// The keys of `registries` in which lists are.
const LISTS_OF_REGISTRIES: [&str; 2] = ["mirrors", "policy"];
/// Largest document that is read.
const SIZE_MAX: u64 = 1 << 20;

/// `None`: there is no file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> MicrosandboxResult<Option<T>> {
    let Some((text, _)) = read_keys(path)? else { return Ok(None) };
    // From the text and not from its keys: these have no positions, and each of them only once.
    serde_json::from_str(&text).map(Some).map_err(|error| malformed(path, &error))
}

/// The text, and its keys, of a document that this program may read.
fn read_keys(path: &Path) -> MicrosandboxResult<Option<(String, Map<String, Value>)>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    // serde reads a list as the fields of an object in their order, an empty one as an object without any, and a demand that
    // was meant to be there would be lost.
    let Value::Object(keys) = serde_json::from_str(&text).map_err(|error| malformed(path, &error))? else {
        let what =
            "malformed at line 1, column 1: it must be a JSON object, {…}; correct it, or move it away to use defaults";
        return Err(invalid_value(path, what));
    };
    // Asked first: what a newer version wrote may not fit at all.
    if let Some(version) = keys.get("version").and_then(Value::as_u64)
        && version > VERSION
    {
        return Err(invalid_value(
            path,
            &format!(
                "it is of version {version}, this program knows {VERSION}; update the program, or move the file away"
            ),
        ));
    }
    if let Some(key) = list_in(&keys) {
        return Err(invalid_value(path, &format!("{key} holds a list where no setting is one: correct it")));
    }
    Ok(Some((text, keys)))
}

/// The section that holds a list where no setting is one.
fn list_in(keys: &Map<String, Value>) -> Option<&'static str> {
    SECTIONS.into_iter().find(|&section| {
        let mut left: Vec<&Value> = match (section, keys.get(section)) {
            ("registries", Some(Value::Object(keys))) => keys
                .iter()
                .filter(|(key, _)| !LISTS_OF_REGISTRIES.contains(&key.as_str()))
                .map(|(_, value)| value)
                .collect(),
            (_, value) => value.into_iter().collect(),
        };
        while let Some(value) = left.pop() {
            match value {
                Value::Array(_) => return true,
                Value::Object(keys) => left.extend(keys.values()),
                _ => {}
            }
        }
        false
    })
}

fn read_text(path: &Path) -> MicrosandboxResult<Option<String>> {
    crate::private::check_owner(path, "configuration file", "point MSB_CONFIG_PATH at another file")?;
    if path.metadata().is_ok_and(|meta| meta.len() > SIZE_MAX) {
        return Err(invalid_value(
            path,
            "it is larger than 1 MiB; correct it, or point MSB_CONFIG_PATH at another file",
        ));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MicrosandboxError::InvalidConfig(format!(
            "configuration file {} cannot be read: {error}; correct it, or point MSB_CONFIG_PATH at another file",
            path.display()
        ))),
    }
}

/// A value that parses but must not be.
pub(super) fn invalid_value(path: &Path, what: &str) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(format!("configuration file {}: {what}", path.display()))
}

fn malformed(path: &Path, error: &serde_json::Error) -> MicrosandboxError {
    MicrosandboxError::InvalidConfig(format!(
        "configuration file {} is malformed at line {}, column {}: {}; correct it there, or move it away to use defaults",
        path.display(),
        error.line(),
        error.column(),
        without_values(error)
    ))
}

/// What was expected, never what was found: that may be a key.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if error.classify() != Category::Data {
        return text.to_owned();
    }
    if let Some((_, expected)) = text.rsplit_once(", expected ") {
        return format!("the value is not what belongs here, expected {expected}");
    }
    if text.starts_with("missing field") || text.starts_with("duplicate field") {
        return text.to_owned();
    }
    "the value is not what belongs here".to_owned()
}

/// Makes `name` the active profile. Every other key, known or not, stays. The file is replaced in one step, with mode
/// 0600; if it is a symbolic link, its target is replaced.
pub fn set_active_profile(path: &Path, name: &str) -> MicrosandboxResult<()> {
    let known = read::<SdkConfig>(path)?.unwrap_or_default();
    if !known.profiles.contains_key(name) {
        return Err(super::profile::unknown(name, path));
    }
    change(path, |keys| drop(keys.insert(ACTIVE.into(), Value::from(name))))
}

/// No profile is the active one any more; nothing else changes. Fine without a file.
pub fn clear_active_profile(path: &Path) -> MicrosandboxResult<()> {
    match read::<SdkConfig>(path)? {
        Some(SdkConfig { active_profile: Some(_), .. }) => change(path, |keys| drop(keys.remove(ACTIVE))),
        _ => Ok(()),
    }
}

fn change(path: &Path, work: impl FnOnce(&mut Map<String, Value>)) -> MicrosandboxResult<()> {
    let (_, mut keys) = read_keys(path)?.unwrap_or_default();
    work(&mut keys);
    let mut text =
        serde_json::to_vec_pretty(&keys).map_err(|error| MicrosandboxError::json("write the configuration", error))?;
    text.push(b'\n');
    let target = path.canonicalize().map_err(|error| MicrosandboxError::io("write", path, error))?;
    // There may be keys in it.
    crate::private::write(&target, &text)
}

#[cfg(test)]
mod tests {
    use super::super::{LocalConfig, SdkConfig};
    use super::*;

    #[test]
    fn what_is_no_object_is_never_an_empty_configuration() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in
            ["[]", " [ ]", "null", "1", "\"x\"", "true", "", r#"{"profiles": []}"#, r#"{"profiles": {"p": []}}"#]
        {
            std::fs::write(file.path(), text).unwrap();
            assert!(read::<SdkConfig>(file.path()).is_err(), "{text:?}");
        }
        for section in SECTIONS {
            for value in ["[]", "[1]", r#"{"x": []}"#] {
                std::fs::write(file.path(), format!("{{\"{section}\": {value}}}")).unwrap();
                let error = read::<LocalConfig>(file.path()).unwrap_err().to_string();
                assert!(error.contains(&format!("{section} holds a list")), "{error}");
            }
        }
        let later = r#"{"version": 2, "boot": [1]}"#;
        std::fs::write(file.path(), later).unwrap();
        assert!(read::<LocalConfig>(file.path()).unwrap_err().to_string().contains("of version 2"));
        std::fs::write(file.path(), r#"{"of_another_program": [1], "boot": {}}"#).unwrap();
        assert!(read::<LocalConfig>(file.path()).is_ok());
    }

    #[test]
    fn every_object_of_the_local_view_is_a_section() {
        let Ok(Value::Object(keys)) = serde_json::to_value(LocalConfig::default()) else { panic!("no object") };
        let objects: Vec<&String> = keys.iter().filter(|(_, value)| value.is_object()).map(|(key, _)| key).collect();
        assert!(!objects.is_empty());
        for key in objects {
            assert!(SECTIONS.contains(&key.as_str()), "a list in {key} is read as defaults");
        }
    }
}
