//! The files in which Docker and Podman keep credentials, as the user's other programs wrote them.
//!
//! A key names a registry, or a repository or namespace of it; the longest that fits is used. For each key a credential program
//! (`credHelpers`) goes before what the file holds itself (`auths`), and the program for all registries (`credsStore`) comes between.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use microsandbox_core::config::Environment;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::private;
use serde::{Deserialize, Deserializer};

use super::program::{self, Failure};
use super::{Credential, SECRET_MAX, registry_key};

/// Largest file.
const FILE_MAX: u64 = 1 << 20;
/// With or without padding, both are found.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    #[serde(deserialize_with = "or_default")]
    auths: BTreeMap<String, Entry>,
    #[serde(deserialize_with = "or_default")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    creds_store: String,
}

/// Null as absent.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// Base64 of `user:password`.
    auth: String,
    username: String,
    password: String,
    #[serde(alias = "identityToken")]
    identitytoken: String,
    #[serde(alias = "registryToken")]
    registrytoken: String,
}

impl Entry {
    fn credential(&self) -> Option<Credential> {
        let fits = |token: &String| !token.is_empty() && token.len() <= SECRET_MAX;
        if fits(&self.identitytoken) {
            return Some(Credential::IdentityToken(self.identitytoken.clone()));
        }
        if fits(&self.registrytoken) {
            return Some(Credential::Bearer(self.registrytoken.clone()));
        }
        if !self.auth.is_empty() {
            let text = String::from_utf8(BASE64.decode(&self.auth).ok()?).ok()?;
            let (username, password) = text.split_once(':')?;
            return Credential::new(username.to_owned(), password.trim_end_matches('\0').to_owned());
        }
        Credential::new(self.username.clone(), self.password.clone())
    }
}

/// The credential of the first file that has one.
pub(super) fn find(environment: &Environment, host: &str, repository: &str) -> MicrosandboxResult<Option<Credential>> {
    for path in places(environment) {
        let Some(document) = read(&path)? else { continue };
        if let Some(found) = in_document(&document, &path, environment, host, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Docker's file, then Podman's.
fn places(environment: &Environment) -> Vec<PathBuf> {
    let home = environment.path("HOME");
    let docker = environment.path("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let mut places: Vec<PathBuf> = docker.map(|dir| dir.join("config.json")).into_iter().collect();
    match environment.path("REGISTRY_AUTH_FILE") {
        Some(file) => places.push(file),
        None => {
            let config = environment.path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
            let directories = environment.path("XDG_RUNTIME_DIR").into_iter().chain(config);
            places.extend(directories.map(|dir| dir.join("containers").join("auth.json")));
        }
    }
    places
}

fn read(path: &Path) -> MicrosandboxResult<Option<Document>> {
    let invalid = |what: &str| {
        let text = format!("the credentials in {}: {what}; correct the file, or move it away", path.display());
        Err(MicrosandboxError::InvalidConfig(text))
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        // Of another user, as a home that a service inherited.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(MicrosandboxError::io("read", path, error)),
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return invalid("it is no file");
    }
    private::check_owner(path, "credentials file", "point DOCKER_CONFIG or REGISTRY_AUTH_FILE at another file")?;
    let mut text = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(|error| MicrosandboxError::io("read", path, error))?;
    if text.len() as u64 > FILE_MAX {
        return invalid("it is larger than 1 MiB");
    }
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    // The error of the parser may hold a piece of a secret.
    serde_json::from_slice(&text)
        .map(Some)
        .or_else(|_secret| invalid("it is not the JSON that Docker and Podman write"))
}

fn in_document(
    document: &Document,
    path: &Path,
    environment: &Environment,
    host: &str,
    repository: &str,
) -> MicrosandboxResult<Option<Credential>> {
    let wanted = candidates(host, repository);
    let search = environment.raw("PATH");
    for key in &wanted {
        let Some((written, name)) = document.cred_helpers.iter().find(|(written, _)| file_key(written) == *key) else {
            continue;
        };
        match program::get(name, written, search.as_deref()) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(failure) => return Err(failed(path, "credHelpers", name, host, &failure)),
        }
    }
    if !document.creds_store.is_empty() {
        match program::get(&document.creds_store, &server(host), search.as_deref()) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            // It is named for every registry, also for those that need no credential.
            Err(failure) => {
                let error = failed(path, "credsStore", &document.creds_store, host, &failure);
                tracing::warn!("{error}; {host} is asked without it");
            }
        }
    }
    let entries: BTreeMap<String, &Entry> = document.auths.iter().map(|(key, entry)| (file_key(key), entry)).collect();
    Ok(wanted.iter().filter_map(|key| entries.get(key)).find_map(|entry| entry.credential()))
}

/// The keys that fit, the longest first: `host/a/b`, `host/a`, `host`.
fn candidates(host: &str, repository: &str) -> Vec<String> {
    let mut key = format!("{}/{repository}", registry_key(host));
    let mut all = Vec::new();
    loop {
        all.push(key.clone());
        match key.rfind('/') {
            Some(end) => key.truncate(end),
            None => return all,
        }
    }
}

/// A key of a file without its scheme, and without the path that only addresses with a scheme have for another reason.
fn file_key(written: &str) -> String {
    let (has_scheme, rest) = match written.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, written),
    };
    let rest = rest.trim_end_matches('/');
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = registry_key(host);
    match path {
        Some(path) if !has_scheme && !matches!(path, "v1" | "v2") => format!("{host}/{path}"),
        _ => host,
    }
}

/// The registry as Docker names it to a program.
fn server(host: &str) -> String {
    match registry_key(host).as_str() {
        "docker.io" => "https://index.docker.io/v1/".to_owned(),
        other => other.to_owned(),
    }
}

fn failed(path: &Path, key: &str, name: &str, host: &str, failure: &Failure) -> MicrosandboxError {
    let why = match failure {
        Failure::Absent => "is not installed",
        Failure::Other(why) => why,
    };
    MicrosandboxError::InvalidConfig(format!(
        "the credential program docker-credential-{name} of {key} in {} {why}; mend it, remove the entry, or give the credential of \
         {host} with the call",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const CANARY: &str = "canary-of-the-tests-c01d";

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Files {
            Files { directory: tempfile::tempdir().unwrap() }
        }
        fn with(self, name: &str, text: &str) -> Files {
            let path = self.directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            self
        }
        fn environment(&self) -> Environment {
            Environment::of([("HOME", self.directory.path().to_owned()), ("PATH", self.directory.path().join("bin"))])
        }
        fn ask(&self, host: &str, repository: &str) -> MicrosandboxResult<Option<Credential>> {
            loop {
                match find(&self.environment(), host, repository) {
                    // Another thread's child may hold the script open for writing for a moment after a fork.
                    Err(error) if error.to_string().contains("Text file busy") => {}
                    answer => return answer,
                }
            }
        }
        fn user(&self, host: &str, repository: &str) -> Option<String> {
            match self.ask(host, repository).unwrap()? {
                Credential::Basic { username, .. } => Some(username),
                other => Some(format!("{other:?}")),
            }
        }
    }

    fn auth(user: &str) -> String {
        format!("{{\"auth\": \"{}\"}}", BASE64.encode(format!("{user}:p:{CANARY}\0")))
    }

    #[test]
    fn the_longest_key_that_fits_is_used() {
        let (broad, narrow, hub) = (auth("broad"), auth("narrow"), auth("hub"));
        let text = format!(
            r#"{{"auths": {{"r.example": {broad}, "r.example/team/app": {narrow}, "https://index.docker.io/v1/": {hub},
                "https://old.example/v2/": {narrow}}}}}"#
        );
        let files = Files::new().with(".config/containers/auth.json", &text);
        for (host, repository, user) in [
            ("r.example", "x", "broad"),
            ("r.example", "team/application", "broad"),
            ("r.example", "team/app", "narrow"),
            ("r.example", "team/app/deep", "narrow"),
            ("docker.io", "library/debian", "hub"),
            ("old.example", "x", "narrow"),
        ] {
            assert_eq!(files.user(host, repository).as_deref(), Some(user), "{host}/{repository}");
        }
        for host in ["r.example:5000", "example", "other.r.example"] {
            assert_eq!(files.user(host, "team/app"), None, "{host}");
        }
        let found = files.ask("r.example", "x").unwrap();
        assert_eq!(found, Some(Credential::Basic { username: "broad".into(), password: format!("p:{CANARY}") }));
    }

    #[test]
    fn tokens_are_of_the_kind_that_their_key_says() {
        let text = r#"{"auths": {"i.example": {"auth": "eDp5", "identitytoken": "it"}, "b.example": {"registrytoken": "rt"},
                      "e.example": {}}}"#;
        let files = Files::new().with(".docker/config.json", text);
        assert_eq!(files.ask("i.example", "x").unwrap(), Some(Credential::IdentityToken("it".into())));
        assert_eq!(files.ask("b.example", "x").unwrap(), Some(Credential::Bearer("rt".into())));
        assert_eq!(files.ask("e.example", "x").unwrap(), None);
    }

    #[test]
    fn dockers_file_goes_before_podmans_and_variables_move_both() {
        let one = format!(r#"{{"auths": {{"r.example": {}}}}}"#, auth("docker"));
        let two = format!(r#"{{"auths": {{"r.example": {}, "s.example": {}}}}}"#, auth("podman"), auth("podman"));
        let files = Files::new().with("d/config.json", &one).with("p.json", &two);
        let root = files.directory.path();
        let environment =
            Environment::of([("DOCKER_CONFIG", root.join("d")), ("REGISTRY_AUTH_FILE", root.join("p.json"))]);
        for (host, user) in [("r.example", "docker"), ("s.example", "podman")] {
            let found = find(&environment, host, "x").unwrap();
            assert!(matches!(found, Some(Credential::Basic { username, .. }) if username == user), "{host}");
        }
    }

    #[test]
    fn programs_go_before_what_the_file_holds() {
        let text = format!(
            r#"{{"auths": {{"r.example": {0}, "s.example": {0}, "t.example": {0}}},
                "credHelpers": {{"r.example": "one"}}, "credsStore": "all"}}"#,
            auth("file")
        );
        let one = "#!/bin/sh\necho '{\"Username\":\"of-the-program\",\"Secret\":\"x\"}'\n";
        let all = "#!/bin/sh\nread server\nif [ \"$server\" = s.example ]; then echo '{\"Username\":\"of-all\",\"Secret\":\"x\"}'\n\
                   else echo credentials not found in native keychain; exit 1; fi\n";
        let files = Files::new()
            .with(".docker/config.json", &text)
            .with("bin/docker-credential-one", one)
            .with("bin/docker-credential-all", all);
        assert_eq!(files.user("r.example", "x").as_deref(), Some("of-the-program"));
        assert_eq!(files.user("s.example", "x").as_deref(), Some("of-all"));
        assert_eq!(files.user("t.example", "x").as_deref(), Some("file"));
    }

    #[test]
    fn a_program_that_fails_is_named_without_its_words() {
        let text = r#"{"credHelpers": {"r.example": "bad", "gone.example": "absent"}, "credsStore": "bad"}"#;
        let bad = format!("#!/bin/sh\necho {CANARY}\nexit 7\n");
        let files = Files::new().with(".docker/config.json", text).with("bin/docker-credential-bad", &bad);
        let error = files.ask("r.example", "x").unwrap_err().to_string();
        assert!(error.contains("docker-credential-bad") && error.contains("credHelpers"), "{error}");
        assert!(!error.contains(CANARY), "{error}");
        assert!(files.ask("gone.example", "x").unwrap_err().to_string().contains("is not installed"));
        // The program for all registries: public images need none.
        assert_eq!(files.ask("public.example", "x").unwrap(), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_without_its_content() {
        let torn = format!(r#"{{"auths": {{"r.example": {{"auth": "{CANARY}"#);
        let wrong = format!(r#"{{"auths": {{"r.example": "{CANARY}"}}}}"#);
        for text in [torn, wrong, format!("[\"{CANARY}\"]"), format!("\"{}\"", CANARY.repeat(100_000))] {
            let error = Files::new().with(".docker/config.json", &text).ask("r.example", "x").unwrap_err().to_string();
            assert!(error.contains("config.json") && !error.contains(CANARY), "{error}");
        }
        let open = Files::new().with(".docker/config.json", "{}");
        let path = open.directory.path().join(".docker/config.json");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(open.ask("r.example", "x").unwrap_err().to_string().contains("chmod go-w"));
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(Files::new().ask("r.example", "x").unwrap(), None);
        assert_eq!(Files::new().with(".docker/config.json", "").ask("r.example", "x").unwrap(), None);
        assert_eq!(find(&Environment::of([("X", "y")]), "r.example", "x").unwrap(), None);
    }
}
