//! `boot_params`, the "zero page" of the Linux 64-bit boot protocol.
//!
//! Linux, Documentation/arch/x86/boot.rst and zero-page.rst.

use linux_loader::bootparam::{CAN_USE_HEAP, LOADED_HIGH, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};

use crate::memory_map::{self, Kind};
use crate::{BootRequest, CMDLINE_MAX, SetupHeader, layout};

const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS".
const MAGIC: u32 = 0x5372_6448;
/// The protocol of a header that no image brought: the first with the 64-bit entry and `ext_` fields.
const VERSION: u16 = 0x020c;
/// type_of_loader: no registered number.
const LOADER_UNDEFINED: u8 = 0xff;
/// Where x86-64 kernels are aligned; decompressors alone look at it.
const KERNEL_ALIGNMENT: u32 = 0x100_0000;

/// e820 types.
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Writes the page. A bzImage that unpacks itself brings its own header; a vmlinux gets one made up, since its
/// code reads a few of the fields whatever loaded it.
pub(crate) fn write_boot_params<M: GuestMemory>(
    mem: &M,
    header: Option<&SetupHeader>,
    request: &BootRequest<'_>,
) -> Result<(), GuestMemoryError> {
    let mut params =
        boot_params { hdr: header.map_or_else(vmlinux_header, SetupHeader::raw), ..Default::default() };

    // Only what was reserved for us in the header; zero is right for the rest.
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    // No real-mode code runs, so there is no heap for it.
    params.hdr.loadflags &= !CAN_USE_HEAP;
    params.hdr.cmd_line_ptr = layout::CMDLINE_START as u32;
    if let Some(initrd) = request.initrd {
        let (address, size) = (initrd.address.0, initrd.size);
        params.hdr.ramdisk_image = address as u32;
        params.ext_ramdisk_image = (address >> 32) as u32;
        params.hdr.ramdisk_size = size as u32;
        params.ext_ramdisk_size = (size >> 32) as u32;
    }
    params.acpi_rsdp_addr = request.rsdp.0;

    for (slot, entry) in params.e820_table.iter_mut().zip(memory_map::entries(request.ram)) {
        slot.addr = entry.start;
        slot.size = entry.size;
        slot.r#type = match entry.kind {
            Kind::Ram => E820_RAM,
            Kind::Reserved => E820_RESERVED,
        };
        params.e820_entries += 1;
    }
    mem.write_obj(params, GuestAddress(layout::BOOT_PARAMS))
}

fn vmlinux_header() -> setup_header {
    setup_header {
        boot_flag: BOOT_FLAG,
        header: MAGIC,
        version: VERSION,
        loadflags: LOADED_HIGH,
        kernel_alignment: KERNEL_ALIGNMENT,
        cmdline_size: CMDLINE_MAX as u32,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
