//! From a configuration to a machine.

use std::sync::Arc;

use super::devices;
use super::platform::Platform;
use super::{Machine, Shared, Window};
use crate::config::VmConfig;
use crate::console::ConsoleOutput;
use crate::event_loop::Waker;
use crate::kernel::{KernelError, KernelImage, load_initrd};
use crate::kvm::{self, KvmError};
use crate::memory::{GuestRam, MemoryError};
use crate::timeline::Phase;
use crate::vcpu_thread::VcpuThreads;
use ::devices::BusError;
use boot::acpi::{self, DeviceNode};
use boot::{BootRequest, EntryState, mp_table};
use vm_memory::GuestMemoryError;

/// A machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// KVM refused the VM.
    #[error(transparent)]
    Vm(Arc<KvmError>),
    /// There is no memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The size of the memory is impossible.
    #[error(transparent)]
    Layout(#[from] boot::LayoutError),
    /// The kernel or initrd cannot be booted.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The boot structures cannot be written.
    #[error("cannot prepare the kernel's entry")]
    Boot(#[from] boot::BootError),
    /// The ACPI tables cannot be written.
    #[error("cannot write the ACPI tables")]
    Acpi(#[from] acpi::AcpiError),
    /// The host refuses what a device stands for.
    #[error(transparent)]
    Device(#[from] devices::OpenError),
    /// The MP table cannot be written.
    #[error("cannot write the MP table")]
    MpTable(#[source] GuestMemoryError),
    /// The command line has no room for the devices.
    #[error("--virtio-cmdline")]
    Cmdline(#[from] boot::CmdlineError),
    /// Two devices claim one address.
    #[error("cannot place a device")]
    Bus(#[from] BusError),
    /// The host refused a thread, a descriptor or a signal handler.
    #[error("cannot set up the vCPU threads")]
    Host(#[from] std::io::Error),
}

/// Builds the machine; it is [`Created`](super::Lifecycle::Created) then. `wake` rouses the event loop.
///
/// The kernel file is looked at first, since a wrong file is the likeliest mistake and needs no KVM. The vCPU threads
/// create the VM and their CPUs while this thread copies the kernel. One that fails in this ends the machine: see
/// [`Machine::ending`].
pub fn build(
    config: &VmConfig,
    console: Arc<ConsoleOutput>,
    shared: Arc<Shared>,
) -> Result<Machine, BuildError> {
    let timeline = Arc::clone(&shared.timeline);
    let mut image = KernelImage::open(&config.kernel)?;
    let virtio = devices::open(config, shared.confines())?;

    let kvm = Arc::new(kvm::open()?);
    let cpus = config.cpus.get();
    kvm::check_vcpus(&kvm, cpus)?;
    kvm::install_kick_handler()?;
    timeline.mark(Phase::KvmOpen);

    let regions = config.memory.regions()?;
    let ram = Arc::new(GuestRam::map(&regions, config.backing, config.prefault)?);
    timeline.mark(Phase::Memory);

    let threads = VcpuThreads::spawn(&kvm, &ram, &shared, cpus)?;
    threads.set_cpuid(kvm::supported_cpuid(&kvm)?);
    shared.learn_host();

    let windows: Vec<Window> = virtio.iter().map(|&(window, _)| window).collect();
    let entry = load_guest(config, &mut image, &ram, &windows)?;
    timeline.mark(Phase::KernelLoaded);

    let io_wakers = (0..config.io_threads).map(|_| Waker::new()).collect::<Result<Vec<_>, _>>()?;
    let waker = |window: Window| match window.index().checked_rem(io_wakers.len()) {
        Some(thread) => io_wakers[thread].clone(),
        None => shared.waker().clone(),
    };
    let vm = threads.vm().map_err(BuildError::Vm)?;
    let platform = Platform::assemble(&vm, console, virtio, shared.waker().clone(), waker)?;
    timeline.mark(Phase::Devices);

    Ok(Machine::new(shared, platform, entry, threads, io_wakers))
}

/// Fills guest RAM: kernel, initrd, ACPI tables, and what the boot protocol asks for.
fn load_guest(
    config: &VmConfig,
    image: &mut KernelImage,
    ram: &GuestRam,
    windows: &[Window],
) -> Result<EntryState, BuildError> {
    let memory = ram.memory();
    let regions = config.memory.regions()?;
    image.load(ram)?;
    let initrd = match &config.initrd {
        Some(path) => Some(load_initrd(path, image.plan(), &regions, memory)?),
        None => None,
    };
    let nodes: Vec<DeviceNode> = windows.iter().map(|window| window.acpi_node()).collect();
    let rsdp = acpi::write(memory, config.cpus.get(), &nodes)?;
    let mut cmdline = config.cmdline.clone();
    if config.virtio_cmdline {
        mp_table::write(memory, config.cpus.get()).map_err(BuildError::MpTable)?;
        for window in windows {
            cmdline = cmdline.with(&window.kernel_argument())?;
        }
    }
    let request = BootRequest {
        cmdline: &cmdline,
        initrd,
        ram: &regions,
        protocol: image.protocol(config.protocol),
        rsdp,
    };
    Ok(boot::enter(memory, image.plan(), &request)?)
}
