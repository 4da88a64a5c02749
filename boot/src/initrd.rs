//! The initial RAM disk: where it goes, and how it gets there.

use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryError, ReadVolatile};

use crate::{Kernel, RamRegions, copy, layout};

/// Why an initrd cannot be placed or loaded.
#[derive(Debug, Error)]
pub enum InitrdError {
    /// Zero bytes.
    #[error("the initrd is empty: leave it out, or name another file")]
    Empty,
    /// No room beside the kernel.
    #[error(
        "the initrd of {size} bytes does not fit: beside the kernel, {free} bytes of RAM are free in one piece below \
         3 GiB; give the machine more memory, or a smaller initrd"
    )]
    NoRoom {
        /// Its size in bytes.
        size: u64,
        /// The largest free range in bytes.
        free: u64,
    },
    /// The file ended early, could not be read, or its place is not RAM.
    #[error("the initrd of {size} bytes could not be copied to {address:#x}")]
    Load {
        /// Its size in bytes.
        size: u64,
        /// Its place.
        address: u64,
        /// Why.
        source: GuestMemoryError,
    },
}

/// Where the initrd is in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initrd {
    /// First address, on a page boundary.
    pub address: GuestAddress,
    /// Size in bytes.
    pub size: u64,
}

impl Initrd {
    /// Chooses a place for `size` bytes: as high as possible below the MMIO gap, so that it is out of the way of
    /// whatever the kernel unpacks or allocates upwards, and clear of the kernel's segments.
    ///
    /// # Errors
    /// [`InitrdError::Empty`], or [`InitrdError::NoRoom`] with the room there is.
    pub fn place(size: u64, kernel: &Kernel, ram: &RamRegions) -> Result<Self, InitrdError> {
        if size == 0 {
            return Err(InitrdError::Empty);
        }
        let mut end = ram.low().end().min(kernel.initrd_end());
        let mut free = 0;
        // The segments are sorted, so the free ranges come from the highest to the lowest.
        for segment in kernel.segments().iter().rev() {
            if let Some(initrd) = Self::below(end, segment.end(), size, &mut free) {
                return Ok(initrd);
            }
            end = end.min(segment.guest_address);
        }
        Self::below(end, layout::KERNEL_START, size, &mut free).ok_or(InitrdError::NoRoom { size, free })
    }

    /// The highest place in `start..end`; where there is none, `free` learns how much room there was.
    fn below(end: u64, start: u64, size: u64, free: &mut u64) -> Option<Self> {
        // A kernel that was not checked against the RAM may reach anywhere; what counts is what lies below `end`.
        let start = start.min(end).next_multiple_of(layout::PAGE_SIZE);
        let end = end - end % layout::PAGE_SIZE;
        let room = end.saturating_sub(start);
        *free = room.max(*free);
        // The address is rounded down, which the room has space for: both its ends are on page boundaries.
        (size <= room).then(|| {
            let address = end - size.next_multiple_of(layout::PAGE_SIZE);
            Self { address: GuestAddress(address), size }
        })
    }

    /// Copies the initrd from where `source` stands to its place.
    ///
    /// # Errors
    /// [`InitrdError::Load`] if the source has fewer bytes, cannot be read, or the place is not RAM.
    pub fn load<M: GuestMemory, I: ReadVolatile>(&self, mem: &M, source: &mut I) -> Result<(), InitrdError> {
        copy::read_exact(mem, self.address, self.size, source).map_err(|source| InitrdError::Load {
            size: self.size,
            address: self.address.0,
            source,
        })
    }
}

#[cfg(test)]
mod tests;
