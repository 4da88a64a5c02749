//! The identity map that the 64-bit entry starts with.
//!
//! The Linux protocol wants the kernel, the zero page and the command line mapped where they are (boot.rst, "64-bit
//! BOOT PROTOCOL"); the kernel's own tables take over within its first page of code. So the map reaches from 0 to the
//! kernel's end and no further: fewer entries to write, no page touched that is not needed. The pages are 2 MiB, not
//! 1 GiB, which some KVM back ends do not offer their guests.

use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};

use crate::layout;

/// Intel SDM volume 3A, 5.5.4: present, writable, and in a page directory "this is a page".
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE_PAGE: u64 = 1 << 7;

const ENTRY_SIZE: u64 = 8;
const ENTRIES: u64 = 512;
const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Maps `0..end` onto itself, rounded up to 2 MiB, and returns the address for CR3.
///
/// `end` is at most the start of the MMIO gap, as [`Kernel::check`](crate::Kernel::check) has made sure; what lies
/// above is not mapped.
pub(crate) fn write<M: GuestMemory>(mem: &M, end: u64) -> Result<u64, GuestMemoryError> {
    let pages = end.min(layout::MMIO_GAP_START).div_ceil(LARGE_PAGE_SIZE);
    let directories = pages.div_ceil(ENTRIES);
    write_table(mem, layout::PML4, 1, |_| layout::PDPT | PRESENT | WRITABLE)?;
    write_table(mem, layout::PDPT, directories, |n| {
        (layout::PAGE_DIRECTORIES + n * layout::PAGE_SIZE) | PRESENT | WRITABLE
    })?;
    // The directories are adjacent, so that their entries are one array.
    write_table(mem, layout::PAGE_DIRECTORIES, pages, |n| {
        (n * LARGE_PAGE_SIZE) | PRESENT | WRITABLE | LARGE_PAGE
    })?;
    Ok(layout::PML4)
}

/// Writes the first `count` entries of a table, a page's worth at a time.
fn write_table<M: GuestMemory>(
    mem: &M,
    start: u64,
    count: u64,
    entry: impl Fn(u64) -> u64,
) -> Result<(), GuestMemoryError> {
    let mut page = [0; (ENTRIES * ENTRY_SIZE) as usize];
    let mut first = 0;
    while first < count {
        let in_page = ENTRIES.min(count - first);
        let bytes = &mut page[..(in_page * ENTRY_SIZE) as usize];
        for (slot, n) in bytes.chunks_exact_mut(ENTRY_SIZE as usize).zip(first..) {
            slot.copy_from_slice(&entry(n).to_le_bytes());
        }
        mem.write_slice(bytes, GuestAddress(start + first * ENTRY_SIZE))?;
        first += in_page;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
