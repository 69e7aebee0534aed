//! Booting: what a sandbox is made of, seen from outside and from inside.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::support::*;
use microsandbox_contract::*;

#[test]
fn every_step_is_timed_and_every_mechanism_named() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("steps");
    let sandbox = scratch.sandbox("s");
    let runtime = Runtime::launch(&spec(&sandbox, ""));
    let ready = runtime.ready();
    for step in Step::ALL.iter().filter(|step| !step.is_of_machine()) {
        assert!(ready.timings.iter().any(|t| t.step == *step), "{step:?} has no time");
    }
    for name in [
        "user_namespace",
        "id_range",
        "pid_namespace",
        "mount_namespace",
        "ipc_namespace",
        "uts_namespace",
        "net_namespace",
        "cgroup_namespace",
        "capabilities",
        "no_new_privs",
        "seccomp",
        "landlock",
        "memory_limit",
        "cpu_limit",
        "pids_limit",
        "tree_kill",
    ] {
        let found = state_of(&ready.identity.isolation, MechanismName::parse(name));
        assert!(found.state == MechanismState::On || found.reason.is_some(), "{found:?}");
    }
    let published: Identity = serde_json::from_str(&read(sandbox.join("runtime/identity.json"))).unwrap();
    assert_eq!(published, ready.identity);
    assert!(is_alive(&published.runtime) && is_alive(&published.init));
    let socket = std::fs::metadata(sandbox.join("runtime/agent.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let groups = published.cgroups.clone();
    assert_eq!(runtime.end(), 0);
    assert_eq!(exit_record(&sandbox).reason, ExitReason::ShutdownRequested);
    assert!(groups.iter().all(|path| !path.exists()), "control groups are left");
    assert!(!sandbox.join("runtime/agent.sock").exists());
}

/// E15: what the kernel says of the init equals what the report claims.
// hazard: E15
#[test]
fn posture_of_the_init() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("posture");
    let sandbox = scratch.sandbox("s");
    let runtime = Runtime::launch(&spec(&sandbox, ""));
    let ready = runtime.ready();
    let proc = |file: &str| read(format!("/proc/{}/{file}", ready.identity.init.pid));
    let status = proc("status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(name), "00000000000004fb", "{name}");
    }
    for name in ["CapInh", "CapAmb"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()));
    assert_eq!(field("NSpid").split_whitespace().last(), Some("1"));
    assert_eq!(field("Uid").split_whitespace().next(), Some(BASE.to_string().as_str()));
    for map in ["uid_map", "gid_map"] {
        let words: Vec<u32> = proc(map).split_whitespace().map(|w| w.parse().unwrap()).collect();
        assert_eq!(words, [0, BASE, 65_536]);
    }
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    for kind in ["user", "pid", "mnt", "ipc", "uts", "net", "cgroup"] {
        let theirs = std::fs::read_link(format!("/proc/{}/ns/{kind}", ready.identity.init.pid)).unwrap();
        assert_ne!(own(kind), theirs, "{kind} namespace is shared");
    }
    for line in proc("mountinfo").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (target, options) = (fields[4], fields[5]);
        assert!(options.split(',').any(|o| o == "nosuid"), "{line}");
        let device = target == "/dev" || target.starts_with("/dev/") || target.starts_with("/proc/");
        assert!(device || options.split(',').any(|o| o == "nodev"), "{line}");
    }
    let open: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", ready.identity.init.pid))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(open.len(), 5, "{open:?}");
    assert!(proc("limits").lines().any(|line| line.starts_with("Max core file size") && line.contains(" 0 ")));
    assert_eq!(proc("environ"), "");
    for group in &ready.identity.cgroups {
        assert!(read(group.join("cgroup.procs")).lines().any(|pid| pid == ready.identity.init.pid.to_string()));
    }
    assert_eq!(runtime.end(), 0);
}

#[test]
fn inside_looks_like_a_machine_of_its_own() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("inside");
    let sandbox = scratch.sandbox("s");
    let script = "id -u; hostname; cat /etc/hostname /etc/hosts; echo x > /made; cat /proc/self/cgroup; ls /dev; \
                  ls -A /proc/acpi /sys/firmware; cat /proc/interrupts /proc/keys /proc/timer_list | wc -c; \
                  echo 1 > /proc/sys/kernel/hostname; touch /usr/x; mount -t tmpfs x /tmp; cat /proc/1/environ | wc -c";
    let (out, err) = run_inside(&spec(&sandbox, &format!("run:{script}")));
    assert!(out.starts_with("0\nboxy\nboxy\n127.0.0.1\tlocalhost boxy\n"), "{out}");
    assert!(
        out.lines().filter(|l| l.contains("::") || l.contains(":/")).all(|l| l.ends_with(":/") || l.contains("ip6")),
        "{out}"
    );
    for device in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin"] {
        assert!(out.lines().any(|line| line == device), "{device} is missing: {out}");
    }
    assert!(err.matches("Read-only file system").count() >= 2, "{err}");
    let made = std::fs::metadata(sandbox.join("upper/made")).unwrap();
    assert_eq!(made.uid(), BASE);
}

/// A6, I6: mount points that the image ships as symlinks or files.
// hazard: I6
#[test]
fn mounts_stay_inside_whatever_the_image_ships() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("links");
    let sandbox = scratch.sandbox("s");
    let outside = scratch.sandbox("outside");
    std::fs::create_dir_all(scratch.0.join("lower/etc")).unwrap();
    let lower = scratch.0.join("lower");
    symlink("/etc", lower.join("proc")).unwrap();
    owned_by(&lower.join("etc"), BASE);
    std::fs::write(lower.join("dev"), "a file").unwrap();
    symlink("../../../../../../../../sys", lower.join("sys")).unwrap();
    symlink(&outside, lower.join("data")).unwrap();
    symlink("/../../../../../../..", lower.join("up")).unwrap();
    symlink("/etc/real-hosts", lower.join("etc/hosts")).unwrap();
    let mut spec = spec(
        &sandbox,
        "run:stat -fc %T /proc /sys; test -c /dev/null && echo device; cat /up/data/probe; ls -l /etc/hosts",
    );
    std::fs::write(scratch.0.join("probe"), "seen").unwrap();
    let bind = |target: &str| BindSpec {
        source: scratch.0.join("probe"),
        target: target.into(),
        readonly: true,
        view: false,
        noexec: true,
        host_ids: false,
        home_ids: false,
        optional: false,
        shown_as: None,
        set_ids: false,
    };
    spec.root.binds.push(bind("/up/data/probe"));
    // The path that the symlink names is made inside the root.
    spec.root.tmpfs.push(TmpfsSpec {
        target: outside.to_str().unwrap().into(),
        size_bytes: 1 << 20,
        mode: 0o755,
        readonly: false,
        noexec: false,
    });
    let (out, err) = run_inside(&spec);
    assert!(out.starts_with("proc\nsysfs\ndevice\nseen-rw-r--r--"), "{out} {err}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
    assert!(!sandbox.join("upper/etc/real-hosts").exists());
}

#[test]
fn two_hundred_layers_make_one_root() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("layers");
    let sandbox = scratch.sandbox("s");
    let mut spec = spec(&sandbox, "run:ls / | grep -c ^file; cat /top");
    spec.root.lowers = (0..200)
        .map(|n| {
            let path = scratch.sandbox(&format!("a-layer-with-a-rather-long-name-{n}"));
            std::fs::write(path.join(format!("file{n}")), "").unwrap();
            std::fs::write(path.join("top"), n.to_string()).unwrap();
            Lower { path, host_ids: false }
        })
        .collect();
    let (out, err) = run_inside(&spec);
    assert_eq!(out, "200\n199", "{err}");
}

#[test]
fn a_mapped_directory_is_roots_inside_unchanged_outside() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("hostids");
    let sandbox = scratch.sandbox("s");
    let tree = scratch.sandbox("tree");
    std::fs::write(tree.join("mine"), "content").unwrap();
    std::fs::set_permissions(tree.join("mine"), PermissionsExt::from_mode(0o600)).unwrap();
    let mut spec = spec(&sandbox, "run:stat -c %u /mine; cat /mine; echo changed > /mine; cat /mine");
    spec.root.lowers.push(Lower { path: tree.clone(), host_ids: true });
    let (out, err) = run_inside(&spec);
    assert_eq!(out, "0\ncontentchanged\n", "{err}");
    assert_eq!(read(tree.join("mine")), "content");
}

#[test]
fn host_root_is_never_mapped_in() {
    let scratch = Scratch::new("hostroot");
    let sandbox = scratch.sandbox("s");
    let mut spec = spec(&sandbox, "");
    spec.ids = IdMap::Range { base: 0, count: 65_536 };
    let mut runtime = Runtime::launch(&spec);
    let error = runtime.boot_error();
    assert!(error.message.contains("host uid 0"), "{error:?}");
    assert_eq!(runtime.wait(), 1);
    let written: BootError = serde_json::from_str(&read(sandbox.join("logs/boot-error.json"))).unwrap();
    assert_eq!(written, error);
}

#[test]
fn a_missing_bind_source_is_named() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("nosource");
    let sandbox = scratch.sandbox("s");
    let mut spec = spec(&sandbox, "");
    let missing = |optional| BindSpec {
        source: "/nonexistent/thing".into(),
        target: "/thing".into(),
        readonly: true,
        view: false,
        noexec: false,
        host_ids: false,
        home_ids: false,
        optional,
        shown_as: None,
        set_ids: false,
    };
    spec.root.binds.push(missing(true));
    let runtime = Runtime::launch(&spec);
    runtime.ready();
    runtime.end();
    spec.root.binds.push(missing(false));
    let mut runtime = Runtime::launch(&spec);
    let error = runtime.boot_error();
    assert!(error.message.contains("/nonexistent/thing") && error.errno == Some(libc::ENOENT), "{error:?}");
    assert_eq!(runtime.wait(), 1);
    assert!(cgroups_of(&sandbox).is_empty());
}

fn shown(source: &std::path::Path, target: &str) -> BindSpec {
    BindSpec {
        source: source.into(),
        target: target.into(),
        readonly: false,
        view: false,
        noexec: false,
        host_ids: true,
        home_ids: false,
        optional: false,
        shown_as: None,
        set_ids: false,
    }
}

// hazard: A6
// L2, as CVE-2019-16884: a mount that takes the place of the sandbox's own procfs or devices.
#[test]
fn no_mount_lands_on_what_the_sandbox_is_made_of() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("ours");
    let sandbox = scratch.sandbox("s");
    let source = scratch.sandbox("source");
    std::fs::create_dir(scratch.0.join("lower/.msb")).unwrap();
    let link = scratch.0.join("lower/data");
    for place in ["/proc", "/proc/1/fd", "../dev", "/dev/shm", "/sys/kernel", "/.msb"] {
        let _ = std::fs::remove_file(&link);
        symlink(place, &link).unwrap();
        let mut bound = spec(&sandbox, "");
        bound.root.binds.push(shown(&source, "/data"));
        let mut filled = spec(&sandbox, "");
        filled.root.tmpfs[0].target = "/data".into();
        for spec in [bound, filled] {
            let mut runtime = Runtime::launch(&spec);
            let error = runtime.boot_error();
            assert!(error.message.contains("which belongs to the sandbox itself"), "{place}: {error:?}");
            assert_eq!(runtime.wait(), 1);
        }
    }
}

// M2: a guest that writes beside the source exchanges it between its resolution and the mount.
#[test]
fn a_pinned_source_is_mounted_or_nothing_is() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("pinned");
    let sandbox = scratch.sandbox("s");
    let (source, secret) = (scratch.sandbox("source"), scratch.sandbox("secret"));
    std::fs::write(source.join("name"), "source").unwrap();
    std::fs::write(secret.join("name"), "secret").unwrap();
    let mut spec = spec(&sandbox, "run:cat /data/name");
    let found = std::fs::metadata(&source).unwrap();
    spec.root.binds.push(shown(&source, "/data"));
    spec.root.pinned.push(Pinned { path: source.clone(), device: found.dev(), inode: found.ino() });
    let (out, err) = run_inside(&spec);
    assert_eq!(out, "source", "{err}");
    let exchanges: [&dyn Fn(); 2] = [&|| symlink(&secret, &source).unwrap(), &|| {
        std::fs::remove_file(&source).unwrap();
        std::fs::rename(&secret, &source).unwrap();
    }];
    std::fs::rename(&source, scratch.0.join("aside")).unwrap();
    for exchange in exchanges {
        exchange();
        let mut runtime = Runtime::launch(&spec);
        let error = runtime.boot_error();
        assert!(error.errno == Some(libc::ESTALE) && error.message.contains("open mount source"), "{error:?}");
        assert_eq!(runtime.wait(), 1);
    }
}

fn owned_by(path: &std::path::Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
}

#[test]
fn an_ordinary_user_gets_a_sandbox_with_one_id() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("single");
    let sandbox = scratch.sandbox("s");
    let uid = 54_321;
    owned_by(&sandbox, uid);
    let mut spec = spec(&sandbox, "run:id -u; echo x > /made; chown 5 /made; cat /proc/self/uid_map");
    spec.ids = IdMap::Single { uid, gid: uid };
    let mut runtime = Runtime::launch_as(&spec, User { uid, sub_ids: None });
    let ready = runtime.ready();
    assert_eq!(state_of(&ready.identity.isolation, MechanismName::IdRange).state, MechanismState::Degraded);
    let memory = state_of(&ready.identity.isolation, MechanismName::MemoryLimit);
    assert!(
        memory.state == MechanismState::Degraded && memory.reason.as_ref().unwrap().contains("systemd"),
        "{memory:?}"
    );
    assert_eq!(state_of(&ready.identity.isolation, MechanismName::PidsLimit).state, MechanismState::Degraded);
    assert_eq!(runtime.wait(), 0);
    assert!(logged(&sandbox, 7, "stdout").starts_with("0\n"));
    assert!(logged(&sandbox, 7, "stderr").contains("Invalid argument"));
    assert_eq!(std::fs::metadata(sandbox.join("upper/made")).unwrap().uid(), uid);
}

#[test]
fn an_ordinary_user_with_ranges_gets_many_ids() {
    if !is_root() {
        return;
    }
    if microsandbox_jail::ids::id_tool("newuidmap").is_none() {
        println!("SKIPPED: newuidmap is not installed");
        return;
    }
    let scratch = Scratch::new("ranges");
    let sandbox = scratch.sandbox("s");
    let uid = 54_322;
    owned_by(&sandbox, uid);
    let mut spec = spec(&sandbox, "run:id -u; echo x > /made; chown 5:6 /made; stat -c %u:%g /made");
    spec.ids = IdMap::Subordinate { uid, gid: uid, sub_uid: 2_000_000, sub_gid: 2_000_000, count: 65_536 };
    let user = User { uid, sub_ids: Some((2_000_000, 65_536)) };
    let mut runtime = Runtime::launch_as(&spec, user);
    let ready = runtime.ready();
    let range = state_of(&ready.identity.isolation, MechanismName::IdRange);
    assert!(range.reason.as_ref().is_some_and(|reason| reason.contains("host ids 2000000..2065536")), "{range:?}");
    assert_eq!(runtime.wait(), 0);
    assert_eq!(logged(&sandbox, 7, "stdout"), "0\n5:6\n", "{}", logged(&sandbox, 7, "stderr"));
    assert_eq!(std::fs::metadata(sandbox.join("upper/made")).unwrap().uid(), 2_000_004);
    // The user cannot remove that alone; the job can.
    let job = Job::RemoveTree(RemoveTreeSpec { version: LAUNCH_VERSION, ids: spec.ids, path: sandbox.join("upper") });
    owned_by(&sandbox, uid);
    let mut runtime = start_as(&job, None, Some(user));
    assert!(matches!(runtime.report(), Report::Done));
    assert_eq!(runtime.wait(), 0);
    assert!(!sandbox.join("upper").exists());
}

/// Ranges that no sandbox of the product is given.
const PLACES: HostIds = HostIds { first: 0x6f00_0000, count: 4 * 65_536 };

// hazard: E15
#[test]
fn each_run_has_ids_of_its_own_and_files_those_of_the_home() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("own-ids");
    let volume = scratch.0.join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::os::unix::fs::chown(&volume, Some(BASE), Some(BASE)).unwrap();
    let with = |name: &str, standin: &str| {
        let mut spec = spec(&scratch.sandbox(name), standin);
        spec.private_ids = vec![PLACES];
        let bind = BindSpec {
            source: volume.clone(),
            target: "/v".into(),
            readonly: false,
            noexec: false,
            view: false,
            host_ids: false,
            home_ids: true,
            optional: false,
            shown_as: None,
            set_ids: true,
        };
        spec.root.binds.push(bind);
        spec
    };
    let first_id = |ready: &LaunchReady| -> u32 {
        let map = read(format!("/proc/{}/uid_map", ready.identity.init.pid));
        map.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let one = Runtime::launch(&with("one", ""));
    let ready = one.ready();
    let range = state_of(&ready.identity.isolation, MechanismName::IdRange);
    if range.state != MechanismState::On {
        println!("SKIPPED: {range:?}");
        return;
    }
    let two = Runtime::launch(&with("two", ""));
    let (own, other) = (first_id(&ready), first_id(&two.ready()));
    assert!(own != other && own != BASE && (PLACES.first..PLACES.first + PLACES.count).contains(&own), "{own} {other}");
    let script = "echo x > /v/made; chown 5:6 /v/made; touch /own; chown 7:8 /own; stat -c %u:%g / /v /v/made /own";
    let (out, err) = run_inside(&with("three", &format!("run:{script}")));
    assert_eq!((out.as_str(), err.as_str()), ("0:0\n0:0\n5:6\n7:8\n", ""));
    for (path, uid, gid) in [(volume.join("made"), 5, 6), (scratch.0.join("three/upper/own"), 7, 8)] {
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (BASE + uid, BASE + gid), "{}", path.display());
    }
    // Another run, with another range, has them as the one before left them; the log has what both said.
    let (out, _) = run_inside(&with("three", "run:stat -c %u:%g /v/made /own"));
    assert!(out.ends_with("5:6\n7:8\n5:6\n7:8\n"), "{out}");
    assert_eq!((one.end(), two.end()), (0, 0));
}

#[test]
fn without_a_range_of_its_own_the_report_says_so() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("shared-ids");
    let runtime = Runtime::launch(&spec(&scratch.sandbox("s"), ""));
    let ready = runtime.ready();
    let range = state_of(&ready.identity.isolation, MechanismName::IdRange);
    assert!(range.state == MechanismState::Degraded, "{range:?}");
    assert!(
        range.reason.as_ref().is_some_and(|reason| reason.contains("shared with the other sandboxes")),
        "{range:?}"
    );
    // What it takes is not counted for host root in any case.
    let status = read(format!("/proc/{}/status", ready.identity.init.pid));
    assert!(status.lines().any(|line| line.starts_with("Uid:") && line.contains(&BASE.to_string())), "{status}");
    assert_eq!(runtime.end(), 0);
}
