//! The guest-physical map: the only file with guest addresses, port numbers and interrupt numbers, each with its
//! reason.
//!
//! ```text
//! 0x0000_0000  RAM: zero page (left alone), boot data, page tables, then free
//! 0x0009_fc00  reserved: where a PC has its EBDA, VGA window and ROMs; the ACPI tables lie at 0xe0000
//! 0x0010_0000  RAM: the kernel, the initrd as high as possible
//! 0xc000_0000  MMIO gap: virtio windows, IOAPIC, local APIC, KVM's private pages
//! 0x1_0000_0000  RAM again, where the machine has more than 3 GiB
//! ```

use thiserror::Error;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The unit of everything that is mapped.
pub const PAGE_SIZE: u64 = 4 * KIB;

// --- RAM ---------------------------------------------------------------------------------------------------------

/// The least RAM a machine can have. A Linux kernel is linked at 16 MiB, so this is what the smallest other guests
/// need, not a promise that Linux fits.
pub const RAM_MIN: u64 = 16 * MIB;
/// Nothing guest-physical lies at or above this: 39 bits are what every processor with nested paging can address, and
/// one top-level page-table entry covers. A host may have fewer; whoever makes the machine checks that.
pub const PHYSICAL_LIMIT: u64 = 1 << 39;
/// The most RAM a machine can have: everything below [`PHYSICAL_LIMIT`] but the MMIO gap.
pub const RAM_MAX: u64 = PHYSICAL_LIMIT - (HIGH_RAM_START - MMIO_GAP_START);
/// Low RAM ends here at the latest. The gap is 1 GiB wide, so that RAM on both sides is mapped by whole 1 GiB pages
/// on hosts that have them.
pub const MMIO_GAP_START: u64 = 3 * GIB;
/// RAM that does not fit below the gap continues here, at the first address that needs more than 32 bits.
pub const HIGH_RAM_START: u64 = 4 * GIB;

// --- Below 1 MiB: boot's own structures ---------------------------------------------------------------------------
// Linux takes page 0 for the BIOS's and reserves it, so nothing of ours is there. Everything small shares one page,
// because the first touch of each page of fresh memory is a page fault on the host.

/// The page of small structures: GDT, PVH start-of-day records, command line.
pub const BOOT_DATA_START: u64 = 0x6000;
/// Global descriptor table: six entries of 8 bytes.
pub const GDT_START: u64 = BOOT_DATA_START;
/// PVH `hvm_start_info`, 56 bytes.
pub const PVH_START_INFO: u64 = BOOT_DATA_START + 0x40;
/// PVH module list: one entry of 32 bytes, the initrd.
pub const PVH_MODULES: u64 = BOOT_DATA_START + 0x80;
/// PVH memory map: at most four entries of 24 bytes.
pub const PVH_MEMORY_MAP: u64 = BOOT_DATA_START + 0xa0;
/// The kernel command line and its NUL.
pub const CMDLINE_START: u64 = BOOT_DATA_START + 0x800;
/// Room for the command line with its NUL: `COMMAND_LINE_SIZE` of Linux on x86.
pub const CMDLINE_ROOM: u64 = 0x800;
/// Linux `boot_params` (the "zero page"), one page.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Initial stack pointer: 16-byte aligned, with the page 0x8000 below it. Linux sets its own at once.
pub const STACK_TOP: u64 = 0x8ff0;
/// Top-level page table of the identity map.
pub const PML4: u64 = 0x9000;
/// Page-directory-pointer table of the identity map.
pub const PDPT: u64 = 0xa000;
/// Page directories of the identity map: one per GiB below the gap, at most three.
pub const PAGE_DIRECTORIES: u64 = 0xb000;
/// How many page directories there is room for.
pub const PAGE_DIRECTORY_COUNT: u64 = MMIO_GAP_START / GIB;

/// RAM ends here below 1 MiB: a PC has its extended BIOS data area at 639 KiB, and Linux assumes one.
pub const LOW_RESERVED_START: u64 = 0x9_fc00;
/// ACPI tables, the RSDP first: the lowest address at which a kernel that is not told where it is scans for it
/// (ACPI 6.5, 5.2.5.1).
pub const ACPI_START: u64 = 0xe_0000;
/// The ACPI tables end here at the latest.
pub const ACPI_END: u64 = MP_TABLE;
/// Where a kernel without ACPI finds the machine's description, one page: in the 64 KiB that it searches (MultiProcessor
/// Specification 1.4, section 4).
pub const MP_TABLE: u64 = RESET_VECTOR - RESET_VECTOR % PAGE_SIZE - PAGE_SIZE;
/// Where a PC's firmware starts after a reset, seen from real mode (FFFF:0000). A kernel that knows no other way to
/// reset the machine jumps there; it finds a few instructions that use the reset register.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Kernels lie at or above 1 MiB: everything below is boot's.
pub const KERNEL_START: u64 = MIB;

// --- The MMIO gap ------------------------------------------------------------------------------------------------

/// First window of the virtio-mmio transport.
pub const VIRTIO_MMIO_START: u64 = 0xd000_0000;
/// Size of one virtio-mmio window: a page, so that each can be mapped or trapped by itself.
pub const VIRTIO_MMIO_SIZE: u64 = PAGE_SIZE;
/// Room for this many virtio-mmio windows.
pub const VIRTIO_MMIO_COUNT: u64 = 0x1000;
/// IOAPIC: where every PC has it, and where KVM's in-kernel model is fixed.
pub const IOAPIC_START: u64 = 0xfec0_0000;
/// Local APIC: the reset value of IA32_APIC_BASE.
pub const LAPIC_START: u64 = 0xfee0_0000;
/// One page for KVM_SET_IDENTITY_MAP_ADDR: real mode on Intel hosts without unrestricted guests. Above the devices, in
/// the gap, below where a PC has its flash.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for KVM_SET_TSS_ADDR, for the same hosts.
pub const KVM_TSS: u64 = 0xfffb_d000;

// --- Ports -------------------------------------------------------------------------------------------------------

/// First serial port (a PC's COM1, Linux's ttyS0).
pub const COM1_PORT: u16 = 0x3f8;
/// A 16550 has eight registers.
pub const COM1_PORT_COUNT: u16 = 8;
/// Keyboard controller: data at 0x60, command and status at 0x64; only its reset command matters here.
pub const I8042_PORT: u16 = 0x60;
/// From the data to the command register.
pub const I8042_PORT_COUNT: u16 = 5;
/// CMOS clock: index at 0x70, data at 0x71.
pub const RTC_PORT: u16 = 0x70;
/// Index and data.
pub const RTC_PORT_COUNT: u16 = 2;
/// pvpanic: the port QEMU gives it; guests read the address from the DSDT.
pub const PVPANIC_PORT: u16 = 0x505;
/// One register.
pub const PVPANIC_PORT_COUNT: u16 = 1;
/// Debug port: a job's status (the port of QEMU's isa-debug-exit), then the READY marker.
pub const DEBUG_PORT: u16 = 0xf4;
/// Status and marker.
pub const DEBUG_PORT_COUNT: u16 = 2;
/// ACPI sleep control register; the block is where QEMU's and other hypervisors' power blocks are, clear of ISA.
pub const ACPI_SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register.
pub const ACPI_SLEEP_STATUS_PORT: u16 = 0x601;
/// ACPI reset register.
pub const ACPI_RESET_PORT: u16 = 0x602;
/// Sleep control, sleep status, reset.
pub const ACPI_PORT_COUNT: u16 = 3;

// --- Interrupts --------------------------------------------------------------------------------------------------

/// Inputs of the IOAPIC, numbered from GSI 0.
pub const IOAPIC_PINS: u32 = 24;
/// COM1's line on every PC; drivers that do not read ACPI assume it.
pub const COM1_GSI: u32 = 4;
/// ACPI's generic event device: a PC's SCI line, which no ISA device uses.
pub const GED_GSI: u32 = 9;
/// Lines for virtio devices, in the order in which they are given out: first those above a PC's sixteen ISA ones, then
/// the ISA lines that nothing here uses. Devices beyond these share them.
pub const VIRTIO_GSIS: [u32; 17] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 12, 14, 15, 3];

// --- What the guest writes ---------------------------------------------------------------------------------------

/// SLP_TYP of the soft-off state in `\_S5`, which the guest writes to the sleep control register.
pub const ACPI_SLEEP_TYPE_S5: u8 = 5;
/// What the guest writes to the reset register to reset the machine.
pub const ACPI_RESET_VALUE: u8 = 1;

/// Why a machine cannot have this much RAM.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum LayoutError {
    /// Below [`RAM_MIN`].
    #[error("a machine cannot have {size} bytes of RAM: give it at least 16 MiB")]
    TooSmall {
        /// Bytes asked for.
        size: u64,
    },
    /// Above [`RAM_MAX`].
    #[error("a machine cannot have {size} bytes of RAM: 511 GiB is the most its 39 address bits hold")]
    TooLarge {
        /// Bytes asked for.
        size: u64,
    },
    /// Not a whole number of pages.
    #[error("{size} bytes of RAM are not a whole number of 4 KiB pages: round the size")]
    Unaligned {
        /// Bytes asked for.
        size: u64,
    },
}

/// One range of guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRegion {
    /// First address.
    pub start: u64,
    /// Length in bytes, never 0.
    pub size: u64,
}

impl RamRegion {
    /// The first address behind the region.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// A machine's RAM: one range from 0, and a second from 4 GiB where it is larger than 3 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRegions {
    low: u64,
    high: u64,
}

/// Lays out `size` bytes of RAM around the MMIO gap.
///
/// # Errors
/// [`LayoutError`] if the size is below 16 MiB, above 511 GiB or not a multiple of 4 KiB.
pub fn ram_regions(size: u64) -> Result<RamRegions, LayoutError> {
    if size < RAM_MIN {
        return Err(LayoutError::TooSmall { size });
    }
    if size > RAM_MAX {
        return Err(LayoutError::TooLarge { size });
    }
    if !size.is_multiple_of(PAGE_SIZE) {
        return Err(LayoutError::Unaligned { size });
    }
    let low = size.min(MMIO_GAP_START);
    Ok(RamRegions { low, high: size - low })
}

impl RamRegions {
    /// The ranges, lowest first: one or two.
    pub fn iter(&self) -> impl Iterator<Item = RamRegion> + use<> {
        let low = RamRegion { start: 0, size: self.low };
        let high = RamRegion { start: HIGH_RAM_START, size: self.high };
        [low, high].into_iter().filter(|region| region.size > 0)
    }

    /// The range that starts at 0.
    pub fn low(&self) -> RamRegion {
        RamRegion { start: 0, size: self.low }
    }

    /// Bytes of RAM in all.
    pub fn total(&self) -> u64 {
        self.low + self.high
    }

    /// Whether `size` bytes from `start` all lie in one range of RAM.
    pub fn contains(&self, start: u64, size: u64) -> bool {
        self.iter().any(|region| {
            start >= region.start && start.checked_add(size).is_some_and(|end| end <= region.end())
        })
    }
}

#[cfg(test)]
mod tests;
