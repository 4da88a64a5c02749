//! What the VMM hands over: command line, memory map and ACPI root, by the Linux boot protocol (boot_params) or by PVH
//! (hvm_start_info). entry.s has the two addresses; nothing else is read before it is needed: each page that is touched costs
//! time.

use crate::memory;

/// How the program was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// At the ELF entry point, with boot_params.
    Linux,
    /// At the address of the PVH note, with hvm_start_info.
    Pvh,
}

/// boot_params, by the Linux kernel's Documentation/arch/x86/zero-page.rst and boot.rst.
mod boot_params {
    pub(super) const E820_ENTRIES: u64 = 0x1e8;
    pub(super) const E820_TABLE: u64 = 0x2d0;
    pub(super) const E820_ENTRY_SIZE: u64 = 20;
    pub(super) const E820_MAX_ENTRIES: u64 = 128;
}

/// hvm_start_info, by Xen's public/arch-x86/hvm/start_info.h.
mod start_info {
    pub(super) const VERSION: u64 = 4;
    pub(super) const MEMMAP_PADDR: u64 = 40;
    pub(super) const MEMMAP_ENTRIES: u64 = 48;
    pub(super) const MEMMAP_ENTRY_SIZE: u64 = 24;
    pub(super) const MEMMAP_MAX_ENTRIES: u64 = 128;
}

/// The longest command line that is read: Linux's own limit on x86.
pub(crate) const COMMAND_LINE_LIMIT: usize = 2048;

/// The handed-over parameters.
#[derive(Clone, Copy)]
pub(crate) struct BootInfo {
    /// How the program was entered.
    pub(crate) protocol: Protocol,
    /// The address of boot_params or hvm_start_info.
    pub(crate) parameters: u64,
    /// The address of the command line, or 0.
    pub(crate) command_line: u64,
    /// The address of the ACPI root pointer; 0 where the VMM leaves the search to the guest.
    pub(crate) rsdp: u64,
    /// entry.s has said READY already.
    pub(crate) said_ready: bool,
}

/// One range of the memory map.
#[derive(Clone, Copy, Default)]
pub(crate) struct MemoryRange {
    /// First address.
    pub(crate) start: u64,
    /// Length in bytes.
    pub(crate) size: u64,
    /// 1 is RAM; the other numbers are those of e820.
    pub(crate) kind: u32,
}

/// The ranges, copied out of the VMM's memory so that using the RAM cannot change them.
pub(crate) struct MemoryMap {
    ranges: [MemoryRange; 16],
    length: usize,
}

impl BootInfo {
    /// The protocol's name.
    pub(crate) fn protocol_name(self) -> &'static [u8] {
        match self.protocol {
            Protocol::Linux => b"linux64",
            Protocol::Pvh => b"pvh",
        }
    }

    /// Copies the command line into `buffer` and returns what it holds, cut at the buffer's length.
    pub(crate) fn command_line(self, buffer: &mut [u8; COMMAND_LINE_LIMIT]) -> &[u8] {
        let mut length = 0;
        if self.command_line != 0 {
            for (at, byte) in (self.command_line..).zip(buffer.iter_mut()) {
                *byte = memory::read_u8(at);
                if *byte == 0 {
                    break;
                }
                length += 1;
            }
        }
        buffer.get(..length).unwrap_or_default()
    }

    /// The memory map; without ranges where the VMM gave none.
    pub(crate) fn memory_map(self) -> MemoryMap {
        let (table, count, size) = match self.protocol {
            Protocol::Linux => {
                let count = u64::from(memory::read_u8(self.parameters + boot_params::E820_ENTRIES));
                let count = count.min(boot_params::E820_MAX_ENTRIES);
                (self.parameters + boot_params::E820_TABLE, count, boot_params::E820_ENTRY_SIZE)
            }
            // Version 0 of the structure ends before the memory map.
            Protocol::Pvh if memory::read_u32(self.parameters + start_info::VERSION) == 0 => (0, 0, 0),
            Protocol::Pvh => {
                let count = u64::from(memory::read_u32(self.parameters + start_info::MEMMAP_ENTRIES));
                let count = count.min(start_info::MEMMAP_MAX_ENTRIES);
                (
                    memory::read_u64(self.parameters + start_info::MEMMAP_PADDR),
                    count,
                    start_info::MEMMAP_ENTRY_SIZE,
                )
            }
        };
        let mut map = MemoryMap { ranges: [MemoryRange::default(); 16], length: 0 };
        for (index, range) in (0..count).zip(map.ranges.iter_mut()) {
            let entry = table + index * size;
            range.start = memory::read_u64(entry);
            range.size = memory::read_u64(entry + 8);
            range.kind = memory::read_u32(entry + 16);
            map.length += 1;
        }
        map
    }
}

impl MemoryMap {
    /// The ranges in the VMM's order; those past the 16th are left out.
    pub(crate) fn ranges(&self) -> &[MemoryRange] {
        self.ranges.get(..self.length).unwrap_or_default()
    }
}
