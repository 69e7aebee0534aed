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
use krun_vmm::resources::VmResources;
use krun_vmm::vmm_config::fs::FsDeviceConfig;
use krun_vmm::vmm_config::kernel_bundle::KernelBundle;
use krun_vmm::vmm_config::kernel_cmdline::KernelCmdlineConfig;
use krun_vmm::vmm_config::machine_config::VmConfig;
use krun_vmm::vmm_config::vsock::VsockDeviceConfig;
use microsandbox_contract::monitor::{MachineSpec, path};
use microsandbox_protocol::machine;
use vm_memory::{GuestMemory as _, GuestMemoryRegion as _};

use crate::kernel;

/// The tag of the file system that the kernel mounts as its root.
const ROOT_TAG: &str = "/dev/root";

/// Describes the machine to libkrun.
pub fn resources(spec: &MachineSpec, image: u64, agent: &'static [u8]) -> Result<VmResources, String> {
    let mut resources = VmResources::default();
    // Opened anew by libkrun; it is the pipe that the runtime reads.
    resources.set_console_output(PathBuf::from(path::CONSOLE));
    let memory = usize::try_from(spec.memory_mib).map_err(|_| "more memory than this machine can address")?;
    let shape = VmConfig {
        vcpu_count: Some(spec.cpus),
        mem_size_mib: Some(memory),
        ht_enabled: Some(false),
        cpu_template: None,
    };
    resources.set_vm_config(&shape).map_err(|error| format!("{error}"))?;
    let bundle = KernelBundle {
        host_addr: image,
        guest_addr: spec.kernel.guest_addr,
        entry_addr: spec.kernel.entry_addr,
        size: spec.kernel.size as usize,
    };
    resources.set_kernel_bundle(bundle).map_err(|error| format!("{error}"))?;
    resources.kernel_cmdline = KernelCmdlineConfig {
        prolog: Some(command_line(spec.private_files, spec.hands_over)),
        krun_env: None,
        // After the devices that libkrun lists: the rest of the line is the agent's.
        epilog: Some(format!(" -- {}", arguments(spec.hands_over))),
    };
    resources.add_fs_device(root(agent, spec.private_files.then(|| direct_window(memory))));
    resources.vsock.insert(sockets()).map_err(|error| format!("{error}"))?;
    Ok(resources)
}

/// Arguments that the kernel passes to its first process.
fn arguments(hands_over: bool) -> String {
    match hands_over {
        true => format!("{} {}", machine::INIT_ARGUMENT, machine::HANDOVER_ARGUMENT.to_string_lossy()),
        false => machine::INIT_ARGUMENT.to_owned(),
    }
}

/// Address space, in bytes, through which the guest sees pages of files in the host's page cache, without a copy of its
/// own and without asking for them at every open (DAX, kernel documentation: filesystems/fuse/dax). The window costs
/// the guest 64 bytes for each 4 KiB; a mapped file takes at least 2 MiB of the window. Only for files that no other
/// process changes: a processor that accesses a page beyond the end of a file truncated on the host hangs for good.
fn direct_window(memory_mib: usize) -> usize {
    (memory_mib.clamp(128, 1024) & !1) << 20
}

/// The root directory, and the agent in it under a name that can be looked up once: by the kernel, at boot.
fn root(agent: &'static [u8], window: Option<usize>) -> FsDeviceConfig {
    let init = VirtualEntry { mode: 0o555, one_shot: true, content: VirtualEntryContent::File { data: agent } };
    FsDeviceConfig {
        fs_id: ROOT_TAG.to_owned(),
        shared_dir: Some(path::ROOT.to_owned()),
        semantics: PermissionSemantics::LinuxComplete,
        shm_size: window,
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

/// Panics and power-offs end the machine without delay (`panic=-1`, `reboot=k`); devices that the machine does not have
/// are not probed, and drivers that no agent uses are not started. Kernel documentation:
/// admin-guide/kernel-parameters. No user logs in at the console: `systemd.getty_auto=0` keeps systemd from waiting
/// 90 seconds for it (systemd-getty-generator(8)).
fn command_line(direct: bool, hands_over: bool) -> String {
    let init = format!("init=/{}", machine::INIT_NAME.to_string_lossy());
    let flags = if direct { "rootflags=dax" } else { "" };
    let getty = if hands_over { "systemd.getty_auto=0" } else { "" };
    let skipped = format!("initcall_blacklist={}", SKIPPED.join(","));
    [
        "reboot=k panic=-1 panic_print=0 nomodule console=hvc0 quiet no-kvmapf rootfstype=virtiofs rw",
        flags,
        "random.trust_cpu=on i8042.noaux i8042.nomux i8042.dumbkbd loop.max_loop=0",
        &skipped,
        getty,
        &init,
    ]
    .join(" ")
}

/// Start-up functions of the guest kernel that cost more than they are worth: self-tests, and devices and network layers
/// that this machine does not have. What is left out shows only as a missing device or file system.
const SKIPPED: [&str; 13] = [
    "jent_mod_init",
    "virtio_rng_driver_init",
    "cpuid_init",
    "msr_init",
    "dummy_init_module",
    "calibrate_xor_blocks",
    "init_btrfs_fs",
    "can_init",
    "raw_module_init",
    "bcm_module_init",
    "cgw_module_init",
    "vxlan_init_module",
    "alsa_timer_init",
];

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
    prefer_huge_pages(&vmm);
    Ok(Machine { _vmm: vmm, _messages: messages })
}

/// Large pages behind the guest's memory halve the walks of its own page tables; where the host forbids them, nothing
/// changes.
fn prefer_huge_pages(vmm: &Arc<Mutex<Vmm>>) {
    let Ok(vmm) = vmm.lock() else { return };
    for region in vmm.guest_memory().iter() {
        let Ok(size) = usize::try_from(region.len()) else { continue };
        kernel::advise_huge(region.as_ptr(), size);
    }
}

/// Serves the machine. libkrun ends the process with the guest.
pub fn run(_machine: Machine, mut events: EventManager) -> Result<std::convert::Infallible, String> {
    loop {
        events.run().map_err(|error| format!("{error:?}"))?;
    }
}
