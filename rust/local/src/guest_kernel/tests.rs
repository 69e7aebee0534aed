//! Libraries that tests compile, on ladders that tests build. None of them holds a kernel.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::install::{Pin, from_file, pinned};
use super::*;
use microsandbox_core::error::MicrosandboxError;

const PAGE: u64 = 4096;

/// What a library is made of.
struct Recipe {
    soname: &'static str,
    version: u32,
    /// Size of the image that it claims.
    claims: u64,
    source: &'static str,
}

const SOURCE: &str = "
__attribute__((aligned(4096))) char KERNEL_BUNDLE[8193] = {1};
int krunfw_get_version(void) { return VERSION; }
char *krunfw_get_kernel(unsigned long long *load, unsigned long long *entry, unsigned long *size)
{ *load = 0x1000000; *entry = 0x1000123; *size = CLAIMS; return KERNEL_BUNDLE; }
";

const RIGHT: Recipe = Recipe { soname: FILE_NAME, version: ABI, claims: 2 * PAGE, source: SOURCE };

/// Compiles it; the linker is the one that linked this test.
fn make(path: &Path, recipe: &Recipe) {
    let source = path.with_extension("c");
    std::fs::write(&source, recipe.source).unwrap();
    #[allow(clippy::disallowed_methods, reason = "libraries come from a compiler")]
    let status = Command::new("cc")
        .args(["-shared", "-nostdlib", "-fPIC", "-w"])
        .args([format!("-DVERSION={}", recipe.version), format!("-DCLAIMS={}", recipe.claims)])
        .arg(format!("-Wl,-soname,{}", recipe.soname))
        .arg("-o")
        .args([path, &source])
        .status()
        .expect("cc must be there: it links Rust programs as well");
    assert!(status.success());
    std::fs::remove_file(source).unwrap();
}

struct Bench {
    dir: tempfile::TempDir,
    config: LocalConfig,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let config = LocalConfig::default_for_home(dir.path().join("home"));
        std::fs::create_dir_all(config.cache_dir()).unwrap();
        Bench { dir, config }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// A right library.
    fn library(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        make(&path, &RIGHT);
        path
    }
    fn climb(&self, rungs: &[(Rung, Option<PathBuf>)]) -> (Vec<Found>, Result<GuestKernel, Lack>) {
        let (reports, decided) = climb(rungs, &self.config);
        (reports.into_iter().map(|report| report.found).collect(), decided)
    }
    /// Why this file is refused when the configuration names it.
    fn refusal(&self, path: &Path) -> Lack {
        let lack = self.climb(&[(Rung::Configuration, Some(path.to_owned()))]).1.unwrap_err();
        assert!(lack.reason.starts_with(&format!("paths.libkrunfw names {}, ", path.display())), "{lack:?}");
        assert!(!lack.hint.is_empty(), "{lack:?}");
        lack
    }
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.config.home.join("lib")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}

#[test]
fn a_library_gives_its_kernel_and_is_known_by_its_digest() {
    let bench = Bench::new();
    let path = bench.library("lib.so");
    let kernel = bench.climb(&[(Rung::Home, Some(path.clone()))]).1.unwrap();
    let KernelSpec { offset, size, guest_addr, entry_addr } = kernel.spec;
    assert_eq!((size, guest_addr, entry_addr), (2 * PAGE, 0x100_0000, 0x100_0123));
    let bytes = std::fs::read(&path).unwrap();
    let image = &bytes[offset as usize..(offset + size) as usize];
    assert!(offset.is_multiple_of(PAGE) && image[0] == 1 && image[1..].iter().all(|byte| *byte == 0));
    assert_eq!(kernel.digest, format!("sha256:{}", digest(&bytes)));
    assert!(rustix::io::fcntl_getfd(&kernel.file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn the_first_place_with_a_library_wins() {
    let bench = Bench::new();
    let (one, two) = (bench.library("one.so"), bench.library("two.so"));
    let rungs = [
        (Rung::Environment, None),
        (Rung::System, Some(bench.path("none.so"))),
        (Rung::System, Some(one.clone())),
        (Rung::Home, Some(two)),
        (Rung::Home, Some(bench.path("none.so"))),
    ];
    let (found, decided) = bench.climb(&rungs);
    let kernel = decided.unwrap();
    assert_eq!((kernel.path, kernel.rung), (one, Rung::System));
    let taken = Found::Taken { digest: kernel.digest };
    assert_eq!(found, [Found::Unset, Found::Absent, taken, Found::PassedOver, Found::Absent]);
}

#[test]
fn a_named_library_that_is_unusable_is_an_error() {
    let bench = Bench::new();
    let right = bench.library("right.so");
    for rung in [Rung::Environment, Rung::Program, Rung::Configuration] {
        let rungs = [(rung, Some(bench.path("none.so"))), (Rung::Home, Some(right.clone()))];
        let (found, decided) = bench.climb(&rungs);
        let lack = decided.unwrap_err();
        assert!(lack.reason.contains(rung.as_str()) && lack.reason.contains("does not exist"), "{lack:?}");
        assert_eq!(found[1], Found::PassedOver);
    }
}

#[test]
fn a_found_library_that_is_unusable_is_skipped_and_reported() {
    let bench = Bench::new();
    let wrong = bench.path("wrong.so");
    std::fs::write(&wrong, "text").unwrap();
    let right = bench.library("right.so");
    let (_, decided) = bench.climb(&[(Rung::System, Some(wrong.clone())), (Rung::Home, Some(right.clone()))]);
    assert_eq!(decided.unwrap().path, right);
    let lack = bench.climb(&[(Rung::System, Some(wrong.clone())), (Rung::Home, None)]).1.unwrap_err();
    assert!(lack.reason.contains(&format!("{} which is not an ELF file", wrong.display())), "{lack:?}");
    assert!(lack.hint.contains("msb install libkrunfw"), "{lack:?}");
}

#[test]
fn the_search_order_of_the_library() {
    let bench = Bench::new();
    let config = LocalConfig {
        paths: microsandbox_core::config::PathsConfig { libkrunfw: Some("/config/x".into()), ..Default::default() },
        ..bench.config.clone()
    };
    let all = rungs(&config, &Environment::of([(VARIABLE, "/variable/x")]));
    let order: Vec<Rung> = all.iter().map(|(rung, _)| *rung).collect();
    let system = order.iter().filter(|rung| **rung == Rung::System).count();
    assert!(system >= 4 && order.len() == 4 + system);
    assert_eq!(order[..3], [Rung::Environment, Rung::Program, Rung::Configuration]);
    assert_eq!(
        (all[0].1.as_deref(), all[2].1.as_deref()),
        (Some(Path::new("/variable/x")), Some(Path::new("/config/x")))
    );
    assert_eq!(all.last(), Some(&(Rung::Home, Some(config.home.join("lib/libkrunfw.so.5")))));
    // Set but empty is unset.
    assert_eq!(rungs(&config, &Environment::of([(VARIABLE, "")]))[0].1, None);
}

#[test]
fn each_fault_of_a_file_has_its_name() {
    let bench = Bench::new();
    let right = std::fs::read(bench.library("right.so")).unwrap();
    let patched = |at: usize, bytes: &[u8]| {
        let mut all = right.clone();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        all
    };
    let cases = [
        (b"not a library".to_vec(), "not an ELF file"),
        (Vec::new(), "not an ELF file"),
        (right[..20].to_vec(), "truncated"),
        (right[..right.len() / 2].to_vec(), "truncated"),
        // e_ident[EI_CLASS], e_machine, e_type (elf(5)).
        (patched(4, &[1]), "built for another kind of machine"),
        (patched(18, &[0x16, 0]), "built for machine type 22"),
        (patched(16, &[2, 0]), "no shared library"),
    ];
    for (bytes, expected) in cases {
        let path = bench.path("case.so");
        std::fs::write(&path, bytes).unwrap();
        let lack = bench.refusal(&path);
        assert!(lack.reason.contains(expected), "{expected}: {lack:?}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_and_never_loaded() {
    let bench = Bench::new();
    let right = std::fs::read(bench.library("right.so")).unwrap();
    let layout = inspect::layout(&right).unwrap();
    let needed = layout.segments.iter().map(|segment| segment.offset + segment.file_size).max().unwrap() as usize;
    for length in (0..needed).step_by(97) {
        assert!(inspect::layout(&right[..length]).is_err(), "{length} of {needed}");
    }
}

#[test]
fn other_libraries_and_other_generations_are_refused() {
    let bench = Bench::new();
    let cases = [
        (Recipe { soname: "libkrunfw.so.4", ..RIGHT }, "ABI 4 instead of 5"),
        (Recipe { version: 4, ..RIGHT }, "ABI 4 instead of 5"),
        (Recipe { soname: "libother.so.5", ..RIGHT }, "it calls itself libother.so.5"),
        (Recipe { source: "int krunfw_get_version(void) { return 5; }", ..RIGHT }, "exports no krunfw_get_kernel"),
        (Recipe { source: "int other(void) { return 5; }", ..RIGHT }, "exports no krunfw_get_version"),
        (Recipe { claims: 1 << 30, ..RIGHT }, "is not within KERNEL_BUNDLE"),
        (Recipe { claims: PAGE + 1, ..RIGHT }, "whole pages"),
    ];
    for (recipe, expected) in cases {
        let path = bench.path("case.so");
        make(&path, &recipe);
        let lack = bench.refusal(&path);
        assert!(lack.reason.contains(expected), "{expected}: {lack:?}");
    }
}

#[test]
fn directories_and_pipes_are_refused_without_waiting() {
    let bench = Bench::new();
    assert!(bench.refusal(bench.dir.path()).reason.contains("not a regular file"));
    let pipe = bench.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(bench.refusal(&pipe).reason.contains("not a regular file"));
}

#[test]
fn a_file_is_looked_at_again_when_it_has_changed() {
    let bench = Bench::new();
    let path = bench.library("lib.so");
    let rung = [(Rung::Home, Some(path.clone()))];
    let first = bench.climb(&rung).1.unwrap();
    let kept = std::fs::read_to_string(bench.config.cache_dir().join("libkrunfw.json")).unwrap();
    assert!(kept.contains(&first.digest), "other processes find it in the cache: {kept}");
    make(&path, &Recipe { claims: PAGE, ..RIGHT });
    let second = bench.climb(&rung).1.unwrap();
    assert_eq!((second.spec.size, second.digest == first.digest), (PAGE, false));
}

fn wheel_of(path: &Path, members: &[(&str, &[u8])]) {
    use std::io::Write as _;
    let mut wheel = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in members {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        wheel.start_file(*name, options).unwrap();
        wheel.write_all(bytes).unwrap();
    }
    wheel.finish().unwrap();
}

const MEMBER: &str = "package/_bundled/lib/libkrunfw.so.5.6.1";

#[test]
fn a_library_is_installed_from_itself_and_from_a_wheel() {
    let bench = Bench::new();
    let library = bench.library("lib.so");
    let bytes = std::fs::read(&library).unwrap();
    let wheel = bench.path("x.whl");
    wheel_of(&wheel, &[("package/__init__.py", b""), (MEMBER, &bytes)]);
    for source in [library, wheel] {
        let installed = from_file(&bench.config, &source).unwrap();
        assert_eq!((&installed.path, installed.version), (&home_path(&bench.config), None));
        assert_eq!(std::fs::read(&installed.path).unwrap(), bytes);
        assert_eq!(installed.path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(bench.names(), [FILE_NAME], "nothing else is left");
        let kernel = bench.climb(&[(Rung::Home, Some(installed.path))]).1.unwrap();
        assert_eq!(kernel.digest, installed.digest);
        std::fs::remove_file(home_path(&bench.config)).unwrap();
    }
}

#[test]
fn what_is_no_library_is_not_installed_and_the_old_one_stays() {
    let bench = Bench::new();
    let library = bench.library("lib.so");
    from_file(&bench.config, &library).unwrap();
    let bytes = std::fs::read(&library).unwrap();
    let source = bench.path("source");
    let mut cut = File::options().write(true).create(true).truncate(true).open(&source).unwrap();
    std::io::Write::write_all(&mut cut, &bytes[..bytes.len() / 2]).unwrap();
    let refused = |expected: &str| {
        let error = from_file(&bench.config, &source).unwrap_err();
        assert!(
            matches!(error, MicrosandboxError::InvalidConfig(_)) && error.to_string().contains(expected),
            "{error}"
        );
        assert_eq!(std::fs::read(home_path(&bench.config)).unwrap(), bytes);
        assert_eq!(bench.names(), [FILE_NAME]);
    };
    refused("truncated");
    std::fs::write(&source, "text").unwrap();
    refused("neither a shared library nor a wheel");
    wheel_of(&source, &[("package/__init__.py", b"")]);
    refused("without libkrunfw.so.5");
    wheel_of(&source, &[(MEMBER, &bytes), ("other/libkrunfw.so.5", &bytes)]);
    refused("more than one");
    wheel_of(&source, &[(MEMBER, b"text")]);
    refused("not an ELF file");
    wheel_of(&source, &[(MEMBER, &bytes)]);
    let whole = std::fs::read(&source).unwrap();
    std::fs::write(&source, &whole[..whole.len() / 2]).unwrap();
    refused("cannot be read as a wheel");
}

/// An interpreter of the test's own: a script that is given pip's words.
fn interpreter(bench: &Bench, body: &str) -> PathBuf {
    let path = bench.path("python");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A package of the test's own, pinned.
fn pin_of(wheel: &[u8], library: &[u8]) -> Pin {
    Pin {
        arch: std::env::consts::ARCH,
        package: "a-package",
        package_version: "1.2",
        wheel_name: "a.whl",
        wheel_size: wheel.len() as u64,
        wheel_sha256: leaked(digest(wheel)),
        version: "5.0",
        library_sha256: leaked(digest(library)),
    }
}

/// The library, the wheel with it, and its pin.
fn package(bench: &Bench) -> (PathBuf, Pin) {
    let library = std::fs::read(bench.library("lib.so")).unwrap();
    let wheel = bench.path("served.whl");
    wheel_of(&wheel, &[(MEMBER, &library)]);
    let pin = pin_of(&std::fs::read(&wheel).unwrap(), &library);
    (wheel, pin)
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(60), work).await.expect("it takes too long")
}

#[tokio::test]
async fn a_pinned_copy_is_fetched_once_with_the_given_pip() {
    let bench = Bench::new();
    let (wheel, pin) = package(&bench);
    let words = bench.path("words");
    let body = format!("echo \"$@\" >> {}; cp {} wheel/a.whl", words.display(), wheel.display());
    let python = interpreter(&bench, &body);
    let seen = std::sync::Mutex::new(Vec::new());
    let count = |done, total| seen.lock().unwrap().push((done, total));
    let installed = soon(pinned(&bench.config, &python, &pin, &count)).await.unwrap();
    assert!(!installed.already && installed.digest == format!("sha256:{}", pin.library_sha256));
    assert!(seen.lock().unwrap().iter().all(|(done, total)| done <= total && *total == pin.wheel_size));
    let again = soon(pinned(&bench.config, &python, &pin, &|_, _| {})).await.unwrap();
    assert!(again.already);
    assert_eq!(bench.names(), [FILE_NAME]);
    let words = std::fs::read_to_string(words).unwrap();
    assert_eq!(words.lines().count(), 1, "fetched twice: {words}");
    assert!(words.starts_with("-m pip download --no-deps --only-binary=:all: "), "{words}");
    assert!(words.trim_end().ends_with(" a-package==1.2"), "{words}");
}

#[tokio::test]
async fn another_file_than_the_pinned_one_is_refused() {
    let bench = Bench::new();
    let (wheel, pin) = package(&bench);
    let python = interpreter(&bench, &format!("cp {} wheel/a.whl", wheel.display()));
    let other = Pin { wheel_sha256: leaked(digest(b"other")), ..pin };
    let error = soon(pinned(&bench.config, &python, &other, &|_, _| {})).await.unwrap_err().to_string();
    assert!(error.contains("a.whl has sha256") && error.contains("--from FILE"), "{error}");
    let other = Pin { wheel_sha256: pin_of(&std::fs::read(&wheel).unwrap(), b"").wheel_sha256, ..other };
    let other = Pin { library_sha256: leaked(digest(b"other")), ..other };
    let error = soon(pinned(&bench.config, &python, &other, &|_, _| {})).await.unwrap_err().to_string();
    assert!(error.contains("libkrunfw.so.5 has sha256"), "{error}");
    assert_eq!(bench.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failing_or_missing_pip_is_reported_with_the_remedy() {
    let bench = Bench::new();
    let (_, pin) = package(&bench);
    let cases = [
        ("echo 'ERROR: No matching distribution' >&2; exit 1", "No matching distribution"),
        ("echo 'python: No module named pip' >&2; exit 1", "-m ensurepip"),
        ("exit 0", "brought no a.whl"),
    ];
    for (body, expected) in cases {
        let python = interpreter(&bench, body);
        let error = soon(pinned(&bench.config, &python, &pin, &|_, _| {})).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("--from FILE"), "{error}");
    }
    let error = soon(pinned(&bench.config, &bench.path("none"), &pin, &|_, _| {})).await.unwrap_err().to_string();
    assert!(error.contains("cannot be started"), "{error}");
    assert_eq!(bench.names(), Vec::<String>::new());
}

#[tokio::test]
async fn giving_up_ends_pip_and_leaves_nothing() {
    let bench = Bench::new();
    let (_, pin) = package(&bench);
    let pid_file = bench.path("pid");
    let python = interpreter(&bench, &format!("echo $$ > {}; exec sleep 300", pid_file.display()));
    let fetch = pinned(&bench.config, &python, &pin, &|_, _| {});
    let begun = soon(async {
        while std::fs::read_to_string(&pid_file).map_or(true, |text| !text.ends_with('\n')) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    tokio::select! {
        _ = fetch => panic!("it cannot end"),
        () = begun => {}
    }
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    soon(async {
        while !gone() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(bench.names(), Vec::<String>::new());
}

#[test]
fn pins_name_this_architecture_once() {
    for pin in install::PINS {
        assert_eq!(install::PINS.iter().filter(|other| other.arch == pin.arch).count(), 1);
        assert_eq!((pin.wheel_sha256.len(), pin.library_sha256.len()), (64, 64));
        assert!(pin.wheel_name.starts_with(&format!("{}-{}-", pin.package, pin.package_version)));
    }
}
