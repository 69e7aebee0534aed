//! `msb-vmm`: one virtual machine on KVM, built from libkrun's own crates. It is executed inside a jail that the runtime
//! has made (see `driver/microvm` of the runtime), runs until its guest ends, and is ended with it.
//!
//! The machine has what the agent uses and nothing else: a console for the kernel, the root directory over virtio-fs, and
//! virtio-vsock with two ports, each mapped to a unix socket. No disk, no network card, no transparent sockets.

mod confine;
mod kernel;
mod log_bridge;
mod machine;

use std::io::Read as _;
use std::process::ExitCode;

use microsandbox_contract::Step;
use microsandbox_contract::monitor::{MachineSpec, fd};
use microsandbox_contract::note::Failure;
use microsandbox_contract::note::Note;
use microsandbox_sys::descriptor;
use rustix::fd::OwnedFd;

/// Ends with the guest, and then with the guest's own status; otherwise says why there is no machine.
fn main() -> ExitCode {
    // Executed through a descriptor, whose name would be its name in `ps`.
    let _ = rustix::thread::set_name(c"msb-vmm");
    // A process of the same ids that got out of its own jail must not read the guest's memory.
    let dumpable = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    log_bridge::to_stderr();
    let (notes, spec) = (descriptor::inherit(fd::NOTES).ok(), read_spec());
    let mut notes = Notes { pipe: notes, origin_ns: spec.as_ref().map_or(0, |spec| spec.origin_ns) };
    match spec
        .and_then(|spec| {
            dumpable.map(|()| spec).map_err(|error| format!("close its memory to other processes: {error}"))
        })
        .map_err(|text| Failure::new(Step::ExecuteMonitor, text, FAULT_HINT))
        .and_then(|spec| run(&spec, &mut notes))
    {
        Ok(never) => match never {},
        Err(failure) => {
            eprintln!("msb-vmm: {}", failure.message);
            notes.tell(&Note::Failed(failure));
            ExitCode::from(1)
        }
    }
}

const FAULT_HINT: &str = "this is a fault of the build: report it";
const MACHINE_HINT: &str =
    "`msb doctor --recheck` tries whether this machine can run virtual machines; see also logs/kernel.log";

fn run(spec: &MachineSpec, notes: &mut Notes) -> Result<std::convert::Infallible, Failure> {
    let build =
        |action: &str, error: String, hint: &str| Failure::new(Step::BuildMachine, format!("{action}: {error}"), hint);
    let missing = |what: &str| Failure::new(Step::ExecuteMonitor, format!("no {what} was handed over"), FAULT_HINT);
    let library = descriptor::inherit(fd::KERNEL).map_err(|_| missing("kernel"))?;
    let agent = descriptor::inherit(fd::AGENT).map_err(|_| missing("agent"))?;
    let kernel = kernel::map(&library, &spec.kernel).map_err(|error| {
        build("map the guest kernel", error.to_string(), "install libkrunfw again: msb install libkrunfw")
    })?;
    let agent = kernel::map_whole(&agent).map_err(|error| build("map the agent", error.to_string(), FAULT_HINT))?;
    let resources = machine::resources(spec, kernel, agent)
        .map_err(|error| build("describe the machine", error, "ask for less memory or fewer processors"))?;
    confine::now().map_err(|error| build("confine the monitor", error, FAULT_HINT))?;
    let mut events = machine::events().map_err(|error| build("prepare the event loop", error, FAULT_HINT))?;
    let machine = machine::build(&resources, &mut events)
        .map_err(|error| build("build the virtual machine", error, MACHINE_HINT))?;
    notes.done(Step::BuildMachine);
    notes.pipe = None;
    machine::run(machine, events).map_err(|error| build("run the virtual machine", error, MACHINE_HINT))
}

/// Reports to the runtime while there is no machine yet.
struct Notes {
    pipe: Option<OwnedFd>,
    origin_ns: u64,
}

impl Notes {
    fn tell(&self, note: &Note) {
        let Some(pipe) = &self.pipe else { return };
        // Notes are plain data; a runtime that is gone ends this process anyway.
        let line = serde_json::to_string(note).unwrap_or_default() + "\n";
        let _ = rustix::io::write(pipe, line.as_bytes());
    }

    fn done(&self, step: Step) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        self.tell(&Note::Done(step, now_ns.saturating_sub(self.origin_ns) / 1000));
    }
}

fn read_spec() -> Result<MachineSpec, String> {
    let file = descriptor::inherit(fd::SPEC).map_err(|_| "no specification: this program is started by msb-runtime")?;
    let mut text = Vec::new();
    std::fs::File::from(file).read_to_end(&mut text).map_err(|error| format!("read the specification: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("the specification cannot be understood: {error}"))
}
