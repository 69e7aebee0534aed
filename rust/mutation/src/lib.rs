//! Fuzzing inside `cargo test`, with the stable toolchain: inputs of a corpus, changed at random, to a function that must
//! neither panic nor take long. An input with a new outcome joins the corpus of the run, which stands in for the
//! coverage that libFuzzer has.
//!
//! The corpus of a target is `fuzz/corpus/<target>`: real files, and inputs that failed once. Each is tried first, as it is. Then
//! the run goes on for `MSB_FUZZ_SECONDS` (one, so that `make test` stays short; `make fuzz` sets its own). An input that fails
//! is written to `fuzz/artifacts`; move it to the corpus, and it is a regression test.
//!
//! | module | holds |
//! |---|---|
//! | [`change`] | changes to an input |
//! | [`random`] | numbers that a seed repeats |

mod change;
mod random;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use change::changed;
use random::Random;

/// Longest input that is made.
const MAX_INPUT: usize = 64 << 10;
/// Most inputs that a run keeps.
const MAX_KEPT: usize = 4096;
/// An input that takes this long is a failure.
const SLOW: Duration = Duration::from_secs(10);

/// What is fuzzed, and what helps to get deep into it.
pub struct Target {
    /// Name of the corpus.
    pub name: &'static str,
    /// Words of the format, put in at random.
    pub words: &'static [&'static [u8]],
    /// Makes an input sound again in what would otherwise end every try early: lengths, checksums.
    pub repair: fn(&mut Vec<u8>),
}

impl Target {
    pub const fn new(name: &'static str, words: &'static [&'static [u8]]) -> Target {
        Target { name, words, repair: |_| {} }
    }

    /// Runs the target. `check` gives a short text of what came of an input.
    ///
    /// # Panics
    /// With the place of the input, if one fails.
    pub fn run(&self, check: impl Fn(&[u8]) -> String) {
        let mut pool = self.corpus();
        assert!(!pool.is_empty(), "{} is missing", directory("corpus").join(self.name).display());
        let mut seen = HashSet::new();
        for input in &pool {
            self.judge(input, &check, &mut seen);
        }
        let seed = number("MSB_FUZZ_SEED").unwrap_or_else(random::of_the_clock);
        let end = Instant::now() + Duration::from_secs(number("MSB_FUZZ_SECONDS").unwrap_or(1));
        let (mut random, mut tries) = (Random::new(seed), 0u64);
        while Instant::now() < end {
            let mut input = changed(&pool, self.words, &mut random);
            input.truncate(MAX_INPUT);
            (self.repair)(&mut input);
            tries += 1;
            if self.judge(&input, &check, &mut seen) && pool.len() < MAX_KEPT {
                pool.push(input);
            }
        }
        println!("{}: {tries} inputs, {} outcomes, MSB_FUZZ_SEED={seed}", self.name, seen.len());
    }

    /// Whether the outcome is new.
    fn judge(&self, input: &[u8], check: &impl Fn(&[u8]) -> String, seen: &mut HashSet<u64>) -> bool {
        let begin = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(input)));
        let took = begin.elapsed();
        match outcome {
            Ok(outcome) if took < SLOW => seen.insert(hash(outcome.as_bytes())),
            Ok(_) => panic!("{}: an input took {took:?}; it is {}", self.name, self.keep(input).display()),
            Err(panic) => {
                eprintln!("{}: the input that fails is {}", self.name, self.keep(input).display());
                resume_unwind(panic)
            }
        }
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(directory("corpus").join(self.name)) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => Vec::new(),
        };
        files.sort();
        files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
    }

    fn keep(&self, input: &[u8]) -> PathBuf {
        let artifacts = directory("artifacts");
        let file = artifacts.join(format!("{}-{:016x}", self.name, hash(input)));
        if let Err(error) = std::fs::create_dir_all(&artifacts).and_then(|()| std::fs::write(&file, input)) {
            eprintln!("{}: {error}; the input is {input:02x?}", file.display());
        }
        file
    }
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(name)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// For archives: the checksum of every block that may be a header is made right.
pub fn repair_tar(input: &mut Vec<u8>) {
    const SUM: std::ops::Range<usize> = 148..156;
    input.resize(input.len().div_ceil(512) * 512, 0);
    for block in input.chunks_exact_mut(512) {
        if &block[257..262] != b"ustar" {
            continue;
        }
        block[SUM].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_fails_is_found_and_kept() {
        let target = Target::new("tar", &[b"a word that fails"]);
        let found = catch_unwind(|| {
            target.run(|input| {
                assert!(!input.windows(17).any(|part| part == b"a word that fails"));
                format!("{}", input.len() / 512)
            });
        });
        assert!(found.is_err(), "not found");
        let kept: Vec<PathBuf> =
            std::fs::read_dir(directory("artifacts")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let ours = kept
            .into_iter()
            .find(|file| std::fs::read(file).unwrap().windows(17).any(|part| part == b"a word that fails"));
        std::fs::remove_file(ours.expect("kept")).unwrap();
        let _ = std::fs::remove_dir(directory("artifacts"));
    }

    #[test]
    fn a_seed_gives_the_same_inputs_again() {
        let pool = [b"first".to_vec(), b"second".to_vec()];
        let made = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| changed(&pool, &[], &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(made(7), made(7));
        assert_ne!(made(7), made(8));
    }
}
