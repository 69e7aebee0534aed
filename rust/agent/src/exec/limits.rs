//! Resource limits of a session.

use microsandbox_protocol::message::Rlimit;
use microsandbox_sys::spawn::Limit;

use super::failure::{Failure, FailureKind, quote};

fn number(name: &str) -> Option<u32> {
    Some(match name {
        "cpu" => libc::RLIMIT_CPU,
        "fsize" => libc::RLIMIT_FSIZE,
        "data" => libc::RLIMIT_DATA,
        "stack" => libc::RLIMIT_STACK,
        "core" => libc::RLIMIT_CORE,
        "rss" => libc::RLIMIT_RSS,
        "nproc" => libc::RLIMIT_NPROC,
        "nofile" => libc::RLIMIT_NOFILE,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "as" => libc::RLIMIT_AS,
        "locks" => libc::RLIMIT_LOCKS,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        _ => return None,
    })
}

/// The limits to set, in order. `locks` is accepted but has no effect: Linux ignores it since 2.4.25 and the agent
/// uses it to mark the processes of a session (see [`crate::sessions::tree`]).
pub fn parse(limits: &[Rlimit]) -> Result<Vec<Limit>, Failure> {
    let mut out = Vec::with_capacity(limits.len());
    for limit in limits {
        let Some(resource) = number(&limit.resource) else {
            return Err(refused(format!("unknown resource limit {}", quote(&limit.resource))));
        };
        if limit.soft > limit.hard {
            let text = format!("{}: soft limit {} is above the hard limit {}", limit.resource, limit.soft, limit.hard);
            return Err(refused(text));
        }
        if resource != libc::RLIMIT_LOCKS {
            out.push(Limit { resource, soft: limit.soft, hard: limit.hard });
        }
    }
    Ok(out)
}

fn refused(message: String) -> Failure {
    Failure::new(FailureKind::ResourceLimit, "rlimit", message)
}
