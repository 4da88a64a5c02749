//! One virtual CPU: its set-up, KVM_RUN, and what it looked like when it crashed.

use std::io;

use boot::EntryState;
use kvm_bindings::CpuId;
use kvm_ioctls::VcpuFd;

use super::cpuid::{self, Position};
use super::exit::{self, VmExit};
use super::kick::Armed;
use super::{KvmError, ioctl, msr, regs};

/// A virtual CPU, to be used on one thread.
pub struct Vcpu {
    fd: VcpuFd,
    mapping_size: usize,
}

impl Vcpu {
    pub(super) fn new(
        fd: VcpuFd,
        mapping_size: usize,
        supported: &CpuId,
        position: Position,
    ) -> Result<Self, KvmError> {
        // A KVM that cannot tell the frequency costs the guest a calibration, nothing more.
        let tsc_khz = fd.get_tsc_khz().ok().filter(|&khz| khz != 0);
        let cpuid = cpuid::for_vcpu(supported, position, tsc_khz);
        fd.set_cpuid2(&cpuid).map_err(ioctl("KVM_SET_CPUID2"))?;
        msr::set_boot_msrs(&fd)?;
        // The local APIC needs nothing: KVM's reset state already has LINT0 as ExtINT on the boot CPU, and a
        // hardware-reduced ACPI machine has no 8259 behind it.
        Ok(Self { fd, mapping_size })
    }

    /// Loads the registers with which the boot CPU starts. The others wait for INIT and SIPI from the guest.
    pub fn enter_at(&self, entry: &EntryState) -> Result<(), KvmError> {
        regs::load(&self.fd, entry)
    }

    /// Lets kicks to the calling thread reach this CPU until the result is dropped.
    pub(crate) fn arm(&mut self) -> Armed {
        Armed::new(self.fd.get_kvm_run())
    }

    /// Runs the guest until it needs us.
    pub fn run(&mut self) -> io::Result<VmExit<'_>> {
        if let Err(error) = self.fd.run() {
            return match error.errno() {
                // EAGAIN: a CPU that waited for its INIT was woken for something else.
                libc::EINTR | libc::EAGAIN => Ok(VmExit::Interrupted),
                other => Err(io::Error::from_raw_os_error(other)),
            };
        }
        Ok(exit::decode(self.fd.get_kvm_run(), self.mapping_size))
    }

    /// Tells a guest with kvmclock that it was stopped, so that its watchdogs hold their peace.
    pub fn note_pause(&self) {
        // EINVAL where the guest does not use kvmclock: then there is nobody to tell.
        let _ = self.fd.kvmclock_ctrl();
    }

    /// Where the guest stands; for the message about a crash.
    pub fn crash_site(&self) -> Option<CrashSite> {
        let registers = self.fd.get_regs().ok()?;
        let special = self.fd.get_sregs().ok()?;
        let translation = self.fd.translate_gva(registers.rip).ok();
        Some(CrashSite {
            rip: registers.rip,
            ring: special.cs.dpl,
            cr3: special.cr3,
            physical_rip: translation.filter(|t| t.valid != 0).map(|t| t.physical_address),
        })
    }
}

/// Where a guest stood when it crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashSite {
    /// Instruction pointer.
    pub rip: u64,
    /// Privilege level of the code segment.
    pub ring: u8,
    /// Page-table root.
    pub cr3: u64,
    /// Guest-physical address of the instruction, where its page is mapped.
    pub physical_rip: Option<u64>,
}
