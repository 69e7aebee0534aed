//! `msb create`: a sandbox that keeps running.

use clap::Args;
use microsandbox_core::error::Lack;
use microsandbox_core::model::{Isolation, SandboxConfig};
use microsandbox_core::{MicrosandboxError, Sandbox};
use microsandbox_local::LocalBackend;

use crate::flags::sandbox_flags::SandboxFlags;
use crate::invocation::Invocation;
use crate::output::failure::Outcome;
use crate::output::progress;

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// `host` (the programs of this machine), an image reference, or a directory.
    #[arg(value_name = "IMAGE")]
    image: String,
    #[command(flatten)]
    flags: SandboxFlags,
}

/// Boots the sandbox without a program, leaves it running and prints its name.
pub async fn run(args: CreateArgs, call: &Invocation) -> Outcome<()> {
    let mut config = args.flags.config(call, &args.image, args.flags.name.clone().unwrap_or_default())?;
    config.spec.mounts = args.flags.mounts.mounts(call).await?;
    config.spec.detached = true;
    let sandbox = create_named(call, config, args.flags.quiet).await?;
    call.console.line(sandbox.name())
}

/// Creates the sandbox; generates a name if the configuration has none.
pub async fn create_named(call: &Invocation, mut config: SandboxConfig, quiet: bool) -> Outcome<Sandbox> {
    let generated = config.spec.name.is_empty();
    let title = format!("creating from {}", config.spec.image.describe());
    let (_progress, report) = progress::pulling(&call.console, quiet, title);
    loop {
        if generated {
            config.spec.name = fresh_name();
        }
        match Sandbox::create_with_progress(&call.backend, config.clone(), Some(report.clone())).await {
            // A collision of generated names, one in four billion: try another name.
            Err(MicrosandboxError::SandboxAlreadyExists(_)) if generated => {}
            Err(error) => return Err(error.into()),
            Ok(sandbox) => {
                drop(_progress);
                let why = LocalBackend::of(&call.backend).and_then(|local| local.fallback());
                let note = fallback_note(sandbox.name(), sandbox.spec().isolation, sandbox.isolation(), why);
                if let Some(note) = note.filter(|_| !quiet) {
                    call.console.note(&note);
                }
                return Ok(sandbox);
            }
        }
    }
}

/// `msb-` and eight hex digits.
fn fresh_name() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library seeds each of these from the system's random numbers.
    let random = RandomState::new().build_hasher().finish();
    format!("msb-{:08x}", random as u32)
}

/// A fallback to a container is reported, because a user who gave no --isolation may expect a microVM.
fn fallback_note(name: &str, asked: Isolation, given: Option<Isolation>, why: Option<Lack>) -> Option<String> {
    (asked == Isolation::Auto && given == Some(Isolation::Container)).then(|| {
        let why = why.map_or_else(
            || "`msb doctor` reports why it is not a microVM".to_owned(),
            |lack| format!("MicroVMs do not work here: {}; {} (details: `msb doctor`)", lack.reason, lack.hint),
        );
        let text = format!(
            "note: {name} is a container: it shares the kernel of this machine. {why}; --require-microvm makes this an \
             error, --isolation container suppresses this note"
        );
        crate::terminal::console::printable(&text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_names_are_valid_and_differ() {
        let (one, two) = (fresh_name(), fresh_name());
        assert_ne!(one, two);
        assert_eq!(one.len(), "msb-".len() + 8);
        microsandbox_core::model::validate_sandbox_name(&one).unwrap();
    }

    #[test]
    fn only_a_fallback_is_reported() {
        use Isolation::{Auto, Container, Microvm};
        assert!(fallback_note("box", Auto, Some(Container), None).is_some_and(|note| note.contains("msb doctor")));
        let lack = Lack::new("there is no /dev/kvm", "load the kvm module");
        let note = fallback_note("box", Auto, Some(Container), Some(lack)).unwrap();
        assert!(note.contains("work here: there is no /dev/kvm; load the kvm module"), "{note}");
        for (asked, given) in
            [(Container, Some(Container)), (Auto, Some(Microvm)), (Microvm, Some(Microvm)), (Auto, None)]
        {
            assert_eq!(fallback_note("box", asked, given, None), None, "{asked} {given:?}");
        }
    }
}
