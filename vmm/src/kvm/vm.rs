//! One virtual machine: its memory slots, its interrupt controller, its interrupt lines.
//!
//! The order of the calls is measured, not a matter of taste: each in-kernel device registers itself on KVM's
//! buses, and a memory slot or virtual CPU that comes after may wait for an SRCU grace period, some 4 ms. So: memory slots, then the interrupt controller, then virtual CPUs; ioeventfds and
//! irqfds, where a device wants them, come last.
#![expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION hands the guest our address space")]

use std::io;
use std::sync::Arc;

use boot::layout;
use kvm_bindings::{CpuId, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, VmFd};

use super::{KvmError, Signal, Vcpu, cpuid, ioctl};
use crate::memory::GuestRam;

/// A virtual machine: memory and interrupt controller, no virtual CPU yet.
pub struct Vm {
    fd: VmFd,
    // Last, so that the guest's RAM is unmapped after the descriptor is closed.
    ram: Arc<GuestRam>,
}

impl Vm {
    /// Creates the machine around its RAM.
    pub fn create(kvm: &Kvm, ram: Arc<GuestRam>) -> Result<Self, KvmError> {
        let fd = create_vm(kvm)?;
        if cpuid::host_is_intel() {
            // VT-x without "unrestricted guest" runs real mode as virtual-8086 and needs three pages for that
            // (KVM API 4.16 and 4.9x: the identity map goes first, both before the first vCPU).
            fd.set_identity_map_address(layout::KVM_IDENTITY_MAP)
                .map_err(ioctl("KVM_SET_IDENTITY_MAP_ADDR"))?;
            let tss = usize::try_from(layout::KVM_TSS).unwrap_or(usize::MAX);
            fd.set_tss_address(tss).map_err(ioctl("KVM_SET_TSS_ADDR"))?;
        }
        for (slot, region) in (0..).zip(ram.slots()) {
            let region = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: region.guest_address,
                memory_size: region.size,
                userspace_addr: region.host_address,
                flags: 0,
            };
            // SAFETY: the slots do not overlap (they are distinct ranges of one layout), and the mapping behind them
            // lives in `ram`, which self keeps until the descriptor is closed.
            unsafe { fd.set_user_memory_region(region) }.map_err(ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        }
        fd.create_irq_chip().map_err(ioctl("KVM_CREATE_IRQCHIP"))?;
        Ok(Self { fd, ram })
    }

    /// The machine's memory.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Sets the level of an input of the interrupt controller.
    pub fn set_irq_line(&self, gsi: u32, level: bool) -> io::Result<()> {
        self.fd.set_irq_line(gsi, level).map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }

    /// Lets each write to `irqfd` pulse an input of the interrupt controller.
    pub fn register_irqfd(&self, irqfd: &Signal, gsi: u32) -> Result<(), KvmError> {
        self.fd.register_irqfd(irqfd.event(), gsi).map_err(ioctl("KVM_IRQFD"))
    }

    /// Turns a guest's 32-bit write of `value` to `address` into a signal on `doorbell`: the vCPU does not leave the kernel.
    pub fn register_doorbell(&self, doorbell: &Signal, address: u64, value: u32) -> Result<(), KvmError> {
        self.fd
            .register_ioevent(doorbell.event(), &IoEventAddress::Mmio(address), value)
            .map_err(ioctl("KVM_IOEVENTFD"))
    }

    /// Creates virtual CPU `id` of `cpus`. `supported` returns what [`supported_cpuid`](super::supported_cpuid) did, and
    /// may wait for it; where it has nothing, there is no virtual CPU. To be called on the thread that will run it (KVM
    /// API, section 2).
    pub fn create_vcpu<'a>(
        &self,
        id: u8,
        cpus: u8,
        supported: impl FnOnce() -> Option<&'a CpuId>,
    ) -> Result<Option<Vcpu>, KvmError> {
        let fd = self.fd.create_vcpu(u64::from(id)).map_err(ioctl("KVM_CREATE_VCPU"))?;
        supported()
            .map(|supported| Vcpu::new(fd, self.fd.run_size(), supported, cpuid::Position { id, cpus }))
            .transpose()
    }
}

/// KVM_CREATE_VM may be interrupted by a signal; a bounded number of tries tells that from a broken host.
fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    const TRIES: usize = 16;
    let mut result = kvm.create_vm();
    for _ in 1..TRIES {
        match &result {
            Err(error) if error.errno() == libc::EINTR => result = kvm.create_vm(),
            _ => break,
        }
    }
    result.map_err(ioctl("KVM_CREATE_VM"))
}
