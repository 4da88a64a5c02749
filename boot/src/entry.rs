//! The last step before a guest runs: what the boot protocol wants in memory and in the registers of vCPU 0.

use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryError};

use crate::gdt::{self, DescriptorTable, Segments};
use crate::{Cmdline, Initrd, Kernel, RamRegions, layout, linux, page_tables, pvh};

/// CR0: protection enabled, extension type (always 1), paging. Intel SDM volume 3A, 2.5.
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
/// CR4: physical address extension.
const CR4_PAE: u64 = 1 << 5;
/// EFER: long mode enabled, and active. Intel SDM volume 3A, 2.2.1.
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// RFLAGS: bit 1 is always set; interrupts are off, as both protocols want.
const RFLAGS_FIXED: u64 = 1 << 1;

/// Why a guest cannot be entered.
#[derive(Debug, Error)]
pub enum BootError {
    /// The kernel lacks the entry that was asked for.
    #[error("the kernel image has no {0} entry: let the protocol be chosen, or use another image")]
    NoEntry(&'static str),
    /// The kernel's own limit is lower than Linux's usual one.
    #[error("the kernel command line is {length} bytes long: this kernel takes {max} at most, shorten it")]
    CmdlineTooLong {
        /// Its length in bytes.
        length: usize,
        /// The kernel's limit.
        max: usize,
    },
    /// The initrd is not where RAM is.
    #[error("the initrd of {size} bytes at {address:#x} is outside RAM")]
    InitrdOutsideRam {
        /// Its place.
        address: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Guest memory does not have the RAM that was described.
    #[error("the boot structures could not be written to guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// PVH where the image has the note, else the 64-bit entry.
    #[default]
    Auto,
    /// The Linux 64-bit boot protocol: long mode, identity-mapped, RSI points to `boot_params`.
    Linux64,
    /// PVH: 32-bit protected mode without paging, EBX points to `hvm_start_info`.
    Pvh,
}

/// Everything that a guest is told when it starts.
#[derive(Debug, Clone, Copy)]
pub struct BootRequest<'a> {
    /// The kernel command line.
    pub cmdline: &'a Cmdline,
    /// Where the initrd was loaded, if there is one.
    pub initrd: Option<Initrd>,
    /// The machine's RAM.
    pub ram: &'a RamRegions,
    /// How to enter.
    pub protocol: Protocol,
    /// Where the ACPI tables start, as [`acpi::write`](crate::acpi::write) returned it.
    pub rsdp: GuestAddress,
}

/// General registers; those that are not listed are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// The first instruction.
    pub rip: u64,
    /// A stack of a few KiB.
    pub rsp: u64,
    /// `boot_params`, for Linux.
    pub rsi: u64,
    /// `hvm_start_info`, for PVH.
    pub rbx: u64,
    /// Interrupts off.
    pub rflags: u64,
}

/// Control registers and EFER, whole values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
}

/// The state in which vCPU 0 starts. The other vCPUs wait for their start-up IPI and need none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryState {
    /// The protocol that was chosen, never [`Protocol::Auto`].
    pub protocol: Protocol,
    /// General registers.
    pub registers: Registers,
    /// Paging and mode.
    pub control: ControlRegisters,
    /// Segment registers.
    pub segments: Segments,
    /// GDTR.
    pub gdt: DescriptorTable,
    /// IDTR: empty, as interrupts are off until the kernel has its own.
    pub idt: DescriptorTable,
}

/// Writes the structures of the boot protocol and returns the state to enter `kernel` with.
///
/// # Errors
/// [`BootError`] if the kernel has no such entry, or the request does not fit the machine.
pub fn enter<M: GuestMemory>(
    mem: &M,
    kernel: &Kernel,
    request: &BootRequest<'_>,
) -> Result<EntryState, BootError> {
    check(kernel, request)?;
    request.cmdline.write(mem)?;
    match (request.protocol, kernel.pvh_entry(), kernel.entry64()) {
        (Protocol::Auto | Protocol::Pvh, Some(entry), _) => enter_pvh(mem, entry, request),
        (Protocol::Auto | Protocol::Linux64, _, Some(entry)) => enter_linux(mem, entry, kernel, request),
        (Protocol::Pvh, None, _) => Err(BootError::NoEntry("PVH")),
        (Protocol::Auto | Protocol::Linux64, _, None) => Err(BootError::NoEntry("64-bit")),
    }
}

fn check(kernel: &Kernel, request: &BootRequest<'_>) -> Result<(), BootError> {
    let length = request.cmdline.len();
    if let Some(max) = kernel.cmdline_max().filter(|max| length > *max) {
        return Err(BootError::CmdlineTooLong { length, max });
    }
    if let Some(Initrd { address, size }) = request.initrd
        && !request.ram.contains(address.0, size)
    {
        return Err(BootError::InitrdOutsideRam { address: address.0, size });
    }
    Ok(())
}

fn enter_linux<M: GuestMemory>(
    mem: &M,
    entry: u64,
    kernel: &Kernel,
    request: &BootRequest<'_>,
) -> Result<EntryState, BootError> {
    linux::write_boot_params(mem, kernel.setup_header(), request)?;
    let control = ControlRegisters {
        cr0: CR0_PE | CR0_ET | CR0_PG,
        cr3: page_tables::write(mem, kernel.end())?,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
    };
    let registers = Registers {
        rip: entry,
        rsp: layout::STACK_TOP,
        rsi: layout::BOOT_PARAMS,
        rbx: 0,
        rflags: RFLAGS_FIXED,
    };
    finish(mem, Protocol::Linux64, registers, control, Segments::LONG)
}

fn enter_pvh<M: GuestMemory>(
    mem: &M,
    entry: u32,
    request: &BootRequest<'_>,
) -> Result<EntryState, BootError> {
    pvh::write_start_info(mem, request)?;
    let control = ControlRegisters { cr0: CR0_PE | CR0_ET, cr3: 0, cr4: 0, efer: 0 };
    let registers = Registers {
        rip: u64::from(entry),
        rsp: layout::STACK_TOP,
        rsi: 0,
        rbx: layout::PVH_START_INFO,
        rflags: RFLAGS_FIXED,
    };
    finish(mem, Protocol::Pvh, registers, control, Segments::PROTECTED)
}

fn finish<M: GuestMemory>(
    mem: &M,
    protocol: Protocol,
    registers: Registers,
    control: ControlRegisters,
    segments: Segments,
) -> Result<EntryState, BootError> {
    let gdt = gdt::write(mem, &segments)?;
    let idt = DescriptorTable { base: 0, limit: 0 };
    Ok(EntryState { protocol, registers, control, segments, gdt, idt })
}

#[cfg(test)]
mod tests;
