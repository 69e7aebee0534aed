//! The configuration document: what it says, what is merged over it, and what is wrong with it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::warnings::Warnings;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::config::*;
use microsandbox_core::model::{
    DEFAULT_CPUS, DEFAULT_MEMORY_MIB, DEFAULT_METRICS_SAMPLE_INTERVAL_MS, DEFAULT_SHELL, Isolation, LogLevel,
    MetricsOptions, SandboxResources,
};

struct Document {
    dir: tempfile::TempDir,
}

impl Document {
    fn of(text: &str) -> Document {
        let document = Document { dir: tempfile::tempdir().unwrap() };
        std::fs::write(document.path(), text).unwrap();
        document
    }
    fn path(&self) -> PathBuf {
        self.dir.path().join("settings.json")
    }
    fn environment(&self) -> Environment {
        Environment::of([("MSB_CONFIG_PATH", self.path()), ("MSB_HOME", self.dir.path().join("home"))])
    }
    fn load(&self) -> Result<LocalConfig, MicrosandboxError> {
        LocalConfig::load_from(&self.environment())
    }
    fn refusal(&self) -> String {
        match self.load() {
            Err(MicrosandboxError::InvalidConfig(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

/// Every field differs from its default.
fn persisted() -> LocalConfig {
    let text = r#"{
        "home": "/srv/home", "log_level": "debug", "isolation": "container",
        "database": {"max_connections": 9, "connect_timeout_secs": 11, "busy_timeout_secs": 12},
        "paths": {"volumes": "/srv/volumes", "sandboxes": "/srv/sandboxes"},
        "sandbox_defaults": {"cpus": 3, "memory_mib": 777, "shell": "/bin/zsh", "workdir": "/w",
                             "metrics_sample_interval_ms": 250, "disable_metrics_sample": true},
        "registries": {"ca_certs": "/etc/ca.pem", "hosts": {"r.example": {"insecure": true}}}
    }"#;
    Document::of(text).load().unwrap()
}

// case: 24
#[test]
fn a_missing_file_is_all_defaults_for_both_views() {
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment::of([("MSB_HOME", dir.path())]);
    let config = LocalConfig::load_from(&environment).unwrap();
    assert_eq!(config, LocalConfig::default_for_home(dir.path()));
    assert_eq!(SdkConfig::load_from(&environment).unwrap(), SdkConfig::default());
    assert_eq!(Document::of("{}").load().unwrap().database, DatabaseConfig::default());
}

// case: 42
#[test]
fn the_defaults_are_those_of_a_stored_specification() {
    let defaults = SandboxDefaults::default();
    let stored = SandboxResources::default();
    assert_eq!((defaults.cpus, defaults.memory_mib), (stored.cpus, stored.memory_mib));
    assert_eq!((defaults.cpus, defaults.memory_mib), (DEFAULT_CPUS, DEFAULT_MEMORY_MIB));
    assert_eq!(defaults.shell, DEFAULT_SHELL);
    assert_eq!(defaults.metrics_sample_interval_ms, MetricsOptions::default().sample_interval_ms);
    assert_eq!(defaults.metrics_sample_interval_ms, Some(DEFAULT_METRICS_SAMPLE_INTERVAL_MS));
    let database = DatabaseConfig::default();
    assert_eq!((database.max_connections, database.connect_timeout_secs, database.busy_timeout_secs), (5, 30, 5));
    assert_eq!(SshConfig::default().inactivity_timeout_secs, 600);
}

// case: 34
#[test]
fn one_override_changes_that_field_only() {
    let cases: Vec<(LocalConfigOverrides, LocalConfig)> = vec![
        (LocalConfigOverrides::default(), persisted()),
        (
            LocalConfigOverrides { default_cpus: Some(8), ..Default::default() },
            LocalConfig {
                sandbox_defaults: SandboxDefaults { cpus: 8, ..persisted().sandbox_defaults },
                ..persisted()
            },
        ),
        (
            LocalConfigOverrides { busy_timeout_secs: Some(1), ..Default::default() },
            LocalConfig { database: DatabaseConfig { busy_timeout_secs: 1, ..persisted().database }, ..persisted() },
        ),
        (
            LocalConfigOverrides { log_level: Some(LogLevel::Trace), ..Default::default() },
            LocalConfig { log_level: Some(LogLevel::Trace), ..persisted() },
        ),
        (
            LocalConfigOverrides { workdir: Some("/x".into()), ..Default::default() },
            LocalConfig {
                sandbox_defaults: SandboxDefaults { workdir: Some("/x".into()), ..persisted().sandbox_defaults },
                ..persisted()
            },
        ),
    ];
    for (overrides, expected) in cases {
        assert_eq!(persisted().merge(overrides.clone()), expected, "{overrides:?}");
    }
}

// case: 35
#[test]
fn an_interval_of_zero_overrides_with_off() {
    let over = |interval| LocalConfigOverrides { metrics_sample_interval_ms: Some(interval), ..Default::default() };
    assert_eq!(persisted().merge(over(0)).sandbox_defaults.metrics_sample_interval_ms, None);
    assert_eq!(persisted().merge(over(5)).sandbox_defaults.metrics_sample_interval_ms, Some(5));
}

#[test]
fn zero_and_null_are_off_in_the_file_and_absent_is_the_default() {
    let interval = |text: &str| Document::of(text).load().unwrap().sandbox_defaults.metrics_sample_interval_ms;
    assert_eq!(interval(r#"{"sandbox_defaults": {"metrics_sample_interval_ms": 0}}"#), None);
    assert_eq!(interval(r#"{"sandbox_defaults": {"metrics_sample_interval_ms": null}}"#), None);
    assert_eq!(interval(r#"{"sandbox_defaults": {}}"#), Some(1000));
    assert_eq!(interval(r#"{"sandbox_defaults": null}"#), Some(1000));
}

// case: 36
#[test]
fn ca_certs_can_be_overridden_with_none() {
    let over = |ca_certs| LocalConfigOverrides { ca_certs, ..Default::default() };
    assert_eq!(persisted().merge(over(Some(None))).registries.ca_certs, None);
    assert_eq!(persisted().merge(over(None)).registries.ca_certs, Some("/etc/ca.pem".into()));
}

// case: 37
#[test]
fn registry_hosts_replace_the_whole_map() {
    let hosts: BTreeMap<String, RegistryEntry> = [("other.example".to_string(), RegistryEntry::default())].into();
    let merged = persisted().merge(LocalConfigOverrides { registry_hosts: Some(hosts.clone()), ..Default::default() });
    assert_eq!(merged.registries.hosts, hosts);
}

// case: 38, 39
#[test]
fn a_home_override_leaves_stated_paths_alone() {
    let config = persisted().merge(LocalConfigOverrides { home: Some("/new".into()), ..Default::default() });
    assert_eq!(config.volumes_dir(), Path::new("/srv/volumes"));
    assert_eq!(config.sandboxes_dir(), Path::new("/srv/sandboxes"));
    assert_eq!(config.cache_dir(), Path::new("/new/cache"));
    assert_eq!(config.snapshots_dir(), Path::new("/new/snapshots"));
    assert_eq!(config.logs_dir(), Path::new("/new/logs"));
    assert_eq!(config.secrets_dir(), Path::new("/new/secrets"));
    assert_eq!(config.database_path(), Path::new("/new/db/msb.db"));
    assert_eq!(config.volume_path("v"), Path::new("/srv/volumes/v"));
}

// case: 16
#[test]
fn the_path_variable_redirects_both_views() {
    let text = r#"{"home": "/elsewhere", "active_profile": "p", "profiles": {"p": {"backend": "local"}}}"#;
    let document = Document::of(text);
    assert_eq!(document.load().unwrap().home, Path::new("/elsewhere"));
    let profiles = SdkConfig::load_from(&document.environment()).unwrap();
    assert_eq!(profiles.active_profile.as_deref(), Some("p"));
    assert_eq!(profiles.profiles["p"].backend, ProfileBackend::Local);
}

#[test]
fn empty_variables_count_as_unset() {
    let environment = Environment::of([("MSB_HOME", ""), ("MSB_CONFIG_PATH", ""), ("HOME", "/home/someone")]);
    assert_eq!(config_path(&environment).unwrap(), Path::new("/home/someone/.microsandbox/config.json"));
    let environment = Environment::of([("MSB_HOME", "/state"), ("HOME", "/home/someone")]);
    assert_eq!(config_path(&environment).unwrap(), Path::new("/state/config.json"));
    let nothing = Environment::of(Vec::<(String, String)>::new());
    assert!(matches!(LocalConfig::load_from(&nothing), Err(MicrosandboxError::InvalidConfig(_))));
}

#[test]
fn the_isolation_variable_beats_the_file() {
    let document = Document::of(r#"{"isolation": "container"}"#);
    assert_eq!(document.load().unwrap().isolation, Some(Isolation::Container));
    let with = |value: &str| {
        let pairs = [
            ("MSB_CONFIG_PATH", document.path().into_os_string()),
            ("MSB_HOME", "/h".into()),
            ("MSB_ISOLATION", value.into()),
        ];
        LocalConfig::load_from(&Environment::of(pairs))
    };
    assert_eq!(with("MicroVM").unwrap().isolation, Some(Isolation::Microvm));
    assert!(matches!(with("strong"), Err(MicrosandboxError::InvalidConfig(_))));
}

#[test]
fn every_key_of_the_specification_is_read() {
    let config = Document::of(
        r#"{
        "deployment_profile": "multi_tenant",
        "database": {"url": "sqlite:elsewhere.db"},
        "paths": {"msb": "/m", "libkrunfw": "/k", "cache": "/c", "sandboxes": null, "snapshots": "/s", "logs": "/l", "secrets": "/x"},
        "sandbox_defaults": {"cpu_placement": "spread", "placement_profile": "near", "thp": "never",
                             "oci": {"root_disk": {"kind": "flat", "size_mib": 9, "clone": "reflink"}}},
        "runtime": {"block_writeback": {"mode": "fixed", "per_disk_mib": 4},
                    "placement_profiles": {"near": {"numa": {"mode": "strict_single"}, "memory": {"mode": "follow_cpu"}}}},
        "registries": {"hosts": {"r": {"auth": {"username": "u", "password_env": "P"}}},
                       "mirrors": {"r": ["https://m.example/hub", "http://127.0.0.1:5000"]}},
        "ssh": {"inactivity_timeout_secs": 0}, "metrics": {"capacity": 7}, "a_later_key": {"x": [1]}
    }"#,
    )
    .load()
    .unwrap();
    assert_eq!(config.deployment_profile, Some(DeploymentProfile::MultiTenant));
    assert_eq!(config.paths.libkrunfw.as_deref(), Some(Path::new("/k")));
    assert_eq!(
        (config.sandbox_defaults.cpu_placement, config.sandbox_defaults.thp),
        (CpuPlacement::Spread, Thp::Never)
    );
    let disk = RootDisk::Flat { size_mib: Some(9), fstype: None, clone: CloneMode::Reflink };
    assert_eq!(config.sandbox_defaults.oci.root_disk, Some(disk));
    assert_eq!(config.runtime.block_writeback, BlockWriteback::Fixed { per_disk_mib: 4, pool_mib: None });
    assert_eq!(config.runtime.placement_profiles["near"].numa.mode, NumaMode::StrictSingle);
    assert_eq!((config.ssh.inactivity_timeout_secs, config.metrics.capacity), (0, 7));
    assert_eq!(config.registries.mirrors["r"], ["https://m.example/hub", "http://127.0.0.1:5000"]);
    let auth = config.registries.hosts["r"].auth.as_ref().unwrap();
    assert_eq!((auth.username.as_str(), auth.password_env.as_deref()), ("u", Some("P")));
}

#[test]
fn a_malformed_file_is_named_with_position_and_remedy() {
    for (text, position) in [
        ("{\n  \"home\": \"/x\",\n}", "line 3, column 1"),
        ("{\"database\": {\"max_connections\": \"many\"}}", "line 1, column"),
        ("", "line 1, column 0"),
        ("[1, 2]", "line 1, column"),
        (" []", "line 1, column"),
        ("{\"log_level\": \"loud\"}", "line 1, column"),
    ] {
        let document = Document::of(text);
        let refusal = document.refusal();
        for part in [document.path().to_str().unwrap(), position, "correct it"] {
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }
}

#[test]
fn what_parses_and_must_not_be_is_named_by_its_key() {
    for (text, key) in [
        (r#"{"sandbox_defaults": {"cpus": 0}}"#, "sandbox_defaults.cpus"),
        (r#"{"sandbox_defaults": {"placement_profile": "x"}}"#, "placement_profile"),
        (r#"{"sandbox_defaults": {"oci": {"root_disk": {"kind": "tmpfs"}, "upper_size_mib": 5}}}"#, "upper_size_mib"),
        (r#"{"registries": {"hosts": {"r": {"auth": {"username": "u"}}}}}"#, "registries.hosts.r.auth"),
        (r#"{"registries": {"hosts": {"r": {"token_host": "https://x/"}}}}"#, "registries.hosts.r.token_host"),
        (r#"{"registries": {"hosts": {"r": ["insecure"]}}}"#, "registries"),
        (r#"{"registries": {"mirrors": {"r": ["https://ok.example", "mirror.example"]}}}"#, "registries.mirrors.r[1]"),
        (r#"{"registries": {"mirrors": {"r": ["https://user:hunter2@m.example"]}}}"#, "registries.mirrors.r[0]"),
        (r#"{"registries": {"policy": [{"match": "r/*", "keys": []}]}}"#, "registries.policy[0]"),
        (r#"{"registries": {"policy": [{"match": " ", "keys": ["/k.pub"]}]}}"#, "registries.policy[0]"),
        (
            r#"{"registries": {"hosts": {"r": {"auth": {"username": "u", "store": "keyring", "secret_name": "s"}}}}}"#,
            "registries.hosts.r.auth",
        ),
    ] {
        let refusal = Document::of(text).refusal();
        assert!(refusal.contains(key), "{refusal}");
    }
    // A disk image belongs to one sandbox and is no default.
    Document::of(r#"{"sandbox_defaults": {"oci": {"root_disk": {"kind": "disk-image", "path": "/d"}}}}"#).refusal();
}

#[test]
fn a_key_in_the_wrong_place_is_not_repeated_in_the_error() {
    for text in [
        r#"{"profiles": {"p": "inline:hunter2, expected x"}}"#,
        r#"{"profiles": {"p": {"backend": "hunter2"}}}"#,
        r#"{"profiles": "hunter2"}"#,
        r#"{"active_profile": ["hunter2"]}"#,
    ] {
        let error = SdkConfig::load_from(&Document::of(text).environment()).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

// case: 21
#[test]
fn using_a_profile_keeps_every_other_key() {
    let text =
        r#"{"later": {"deep": [1, 2.5, null]}, "profiles": {"p": {"backend": "local", "extra": true}}, "home": "/h"}"#;
    let document = Document::of(text);
    std::fs::set_permissions(document.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
    set_active_profile(&document.path(), "p").unwrap();
    let mut expected: serde_json::Value = serde_json::from_str(text).unwrap();
    expected["active_profile"] = "p".into();
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(document.path()).unwrap()).unwrap();
    assert_eq!(written, expected);
    assert_eq!(document.path().metadata().unwrap().permissions().mode() & 0o777, 0o600, "there may be keys in it");
    let before = std::fs::read(document.path()).unwrap();
    assert!(matches!(set_active_profile(&document.path(), "q"), Err(MicrosandboxError::InvalidConfig(_))));
    assert_eq!(std::fs::read(document.path()).unwrap(), before, "an unknown name leaves the file alone");
}

fn key(reference: &str, pairs: &[(&str, &str)]) -> Result<String, MicrosandboxError> {
    ApiKeyRef::new(reference).resolve("p", &Environment::of(pairs.iter().copied()))
}

#[test]
fn leaving_a_profile_keeps_every_other_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    clear_active_profile(&path).unwrap();
    assert!(!path.exists(), "nothing is written where nothing is to be changed");
    let document = serde_json::json!({"active_profile": "a", "profiles": {"a": {"backend": "local"}}, "x": [1]});
    std::fs::write(&path, document.to_string()).unwrap();
    clear_active_profile(&path).unwrap();
    let left: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(left, serde_json::json!({"profiles": {"a": {"backend": "local"}}, "x": [1]}));
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777, 0o600);
}

// case: 17
#[test]
fn an_env_reference_reads_the_variable() {
    assert_eq!(key("env: KEY ", &[("KEY", " k1 ")]).unwrap(), "k1");
    for (reference, pairs) in [("env:KEY", vec![]), ("env:KEY", vec![("KEY", "  ")]), ("env: ", vec![("", "k")])] {
        assert!(matches!(key(reference, &pairs), Err(MicrosandboxError::InvalidConfig(_))), "{reference}");
    }
}

// case: 18, 20
#[test]
fn an_inline_reference_warns_and_is_never_shown() {
    let warnings = Warnings::of("microsandbox_core");
    let found = tracing::subscriber::with_default(warnings.clone(), || key("inline: hunter2 ", &[]).unwrap());
    assert_eq!(found, "hunter2");
    assert_eq!(warnings.count(), 1);
    for reference in ["inline:hunter2", "hunter2", "vault:hunter2"] {
        let shown = format!("{:?} {}", ApiKeyRef::new(reference), ApiKeyRef::new(reference).redacted());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(ApiKeyRef::new("env:NAME").redacted(), "env:NAME");
    assert!(matches!(key("inline: ", &[]), Err(MicrosandboxError::InvalidConfig(_))));
}

// case: 19
#[test]
fn keyring_and_unknown_references_are_clear_errors() {
    for (reference, word) in [("keyring:s:n", "keyring:s:n "), ("keyring:s", "<service>"), ("secret-key", "scheme")] {
        let text = key(reference, &[]).unwrap_err().to_string();
        assert!(text.contains(word) && !text.contains("secret-key"), "{text}");
    }
}

#[test]
fn boot_deadlines_come_from_a_key_and_a_variable() {
    let seconds = microsandbox_core::seconds::duration;
    let defaults = Document::of("{}").load().unwrap().boot;
    assert_eq!((defaults.ready_timeout(), defaults.canary_deadline()), (None, seconds(5.0)));
    let document = Document::of(r#"{"boot": {"ready_timeout_secs": 90, "canary_deadline_secs": 12.5}}"#);
    let boot = document.load().unwrap().boot;
    assert_eq!((boot.ready_timeout(), boot.canary_deadline()), (Some(seconds(90.0)), seconds(12.5)));
    let with = |value: &str| {
        let pairs =
            [("MSB_CONFIG_PATH", document.path()), ("MSB_HOME", "/home".into()), ("MSB_CANARY_DEADLINE", value.into())];
        LocalConfig::load_from(&Environment::of(pairs))
    };
    assert_eq!(with("0.5").unwrap().boot.canary_deadline(), seconds(0.5));
    assert_eq!(with(" ").unwrap().boot.canary_deadline(), seconds(12.5), "blank is unset");
    for wrong in ["0", "-1", "soon", "NaN", "inf", "1e9"] {
        let error = with(wrong).unwrap_err().to_string();
        assert!(error.contains("MSB_CANARY_DEADLINE"), "{wrong}: {error}");
    }
    for key in ["ready_timeout_secs", "canary_deadline_secs"] {
        let text = Document::of(&format!("{{\"boot\": {{\"{key}\": 0}}}}")).refusal();
        assert!(text.contains(&format!("boot.{key}")), "{text}");
    }
}
