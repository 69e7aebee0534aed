use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use microsandbox_contract::IdMap;

use super::*;

/// A made-up machine in a temporary directory.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Fake {
        let fake = Fake { dir: tempfile::tempdir().unwrap() };
        for dir in [
            "usr/bin",
            "usr/lib",
            "usr/local",
            "usr/sbin",
            "etc/ssl/certs",
            "etc/ssl/private",
            "root/.ssh",
            "home/joe/.ssh",
        ] {
            fs::create_dir_all(fake.root().join(dir)).unwrap();
        }
        for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib")] {
            fake.link(link, target);
        }
        for (file, content) in [
            ("usr/bin/python3", "elf"),
            (
                "etc/passwd",
                "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/usr/share:/bin/sh\njoe:x:1000:1000::/home/joe:/bin/sh\n",
            ),
            ("etc/group", "joe:x:1000:\n"),
            ("etc/shadow", "root:hash"),
            ("etc/shadow-", "root:hash"),
            ("etc/gshadow", "root:hash"),
            ("etc/machine-id", "0123"),
            ("etc/hostname", "secret-host"),
            ("etc/hosts", "10.0.0.1 internal"),
            ("etc/resolv.conf", "nameserver 10.0.0.1"),
            ("etc/sudoers", "joe ALL"),
            ("etc/environment", "TOKEN=1"),
            ("etc/pip.conf", "password"),
            ("etc/services", "http 80/tcp"),
            ("etc/profile", "export A=1"),
            ("etc/ssl/private/server.key", "key"),
            ("etc/ssl/certs/ca.pem", "CERTIFICATE"),
            ("etc/ssl/certs/leaked.pem", "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"),
            ("etc/ssl/certs/x.key", "key"),
            ("root/.ssh/id_rsa", "key"),
            ("home/joe/.ssh/id_rsa", "key"),
        ] {
            fake.file(file, content);
        }
        fake
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.root().join(path)).unwrap();
    }

    fn machine(&self) -> Machine {
        Machine::at(self.root(), &paths(&["/home/joe/.microsandbox"]), None)
    }

    fn plan(&self, prefixes: &[&str]) -> MicrosandboxResult<Plan> {
        let mut plan = Plan::of(&self.machine(), &ids(), &paths(prefixes))?;
        plan.add_etc(&self.machine());
        Ok(plan)
    }

    fn host_root(&self, cache: &Path, prefixes: &[&str]) -> HostRoot {
        prepare_from(&self.machine(), cache, &ids(), &paths(prefixes)).unwrap()
    }
}

fn paths(prefixes: &[&str]) -> Vec<PathBuf> {
    prefixes.iter().map(PathBuf::from).collect()
}

fn ids() -> IdMap {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if uid == 0 { IdMap::Range { base: 200_000, count: 65_536 } } else { IdMap::Single { uid, gid } }
}

fn targets(plan: &Plan) -> Vec<&str> {
    plan.binds.iter().map(|bind| bind.target.as_str()).collect()
}

fn has(plan: &Plan, path: &str) -> bool {
    plan.entries.contains_key(Path::new(path))
}

#[test]
fn merged_usr_is_one_bind_and_links() {
    let plan = Fake::new().plan(&[]).unwrap();
    assert_eq!(targets(&plan), ["/usr"]);
    assert!(plan.binds.iter().all(|bind| bind.readonly));
    for (path, target) in [("/bin", "usr/bin"), ("/lib", "usr/lib")] {
        assert_eq!(plan.entries[Path::new(path)], Entry::Link { target: target.into() });
    }
}

#[test]
fn split_usr_binds_each_directory() {
    let fake = Fake::new();
    fs::remove_file(fake.root().join("bin")).unwrap();
    fs::create_dir(fake.root().join("bin")).unwrap();
    let plan = fake.plan(&[]).unwrap();
    assert!(targets(&plan).contains(&"/bin"));
    assert_eq!(plan.entries[Path::new("/bin")], Entry::Dir { mode: 0o755 });
}

#[test]
fn a_system_directory_that_leads_out_is_bound_at_its_target() {
    let fake = Fake::new();
    fs::create_dir_all(fake.root().join("store/lib64")).unwrap();
    fake.link("lib64", "/store/lib64");
    let plan = fake.plan(&[]).unwrap();
    let bind = plan.binds.iter().find(|bind| bind.target == "/lib64").unwrap();
    assert_eq!(bind.source, fake.root().join("store/lib64"));
}

#[test]
fn secrets_and_names_of_the_machine_are_never_planned() {
    let fake = Fake::new();
    let plan = fake.plan(&[]).unwrap();
    for path in [
        "/etc/shadow",
        "/etc/shadow-",
        "/etc/gshadow",
        "/etc/machine-id",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/sudoers",
        "/etc/environment",
        "/etc/pip.conf",
        "/etc/ssl/private",
        "/etc/ssl/private/server.key",
        "/etc/ssl/certs/x.key",
        "/root/.ssh",
        "/home/joe",
    ] {
        assert!(!has(&plan, path), "{path}");
    }
    assert!(has(&plan, "/etc/services") && has(&plan, "/etc/ssl/certs/ca.pem"));
}

#[test]
fn only_what_everybody_may_read_is_copied() {
    let fake = Fake::new();
    for (path, mode) in [("etc/services", 0o640), ("etc/ssl/certs", 0o750)] {
        fs::set_permissions(fake.root().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let plan = fake.plan(&[]).unwrap();
    assert!(!has(&plan, "/etc/services") && !has(&plan, "/etc/ssl/certs/ca.pem"));
}

#[test]
fn links_that_lead_to_people_or_keys_are_dropped() {
    let fake = Fake::new();
    fs::create_dir_all(fake.root().join("etc/alternatives")).unwrap();
    for (name, target) in
        [("a", "/home/joe/bin/a"), ("b", "../ssl/private/server.key"), ("c", "../shadow"), ("editor", "/usr/bin/vi")]
    {
        fake.link(&format!("etc/alternatives/{name}"), target);
    }
    let plan = fake.plan(&[]).unwrap();
    for (name, there) in [("a", false), ("b", false), ("c", false), ("editor", true)] {
        assert_eq!(has(&plan, &format!("/etc/alternatives/{name}")), there, "{name}");
    }
}

#[test]
fn an_allowed_tree_behind_a_link_is_not_followed() {
    let fake = Fake::new();
    fake.link("etc/fonts", "/root/.ssh");
    fake.link("etc/xml", "../root/.ssh");
    let plan = fake.plan(&[]).unwrap();
    assert!(!has(&plan, "/etc/fonts") && !has(&plan, "/etc/xml"));
}

#[test]
fn the_skeleton_holds_made_up_accounts_and_no_private_key() {
    let fake = Fake::new();
    let cache = tempfile::tempdir().unwrap();
    let made = fake.host_root(cache.path(), &[]);
    let passwd = fs::read_to_string(made.skeleton.join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("root:x:0:0:") && !passwd.contains("joe") && !passwd.contains("www"));
    assert!(!fs::read_to_string(made.skeleton.join("etc/group")).unwrap().contains("joe"));
    assert!(made.skeleton.join("etc/ssl/certs/ca.pem").exists());
    assert!(!made.skeleton.join("etc/ssl/certs/leaked.pem").exists());
    assert_eq!(fs::metadata(made.skeleton.join("root")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(made.skeleton.join("var/tmp")).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn the_skeleton_is_reused_until_its_sources_change() {
    let fake = Fake::new();
    let cache = tempfile::tempdir().unwrap();
    let first = fake.host_root(cache.path(), &[]);
    assert_eq!(fake.host_root(cache.path(), &[]), first);
    fake.file("etc/services", "http 80/tcp\nhttps 443/tcp");
    let second = fake.host_root(cache.path(), &[]);
    assert_ne!(second.skeleton, first.skeleton);
    assert!(fs::read_to_string(second.skeleton.join("etc/services")).unwrap().contains("https"));
}

#[test]
fn every_change_in_etc_is_noticed() {
    let fake = Fake::new();
    fs::create_dir_all(fake.root().join("etc/fonts/conf.d")).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let mut last = fake.host_root(cache.path(), &[]).skeleton;
    let mode =
        |path: &str, mode| fs::set_permissions(fake.root().join(path), fs::Permissions::from_mode(mode)).unwrap();
    let changes: [(&str, &dyn Fn()); 8] = [
        ("content in place", &|| fs::write(fake.root().join("etc/profile"), "export B=2").unwrap()),
        ("no longer public", &|| mode("etc/services", 0o600)),
        ("public again", &|| mode("etc/services", 0o644)),
        ("a new file", &|| fake.file("etc/protocols", "tcp 6")),
        ("a new link in a tree", &|| fake.link("etc/fonts/conf.d/a", "/usr/share/a")),
        ("a new tree", &|| fake.file("etc/terminfo/x/xterm", "x")),
        ("a new nested file", &|| fake.file("etc/pki/tls/cert.pem", "C")),
        ("a closed directory", &|| mode("etc/ssl/certs", 0o700)),
    ];
    for (what, change) in changes {
        change();
        let now = fake.host_root(cache.path(), &[]).skeleton;
        assert_ne!(now, last, "{what}");
        assert_eq!(fake.host_root(cache.path(), &[]).skeleton, now, "{what}: settled");
        last = now;
    }
    assert!(!last.join("etc/ssl/certs/ca.pem").exists() && last.join("etc/pki/tls/cert.pem").exists());
}

#[test]
fn a_spoiled_index_is_made_anew() {
    let fake = Fake::new();
    let cache = tempfile::tempdir().unwrap();
    let made = fake.host_root(cache.path(), &[]);
    fs::write(cache.path().join("etc-index.json"), "{broken").unwrap();
    assert_eq!(fake.host_root(cache.path(), &[]), made);
}

#[test]
fn a_prefix_in_a_home_shows_only_that_directory() {
    let fake = Fake::new();
    fake.file("home/joe/.pyenv/versions/3.12/bin/python3", "elf");
    fake.file("root/py/bin/python3", "elf");
    let plan = fake.plan(&["/home/joe/.pyenv/versions/3.12", "/root/py"]).unwrap();
    assert_eq!(targets(&plan), ["/usr", "/root/py", "/home/joe/.pyenv/versions/3.12"]);
    assert!(has(&plan, "/home/joe/.pyenv/versions/3.12"), "a mount point is there");
    assert_eq!(plan.entries[Path::new("/root")], Entry::Dir { mode: 0o711 });
    let path = &plan.env[0].value;
    assert!(path.starts_with("/home/joe/.pyenv/versions/3.12/bin:/root/py/bin:/usr/local/sbin:"), "{path}");
}

#[test]
fn a_virtual_environment_brings_its_base_installation() {
    let fake = Fake::new();
    fake.file("home/joe/uv/cpython-3.12.1/bin/python3.12", "elf");
    fake.link("home/joe/uv/cpython-3.12.1/bin/python3", "python3.12");
    fake.link("home/joe/uv/cpython-3.12", "cpython-3.12.1");
    fs::create_dir_all(fake.root().join("home/joe/venv/bin")).unwrap();
    fake.link("home/joe/venv/bin/python3", "/home/joe/uv/cpython-3.12/bin/python3");
    let plan = fake.plan(&["/home/joe/venv"]).unwrap();
    let mut shown = targets(&plan);
    shown.sort();
    assert_eq!(shown, ["/home/joe/uv/cpython-3.12", "/home/joe/uv/cpython-3.12.1", "/home/joe/venv", "/usr"]);
}

#[test]
fn a_virtual_environment_of_the_system_needs_no_more() {
    let fake = Fake::new();
    fs::create_dir_all(fake.root().join("srv/venv/bin")).unwrap();
    fake.link("srv/venv/bin/python3", "/usr/bin/python3");
    assert_eq!(targets(&fake.plan(&["/srv/venv", "/usr", "/usr/local"]).unwrap()), ["/usr", "/srv/venv"]);
}

#[test]
fn dangerous_prefixes_are_refused() {
    let fake = Fake::new();
    for dir in ["etc/py", "proc/1", "opt", "home/joe/.microsandbox/venv", "home/joe/venv", "srv/x"] {
        fs::create_dir_all(fake.root().join(dir)).unwrap();
    }
    fake.link("srv/home", "/home/joe");
    fake.link("srv/etc", "/etc/py");
    for prefix in [
        "/",
        "/home",
        "/home/joe",
        "/home/joe/",
        "/root",
        "/etc",
        "/etc/py",
        "/proc",
        "/proc/1",
        "/opt",
        "/srv/home",
        "/srv/etc",
        "/home/joe/.microsandbox",
        "/home/joe/.microsandbox/venv",
        "/home/joe/venv/..",
        "relative",
        "",
        "/srv/missing",
        "/etc/passwd",
    ] {
        let error = fake.plan(&[prefix]).expect_err(prefix);
        assert!(matches!(error, MicrosandboxError::InvalidConfig(_)), "{prefix}: {error}");
    }
    assert!(fake.plan(&["/home/joe/venv"]).is_ok());
}

#[test]
fn an_interpreter_that_links_into_a_home_itself_is_refused() {
    let fake = Fake::new();
    fake.file("home/joe/bin/python3", "elf");
    fs::create_dir_all(fake.root().join("srv/venv/bin")).unwrap();
    fake.link("srv/venv/bin/python3", "/home/joe/bin/python3");
    assert!(matches!(fake.plan(&["/srv/venv"]), Err(MicrosandboxError::InvalidConfig(_))));
}

#[test]
fn homes_and_the_product_beneath_usr_are_covered() {
    let fake = Fake::new();
    fake.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1001:1001::/usr/people/ann:/bin/sh\n");
    fs::create_dir_all(fake.root().join("usr/people/ann/venv")).unwrap();
    fs::create_dir_all(fake.root().join("usr/local/msb")).unwrap();
    let machine = Machine::at(fake.root(), &paths(&["/usr/local/msb"]), None);
    let cache = tempfile::tempdir().unwrap();
    let made = prepare_from(&machine, cache.path(), &ids(), &[]).unwrap();
    for hidden in ["/usr/people/ann", "/usr/local/msb"] {
        let bind = made.binds.iter().find(|bind| bind.target == hidden).unwrap();
        assert_eq!(bind.source, made.skeleton.join(".msb/empty"));
        assert_eq!(fs::read_dir(&bind.source).unwrap().count(), 0);
    }
    assert_eq!(made.binds[0].target, "/usr", "outer ones come first");
    assert!(prepare_from(&machine, cache.path(), &ids(), &paths(&["/usr/people/ann/venv"])).is_err());
}

#[test]
fn a_symlink_loop_ends() {
    let fake = Fake::new();
    fake.link("srv", "/srv");
    assert!(fake.plan(&["/srv/x"]).is_err());
}

#[test]
fn this_machine_plans_nothing_forbidden() {
    let machine = Machine::this(&paths(&["/nonexistent/microsandbox"]));
    let mut plan = Plan::of(&machine, &ids(), &[]).unwrap();
    plan.add_etc(&machine);
    assert!(plan.binds.iter().any(|bind| bind.target == "/usr"));
    for path in plan.entries.keys() {
        let text = path.to_string_lossy();
        let names = ["shadow", "machine-id", "/private", "sudoers", "/ssh/", ".key"];
        assert!(!names.iter().any(|name| text.contains(name)), "{text}");
        if let Entry::Copy { .. } = plan.entries[path] {
            assert!(fs::metadata(path).unwrap().mode() & 0o004 != 0, "{text}");
        }
    }
    for bind in &plan.binds {
        assert!(bind.readonly && !bind.target.starts_with("/etc"), "{bind:?}");
    }
}
