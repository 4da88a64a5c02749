//! From a configuration to a machine.

use std::sync::Arc;

use super::platform::Platform;
use super::{Machine, Shared};
use crate::config::VmConfig;
use crate::console::ConsoleOutput;
use crate::kernel::{KernelError, KernelImage, load_initrd};
use crate::kvm::{self, KvmError};
use crate::memory::{GuestRam, MemoryError};
use crate::timeline::Phase;
use crate::vcpu_thread::{Program, VcpuThreads};
use boot::{BootRequest, EntryState, acpi};
use devices::BusError;

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

    let entry = load_guest(config, &mut image, &ram)?;
    timeline.mark(Phase::KernelLoaded);

    let platform = Platform::assemble(&threads.vm().map_err(BuildError::Vm)?, console)?;
    timeline.mark(Phase::Devices);

    let program = Program { entry, buses: platform.buses };
    Ok(Machine::new(shared, platform.serial, platform.power_button, program, threads))
}

/// Fills guest RAM: kernel, initrd, ACPI tables, and what the boot protocol asks for.
fn load_guest(config: &VmConfig, image: &mut KernelImage, ram: &GuestRam) -> Result<EntryState, BuildError> {
    let memory = ram.memory();
    let regions = config.memory.regions()?;
    image.load(memory)?;
    let initrd = match &config.initrd {
        Some(path) => Some(load_initrd(path, image.plan(), &regions, memory)?),
        None => None,
    };
    let rsdp = acpi::write(memory, config.cpus.get(), &[])?;
    let request = BootRequest {
        cmdline: &config.cmdline,
        initrd,
        ram: &regions,
        protocol: image.protocol(config.protocol),
        rsdp,
    };
    Ok(boot::enter(memory, image.plan(), &request)?)
}
