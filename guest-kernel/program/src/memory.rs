//! Guest-physical memory by address: tables of the VMM, device registers, and the RAM that is not this program's.
//!
//! entry.s maps the first GiB. What lies above is mapped when it is first used: the page directory for GiB number g lies
//! in the g-th page after the program, so that nothing has to be allocated, and modes that use RAM start above them.

#![expect(unsafe_code, reason = "memory that no Rust object describes is reached by address")]

use core::sync::atomic::{AtomicBool, Ordering};

use crate::ring0;

const PAGE: u64 = 4096;
const GIB: u64 = 1 << 30;
/// One page of directory pointers reaches this far.
const LIMIT: u64 = 512 * GIB;
/// Present, writable, user, accessed.
const TABLE: u64 = 0x27;
/// The same, dirty, 2 MiB.
const LARGE_PAGE: u64 = 0xe7;
/// The scratch memory: above every page directory, and in RAM on any machine of 16 MiB.
const SCRATCH: u64 = 4 << 20;
const SCRATCH_WORDS: usize = (12 << 20) / size_of::<u64>();
const PROGRAM_START: u64 = 0x10_0000;

/// The first address that neither the program nor its page tables will ever use, a multiple of the page size.
pub(crate) fn free_start() -> u64 {
    directory(512)
}

fn directory(gib: u64) -> u64 {
    ring0::program_end().next_multiple_of(PAGE) + gib * PAGE
}

/// Maps `length` bytes from `address`. False where that lies above what the page tables can reach.
#[inline(never)]
pub(crate) fn map(address: u64, length: u64) -> bool {
    let Some(end) = address.checked_add(length).filter(|&end| end <= LIMIT) else { return false };
    let pointers = ring0::directory_pointers();
    for gib in (address / GIB)..end.div_ceil(GIB) {
        let Some(pointer) = usize::try_from(gib).ok().and_then(|gib| pointers.get(gib)) else { return false };
        if pointer.load(Ordering::Relaxed) == 0 {
            fill_directory(gib);
            pointer.store(directory(gib) | TABLE, Ordering::Release);
        }
    }
    true
}

fn fill_directory(gib: u64) {
    for index in 0..512 {
        let entry = core::ptr::with_exposed_provenance_mut::<u64>((directory(gib) + index * 8) as usize);
        // SAFETY: the page lies right after the program in mapped RAM, is aligned, and belongs to this function alone.
        unsafe { entry.write_volatile((gib * GIB + (index << 21)) | LARGE_PAGE) };
    }
}

/// Reads a little-endian number of `T`'s size from any address. 0 where it cannot be mapped.
fn read<T: Copy + Default>(address: u64) -> T {
    if !map(address, size_of::<T>() as u64) {
        return T::default();
    }
    let pointer = core::ptr::with_exposed_provenance::<T>(address as usize);
    // SAFETY: the address is mapped; an integer may hold any bytes; x86 has no alignment for it, and KVM emulates this
    // plain `mov` where the address is a device's.
    unsafe { pointer.read_unaligned() }
}

/// One byte at `address`.
pub(crate) fn read_u8(address: u64) -> u8 {
    read(address)
}

/// A 32-bit number at `address`.
pub(crate) fn read_u32(address: u64) -> u32 {
    read(address)
}

/// A 64-bit number at `address`.
pub(crate) fn read_u64(address: u64) -> u64 {
    read(address)
}

/// Reads a device register: exactly one 32-bit access, never left out or moved.
pub(crate) fn read_register(address: u64) -> u32 {
    if !map(address, 4) {
        return u32::MAX;
    }
    let pointer = core::ptr::with_exposed_provenance::<u32>(address as usize);
    // SAFETY: the address is mapped and, as every register's, aligned.
    unsafe { pointer.read_volatile() }
}

/// Reads a device register of one byte: exactly one access, never left out or moved.
pub(crate) fn read_register_u8(address: u64) -> u8 {
    if !map(address, 1) {
        return u8::MAX;
    }
    let pointer = core::ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: the address is mapped.
    unsafe { pointer.read_volatile() }
}

/// Whether `address` may be written: mapped, aligned, and not the program's own.
fn writable(address: u64, length: u64) -> bool {
    let own = PROGRAM_START..free_start();
    address.is_multiple_of(length)
        && map(address, length)
        && (address + length <= own.start || address >= own.end)
}

/// Writes a device register: exactly one 32-bit access. False where the address is not one to write to.
pub(crate) fn write_register(address: u64, value: u32) -> bool {
    let fits = writable(address, 4);
    if fits {
        let pointer = core::ptr::with_exposed_provenance_mut::<u32>(address as usize);
        // SAFETY: the address is mapped, aligned, and outside everything that Rust knows of.
        unsafe { pointer.write_volatile(value) };
    }
    fits
}

/// Writes one byte to a device. False where the address is not one to write to.
pub(crate) fn write_byte(address: u64, value: u8) -> bool {
    let fits = writable(address, 1);
    if fits {
        let pointer = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
        // SAFETY: the address is mapped and outside everything that Rust knows of.
        unsafe { pointer.write_volatile(value) };
    }
    fits
}

/// All RAM that is not the program's, or the scratch array: whoever asks first has it.
static RAM_TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to write to all RAM above [`free_start`].
pub(crate) struct Ram(());

impl Ram {
    /// The RAM, if nobody has it yet.
    pub(crate) fn take() -> Option<Ram> {
        (!RAM_TAKEN.swap(true, Ordering::AcqRel)).then_some(Ram(()))
    }

    /// Writes one word to each of `pages` pages from `address`. Returns how many it wrote: none where the address is not free
    /// RAM or cannot be mapped.
    pub(crate) fn touch(&mut self, address: u64, pages: u64) -> u64 {
        if address < free_start()
            || !address.is_multiple_of(PAGE)
            || !map(address, pages.saturating_mul(PAGE))
        {
            return 0;
        }
        for page in 0..pages {
            let pointer = core::ptr::with_exposed_provenance_mut::<u64>((address + page * PAGE) as usize);
            // SAFETY: mapped, aligned, above the program and its page tables, and nobody else has any of it.
            unsafe { pointer.write_volatile(page) };
        }
        pages
    }

    /// A large array in that RAM, for good: 12 MiB.
    pub(crate) fn scratch(self) -> &'static mut [u64; SCRATCH_WORDS] {
        let array = core::ptr::with_exposed_provenance_mut::<[u64; SCRATCH_WORDS]>(SCRATCH as usize);
        // SAFETY: aligned RAM above the program, within the first GiB, which is mapped from the start; any bytes are
        // numbers; `self` was the only right to it.
        unsafe { &mut *array }
    }
}
