//! `/dev/kvm` for a monitor whose ids the device's owner does not know.

use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use microsandbox_contract::Step;
use microsandbox_contract::note::{Failure, failed};
use microsandbox_jail::devices::{self, Device};
use microsandbox_jail::mounts::{self, Opt};

/// What a monitor opens (Linux, `admin-guide/devices.txt`): the virtual machines; and randomness for the guest, which libkrun
/// reads from files because a static program cannot look its C library up by name.
const DEVICES: [Device; 4] = [("kvm", 10, 232), ("null", 1, 3), ("random", 1, 8), ("urandom", 1, 9)];

const HINT: &str =
    "load the kvm module, and let the user who runs this open /dev/kvm (group kvm); `msb doctor` says more";

/// How the monitor gets at the device.
pub enum Kvm {
    /// Host root: a device directory of our own, where the nodes are open to the monitor and to nothing else.
    Own(OwnedFd),
    /// An ordinary user: the host's own nodes, with the groups that this user has.
    Host,
}

/// Before the namespaces, with the rights of the host.
pub fn prepare() -> Result<Kvm, Failure> {
    fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed(
        Step::FurnishMonitor,
        "open /dev/kvm",
        HINT,
    ))?;
    if !rustix::process::geteuid().is_root() {
        return Ok(Kvm::Host);
    }
    // Where even root may not make device nodes, the host's node may still be open to every user.
    Ok(own_nodes().map_or(Kvm::Host, Kvm::Own))
}

fn own_nodes() -> Result<OwnedFd, Errno> {
    let options = [Opt::Text("mode", "755"), Opt::Text("size", "4096"), Opt::Text("nr_inodes", "16")];
    let tree = devices::own(&DEVICES, &options, (0, 0))?;
    mounts::freeze(&tree)?;
    Ok(tree)
}

impl Kvm {
    /// Whether only the user's own groups open the device.
    pub fn needs_groups(&self) -> bool {
        matches!(self, Kvm::Host)
    }

    /// Puts the devices at `dev`, a directory inside.
    pub fn attach(&self, dev: &OwnedFd) -> Result<(), Errno> {
        match self {
            Kvm::Own(tree) => mounts::attach(tree, dev),
            Kvm::Host => devices::bind_host(&DEVICES, dev),
        }
    }
}
