//! Removing a sandbox's directory, files of mapped ids included.

use std::path::Path;

use microsandbox_protocol::launch::{IdMap, Job, LAUNCH_VERSION, RemoveTreeSpec, Report};

use super::LocalBackend;
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Removes `path` with everything beneath it; absence is fine. Where the caller may not (files of subordinate ids,
/// directories without permissions), a runtime process does it inside the id mapping.
pub async fn remove(backend: &LocalBackend, path: &Path) -> MicrosandboxResult<()> {
    let owned = path.to_owned();
    let plain = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(owned)).await;
    match plain.map_err(|e| MicrosandboxError::Runtime(format!("removal task: {e}")))? {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => mapped(backend, path).await,
        Err(e) => Err(MicrosandboxError::io("remove", path, e)),
    }
}

async fn mapped(backend: &LocalBackend, path: &Path) -> MicrosandboxResult<()> {
    // As root nothing is gained by the mapping, but mode-000 directories are no obstacle there either.
    let ids: IdMap = backend.id_map()?;
    let job = Job::RemoveTree(RemoveTreeSpec { version: LAUNCH_VERSION, ids, path: path.to_owned() });
    let mut failed = None;
    backend
        .run_job(&job, None, &mut |report| {
            if let Report::Failed(error) = report {
                failed = Some(error);
            }
        })
        .await?;
    match failed {
        None => Ok(()),
        Some(error) => {
            Err(MicrosandboxError::Runtime(format!("remove {}: {}; {}", path.display(), error.message, error.hint)))
        }
    }
}
