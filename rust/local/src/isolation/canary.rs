//! A machine that boots for the proof alone: the ordinary launch of a guest whose root is nothing but the runtime layer, in
//! a directory of its own under `<home>/run`, never in the database. It is killed as soon as its agent answers.
//!
//! Whatever happens, its directory, processes and control groups go. What a killed process left behind is cleared by the
//! next canary of the home; its guest ended with it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use microsandbox_contract::{RootSpec, Stage};

use super::Trial;
use crate::{boot, reconcile, runtime_layer};
use microsandbox_core::error::{BootFailure, Lack, MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{BootTrace, Isolation, SandboxResources, SandboxSpec};
use microsandbox_home::{Home, blocking, make_private_directory, tree};

/// Start of the names of canaries' directories.
const PREFIX: &str = "canary-";
/// Enough for the kernel and the agent.
const MEMORY_MIB: u32 = 128;
const HINT: &str = "`msb doctor --recheck` tries again; MSB_CANARY_DEADLINE gives it more seconds";

/// Boots one. The caller holds the lock.
pub async fn run(home: &Home) -> Trial {
    let parent = home.config().home.join("run");
    sweep(home, &parent).await;
    let begun = Instant::now();
    let dir = match fresh(&parent) {
        Ok(dir) => dir,
        Err(error) => return undecided(&error),
    };
    let booted = fly(home, &dir).await;
    let took = begun.elapsed();
    if let Err(error) = clear(home, &dir).await {
        tracing::warn!(%error, "a canary was not cleared away; the next one will");
    }
    match booted {
        Ok(()) => Trial::Booted(took),
        Err(MicrosandboxError::BootStart(failure)) => judge(*failure),
        Err(error) => undecided(&error),
    }
}

async fn fly(home: &Home, dir: &Path) -> MicrosandboxResult<()> {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let resources =
        SandboxResources { memory_mib: MEMORY_MIB, max_memory_mib: MEMORY_MIB, ..SandboxResources::default() };
    let spec = SandboxSpec {
        name,
        resources,
        isolation: Isolation::Microvm,
        isolation_actual: Some(Isolation::Microvm),
        ..SandboxSpec::default()
    };
    let layer = runtime_layer::prepare(home).await?;
    let lowers = vec![microsandbox_contract::Lower { path: layer, host_ids: false }];
    let ground = boot::Ground {
        dir,
        root: RootSpec { lowers, ..RootSpec::default() },
        env: Vec::new(),
        ready_timeout: home.config().boot.canary_deadline(),
    };
    let (owned, place) = (home.clone(), dir.to_owned());
    blocking(move || boot::prepare_directory(&place, &owned.id_map()?)).await?;
    let mut trace = BootTrace::begin();
    let mut booting = boot::launch(home, &spec, ground, &mut trace).await?;
    let booted = booting.ready(&mut trace).await;
    booting.end().await;
    booted?.end(dir).await;
    Ok(())
}

/// A failure of the machine is a verdict; one of its surroundings would meet a container as well.
fn judge(failure: BootFailure) -> Trial {
    let reason = format!("a test machine did not boot: {} ({})", failure.message, failure.stage);
    match failure.stage {
        Stage::Config | Stage::Image | Stage::Mount | Stage::Network => {
            Trial::Undecided(Lack::new(reason, failure.hint))
        }
        // A boot that was asked for points to the doctor as well.
        Stage::BuildVm | Stage::Agent | Stage::Other
            if failure.hint.is_empty() || failure.hint.contains("--recheck") =>
        {
            Trial::Refused(Lack::new(reason, HINT))
        }
        Stage::BuildVm | Stage::Agent | Stage::Other => {
            Trial::Refused(Lack::new(reason, format!("{}; {HINT}", failure.hint)))
        }
    }
}

fn undecided(error: &MicrosandboxError) -> Trial {
    match error {
        MicrosandboxError::IsolationUnavailable { reason, hint, .. } => Trial::Undecided(Lack::new(reason, hint)),
        other => Trial::Undecided(Lack::new(format!("a test machine could not be started: {other}"), HINT)),
    }
}

fn fresh(parent: &Path) -> MicrosandboxResult<PathBuf> {
    make_private_directory(parent)?;
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
    // Removed by `clear`, which also knows how to remove files of mapped ids.
    dir.map(tempfile::TempDir::keep).map_err(|e| MicrosandboxError::io("make a directory in", parent, e))
}

async fn clear(home: &Home, dir: &Path) -> MicrosandboxResult<()> {
    reconcile::clear_leftovers(dir).await;
    tree::remove(home, dir).await
}

/// No other process runs a canary now: what is there was left by ended ones.
async fn sweep(home: &Home, parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Err(error) = clear(home, &entry.path()).await
        {
            tracing::warn!(%error, "an old canary was not cleared away");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(stage: Stage, hint: &str) -> BootFailure {
        BootFailure {
            name: "canary-x".into(),
            stage,
            step: "s".into(),
            errno: None,
            message: "no answer".into(),
            hint: hint.into(),
            log_tail: String::new(),
        }
    }

    #[test]
    fn only_a_failure_of_the_machine_is_a_verdict() {
        for stage in [Stage::BuildVm, Stage::Agent, Stage::Other] {
            let Trial::Refused(lack) = judge(failure(stage, "")) else { panic!("{stage}") };
            assert!(lack.reason.contains("no answer") && lack.hint.contains("--recheck"), "{lack:?}");
        }
        for stage in [Stage::Config, Stage::Image, Stage::Mount, Stage::Network] {
            assert!(matches!(judge(failure(stage, "free some space")), Trial::Undecided(_)), "{stage}");
        }
    }
}
