# Sourced by what builds for tests and lints: one profile and one set of flags for all of it, so that nothing is compiled twice.
# shellcheck shell=bash
export CARGO_PROFILE_NAME=tested
# Clippy compiles as rustc does and lints on the way; cargo repeats the warnings of what it need not compile again.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver

# Two parts: together, what libkrun wants of small crates would have everything above them compiled once more, the database first.
# In the second part: the programs that are embedded, and what only they use.
embedded=(sys rooted cgroups contract jail runtime agent vmm)

# part_flags library|programs: sets `flags`, the packages of the part and the features that their tests need. The bindings are in no part: an
# extension module does not link outside of an interpreter; the wheel has them.
part_flags() {
    flags=()
    local manifest crate part
    for manifest in rust/*/Cargo.toml; do
        crate=$(basename "$(dirname "$manifest")")
        [[ $crate != bindings ]] || continue
        part=library
        [[ " ${embedded[*]} " != *" $crate "* ]] || part=programs
        [[ $part == "$1" ]] || continue
        flags+=("--package=microsandbox-$crate")
        # The step at which a process kills itself, for the tests of crashes: no wheel for users has it.
        ! grep -q '^failpoints *=' "$manifest" || flags+=("--features=microsandbox-$crate/failpoints")
    done
}
