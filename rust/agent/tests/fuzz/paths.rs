//! Paths of clients: the walk by hand and `openat2` agree, and neither leaves the root.
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use microsandbox_agent::files::root::Root;

struct Roots {
    prefix: String,
    kernel: Root,
    by_hand: Root,
}

fn roots() -> &'static Roots {
    static ROOTS: OnceLock<Roots> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let base = std::env::temp_dir().join(format!("msb-fuzz-{}", std::process::id()));
        let root = base.join("r");
        std::fs::create_dir_all(root.join("a/b")).expect("scratch directory");
        std::fs::write(root.join("a/f"), "x").expect("scratch file");
        for (target, link) in [("/", "l"), ("../../..", "a/u"), ("b", "a/s"), ("loop", "loop"), ("/a/u/a", "a/b/x")] {
            std::os::unix::fs::symlink(target, root.join(link)).expect("scratch link");
        }
        let path = root.to_str().expect("UTF-8 scratch path");
        Roots {
            prefix: path.to_owned(),
            kernel: Root::at(path).expect("root"),
            by_hand: Root::at(path).expect("root").without_openat2(),
        }
    })
}

fn resolve(root: &Root, path: &str) -> Result<String, i32> {
    use rustix::fs::{Mode, OFlags};
    let fd = root.open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| e.raw_os_error())?;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(std::fs::read_link(link).expect("own descriptor").to_string_lossy().into_owned())
}

// Bytes choose components, so that most inputs are paths that mean something.
pub fn check(bytes: &[u8]) {
    const PARTS: [&str; 12] = ["/", "a", "b", "f", "l", "u", "s", "x", "..", ".", "loop", "nope"];
    if bytes.len() > 64 {
        return;
    }
    let parts: Vec<&str> = bytes.iter().map(|b| PARTS[usize::from(*b) % PARTS.len()]).collect();
    let path = parts.join("/");
    let roots = roots();
    let (kernel, by_hand) = (resolve(&roots.kernel, &path), resolve(&roots.by_hand, &path));
    for real in [&kernel, &by_hand].into_iter().flatten() {
        assert!(*real == roots.prefix || real.starts_with(&format!("{}/", roots.prefix)), "{path} led to {real}");
    }
    assert_eq!(kernel.is_ok(), by_hand.is_ok(), "{path}: {kernel:?} against {by_hand:?}");
    if let (Ok(kernel), Ok(by_hand)) = (kernel, by_hand) {
        assert_eq!(kernel, by_hand, "{path}");
    }
}

/// Takes the scratch directory away.
#[allow(dead_code, reason = "libFuzzer runs until it is killed")]
pub fn clean() {
    if let Some(scratch) = std::path::Path::new(&roots().prefix).parent() {
        std::fs::remove_dir_all(scratch).expect("scratch directory");
    }
}
