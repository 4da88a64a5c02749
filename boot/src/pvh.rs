//! `hvm_start_info` and the tables it points to, for the PVH protocol.
//!
//! Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.

use linux_loader::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry,
    hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};

use crate::memory_map::{self, Kind};
use crate::{BootRequest, layout};

/// The first version with a memory map.
const VERSION: u32 = 1;

/// Writes the structures.
pub(crate) fn write_start_info<M: GuestMemory>(
    mem: &M,
    request: &BootRequest<'_>,
) -> Result<(), GuestMemoryError> {
    let mut info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        cmdline_paddr: layout::CMDLINE_START,
        rsdp_paddr: request.rsdp.0,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        ..Default::default()
    };
    if let Some(initrd) = request.initrd {
        let module = hvm_modlist_entry { paddr: initrd.address.0, size: initrd.size, ..Default::default() };
        mem.write_obj(module, GuestAddress(layout::PVH_MODULES))?;
        info.modlist_paddr = layout::PVH_MODULES;
        info.nr_modules = 1;
    }
    let mut at = GuestAddress(layout::PVH_MEMORY_MAP);
    for entry in memory_map::entries(request.ram) {
        let type_ = match entry.kind {
            Kind::Ram => XEN_HVM_MEMMAP_TYPE_RAM,
            Kind::Reserved => XEN_HVM_MEMMAP_TYPE_RESERVED,
        };
        mem.write_obj(
            hvm_memmap_table_entry { addr: entry.start, size: entry.size, type_, reserved: 0 },
            at,
        )?;
        at.0 += size_of::<hvm_memmap_table_entry>() as u64;
        info.memmap_entries += 1;
    }
    mem.write_obj(info, GuestAddress(layout::PVH_START_INFO))
}

#[cfg(test)]
mod tests;
