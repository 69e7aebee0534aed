//! What the runtime takes over from a tenant.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use microsandbox_runtime::directory::take_socket;
use rustix::io::Errno;

use super::support::Scratch;

// L9: the monitor left something else where its socket was expected.
#[test]
fn only_a_socket_is_taken_from_a_tenant() {
    let scratch = Scratch::new("take-socket");
    let open = |name: &str| File::open(scratch.sandbox(name)).unwrap();
    let (theirs, ours) = (open("vm"), open("runtime"));
    let take = || take_socket(&theirs, &ours, "agent.sock");
    let (place, other) = (scratch.0.join("vm/agent.sock"), scratch.0.join("other.sock"));
    let _other = UnixListener::bind(&other).unwrap();
    symlink(&other, &place).unwrap();
    assert_eq!(take(), Err(Errno::NOTSOCK), "a link to another socket");
    std::fs::write(&place, "no socket").unwrap();
    assert_eq!(take(), Err(Errno::NOTSOCK), "a file");
    std::fs::create_dir_all(place.join("within")).unwrap();
    assert_eq!(take(), Err(Errno::NOTSOCK), "a directory");
    assert!(scratch.0.join("runtime/agent.sock").symlink_metadata().is_err());
    let _own = UnixListener::bind(&place).unwrap();
    take().unwrap();
}
