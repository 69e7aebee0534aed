//! The process beside every sandbox: prepares its root file system, starts it, supervises it, records its end. The same
//! program unpacks image layers, removes trees of mapped ids and probes what a machine can isolate, because all of these
//! work inside a sandbox's id mapping.
//!
//! | module | holds |
//! |---|---|
//! | [`launch`] → [`driver`] → [`supervise`] | the life of one sandbox, in this order |
//! | [`job`] | the jobs that end: unpacking layers, removing trees, probing the machine |
//! | [`channel`], [`logs`] | the private channel to the agent, and the logs that its output becomes |
//! | [`directory`], [`identity`], [`report`] | the files that a run leaves, and the reports to the SDK |
//! | [`own_ids`] | the range of host ids of a run |
//! | [`steps`] | the clock of a boot |
//!
//! Beside it: `contract` (what the processes hand to each other), `jail`, `cgroups`, `rooted` (files beneath a root that
//! another party filled) and `sys` (system calls without a safe wrapper).
#![forbid(unsafe_code)]

use std::time::Instant;

use microsandbox_contract::note::Failure;
use microsandbox_contract::{BootError, Job, Report, Step, fd};
use microsandbox_sys::{descriptor, inherited, signal};

pub mod channel;
pub mod directory;
pub mod driver;
pub mod identity;
pub mod job;
pub mod launch;
pub mod logs;
pub mod own_ids;
pub mod report;
pub mod steps;
pub mod supervise;

/// Runs the job on the inherited descriptors; the result is the exit code.
pub fn run(start: Instant) -> i32 {
    let [spec, report, lifeline, owner, payload, vmm, kernel] =
        [fd::SPEC, fd::REPORT, fd::LIFELINE, fd::OWNER, fd::PAYLOAD, fd::VMM, fd::KERNEL]
            .map(|number| descriptor::inherit(number).ok());
    let job = read_job(spec);
    let last = fd::SOURCES + job.as_ref().map_or(0, Job::sources) as i32;
    let sources = (fd::SOURCES..last).filter_map(|number| descriptor::inherit(number).ok()).collect();
    // Whatever else the creator left open is not ours to keep.
    let _ = descriptor::close_from(last as u32);
    // Nor is what its process was like to show in a sandbox.
    inherited::reset();
    // A write beyond a limit that could not be raised becomes an error like any other instead of the end of this process.
    signal::block(&[libc::SIGXFSZ]);
    let mut reporter = report::Reporter::new(report);
    let job = match job {
        Ok(job) => job,
        Err(message) => {
            let failure = Failure::new(Step::ReadSpec, message, "install the package again");
            let error: BootError = failure.into_boot_error(steps::epoch_ms(), String::new());
            reporter.send(&Report::BootError(error));
            return 2;
        }
    };
    match job {
        Job::Launch(spec) => {
            let inherited = launch::Inherited { lifeline, owner, payload, vmm, kernel };
            launch::run(spec, inherited, &mut reporter, steps::Steps::new(start))
        }
        Job::Unpack(spec) => job::unpack::run(&spec, sources, &mut reporter),
        Job::RemoveTree(spec) => job::remove::run(&spec, &mut reporter),
        Job::Probe(spec) => job::probe::run(&spec, &mut reporter),
    }
}

fn read_job(spec: Option<rustix::fd::OwnedFd>) -> Result<Job, String> {
    let spec = spec.ok_or("no job on descriptor 3: this program is started by the microsandbox SDK")?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(spec), &mut text)
        .map_err(|error| format!("read the job: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("the job cannot be understood: {error}"))
}
