//! What the machine consists of.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crossbeam_channel::Receiver;
use krun_devices::virtio::TsiFlags;
use krun_devices::virtio::fs::virtual_entry::{VirtualDirEntry, VirtualEntry, VirtualEntryContent};
use krun_devices::virtio::passthrough::PermissionSemantics;
use krun_polly::event_manager::EventManager;
use krun_utils::worker_message::WorkerMessage;
use krun_vmm::Vmm;
use krun_vmm::builder::build_microvm;
use krun_vmm::resources::{SerialConsoleConfig, VmResources};
use krun_vmm::vmm_config::fs::FsDeviceConfig;
use krun_vmm::vmm_config::kernel_bundle::KernelBundle;
use krun_vmm::vmm_config::kernel_cmdline::KernelCmdlineConfig;
use krun_vmm::vmm_config::machine_config::VmConfig;
use krun_vmm::vmm_config::vsock::VsockDeviceConfig;
use microsandbox_protocol::machine;
use microsandbox_runtime::driver::microvm::contract::{MachineSpec, fd, path};

/// The tag of the file system that the kernel mounts as its root.
const ROOT_TAG: &str = "/dev/root";

/// Describes the machine to libkrun.
pub fn resources(spec: &MachineSpec, kernel: u64, agent: &'static [u8]) -> Result<VmResources, String> {
    let mut resources = VmResources::default();
    resources.disable_implicit_console = true;
    let memory = usize::try_from(spec.memory_mib).map_err(|_| "more memory than this machine can address")?;
    let shape = VmConfig {
        vcpu_count: Some(spec.cpus),
        mem_size_mib: Some(memory),
        ht_enabled: Some(false),
        cpu_template: None,
    };
    resources.set_vm_config(&shape).map_err(|error| format!("{error}"))?;
    let bundle = KernelBundle {
        host_addr: kernel,
        guest_addr: spec.kernel.guest_addr,
        entry_addr: spec.kernel.entry_addr,
        size: spec.kernel.size as usize,
    };
    resources.set_kernel_bundle(bundle).map_err(|error| format!("{error}"))?;
    resources.kernel_cmdline = KernelCmdlineConfig { prolog: Some(command_line()), krun_env: None, epilog: None };
    resources.serial_consoles.push(SerialConsoleConfig { input_fd: -1, output_fd: fd::CONSOLE });
    resources.add_fs_device(root(agent));
    resources.vsock.insert(sockets()).map_err(|error| format!("{error}"))?;
    Ok(resources)
}

/// The root directory, and the agent in it under a name that can be looked up once: by the kernel, at boot.
fn root(agent: &'static [u8]) -> FsDeviceConfig {
    let init = VirtualEntry { mode: 0o555, one_shot: true, content: VirtualEntryContent::File { data: agent } };
    FsDeviceConfig {
        fs_id: ROOT_TAG.to_owned(),
        shared_dir: Some(path::ROOT.to_owned()),
        semantics: PermissionSemantics::LinuxComplete,
        shm_size: None,
        read_only: false,
        virtual_entries: vec![VirtualDirEntry { name: machine::INIT_NAME.to_owned(), entry: init }],
    }
}

/// Clients reach the agent; the agent reaches its runtime; nothing else goes through.
fn sockets() -> VsockDeviceConfig {
    let ports = HashMap::from([
        (machine::AGENT_PORT, (PathBuf::from(path::AGENT_SOCKET), true)),
        (machine::CONTROL_PORT, (PathBuf::from(path::CONTROL_SOCKET), false)),
    ]);
    VsockDeviceConfig {
        vsock_id: "vsock0".to_owned(),
        guest_cid: machine::GUEST_CID,
        host_port_map: None,
        unix_ipc_port_map: Some(ports),
        tsi_flags: TsiFlags::empty(),
    }
}

/// Panics and power-offs end the machine at once (`panic=-1`, `reboot=k`); devices that it does not have are not looked
/// for. Kernel documentation: admin-guide/kernel-parameters.
fn command_line() -> String {
    [
        "reboot=k panic=-1 panic_print=0 nomodule console=ttyS0 quiet no-kvmapf",
        "rootfstype=virtiofs rw",
        "i8042.noaux i8042.nomux i8042.dumbkbd",
        &format!("init=/{} -- {}", machine::INIT_NAME.to_string_lossy(), machine::INIT_ARGUMENT),
    ]
    .join(" ")
}

/// The loop that serves the machine's devices.
pub fn events() -> Result<EventManager, String> {
    EventManager::new().map_err(|error| format!("{error:?}"))
}

/// A machine whose processors have been started.
pub struct Machine {
    _vmm: Arc<Mutex<Vmm>>,
    /// Kept open: device threads write to the other end.
    _messages: Receiver<WorkerMessage>,
}

/// Builds it and lets its processors go.
pub fn build(resources: &VmResources, events: &mut EventManager) -> Result<Machine, String> {
    let (sender, messages) = crossbeam_channel::unbounded();
    let vmm = build_microvm(resources, events, None, sender).map_err(|error| error.to_string())?;
    Ok(Machine { _vmm: vmm, _messages: messages })
}

/// Serves the machine. libkrun ends the process with the guest.
pub fn run(_machine: Machine, mut events: EventManager) -> Result<std::convert::Infallible, String> {
    loop {
        events.run().map_err(|error| format!("{error:?}"))?;
    }
}
