//! Walks through a volume that a guest may be changing.

use std::os::fd::OwnedFd;

use microsandbox_rooted::walk::{Bounds, Order, Step, Walk};
use rustix::fs::FileType;
use rustix::io::Errno;

/// Bytes of all regular files beneath `root`; of the first `most` entries where there are more. What cannot be looked at
/// counts as an empty entry.
pub fn sum(root: OwnedFd, most: usize) -> Result<u64, Errno> {
    let mut walk = Walk::new(root, Order::Found, Bounds { depth: most, ..Bounds::WIDE })?;
    let (mut total, mut seen) = (0, 0);
    while seen < most
        && let Some(step) = walk.step()
    {
        match step {
            Ok(Step::Left) => continue,
            Ok(Step::Entry(entry)) if entry.kind() == FileType::RegularFile => {
                total = u64::saturating_add(total, u64::try_from(entry.stat.st_size).unwrap_or_default());
            }
            Ok(Step::Entry(_)) | Err(_) => {}
        }
        seen += 1;
    }
    Ok(total)
}
