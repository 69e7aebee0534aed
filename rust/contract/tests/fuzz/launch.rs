//! The JSON documents between SDK and runtime: jobs one way, reports the other, and the files that are read back.
use microsandbox_contract::{BootError, ExitRecord, Identity, Job, Report};

pub fn check(bytes: &[u8]) {
    if let Ok(job) = serde_json::from_slice::<Job>(bytes) {
        let text = serde_json::to_vec(&job).expect("a job is plain data");
        serde_json::from_slice::<Job>(&text).expect("an own job is read back");
    }
    if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
        let text = serde_json::to_vec(&report).expect("a report is plain data");
        serde_json::from_slice::<Report>(&text).expect("an own report is read back");
    }
    let _ = serde_json::from_slice::<Identity>(bytes);
    let _ = serde_json::from_slice::<ExitRecord>(bytes);
    let _ = serde_json::from_slice::<BootError>(bytes);
}
