//! Named steps at which a test kills or holds this process: `MSB_FAILPOINT=<what>.<step>`. Programs of a release are built
//! without the feature, so no variable of the environment can stop them.

/// With `MSB_FAILPOINT=core.<step>` the process that uses this library kills itself here.
pub fn failpoint(step: &str) {
    #[cfg(not(feature = "failpoints"))]
    let _ = step;
    #[cfg(feature = "failpoints")]
    if wanted("core.").as_deref() == Some(step) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// [`failpoint`], and with `MSB_FAILPOINT=pause.<step>` the place where it makes the file that `MSB_FAILPOINT_MARK` names and
/// waits until a test has removed the file: what another process does in between happens at this step.
pub async fn pause(step: &str) {
    failpoint(step);
    #[cfg(feature = "failpoints")]
    if wanted("pause.").as_deref() == Some(step)
        && let Some(mark) = std::env::var_os("MSB_FAILPOINT_MARK")
        && std::fs::write(&mark, step).is_ok()
    {
        while std::path::Path::new(&mark).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

/// The step that `MSB_FAILPOINT` names after `prefix`.
#[cfg(feature = "failpoints")]
pub fn wanted(prefix: &str) -> Option<String> {
    Some(std::env::var("MSB_FAILPOINT").ok()?.strip_prefix(prefix)?.to_owned())
}
