//! A part of guest memory that is looked up once and used often.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// A piece of guest memory at a known place of this process: a ring, whose every entry would be looked up otherwise.
#[derive(Debug)]
pub struct Window {
    start: *mut u8,
    length: usize,
    /// Keeps it mapped.
    _memory: GuestMemoryMmap,
}

// SAFETY: the address is one of guest memory, which all threads may use, and which goes where the window goes.
unsafe impl Send for Window {}

impl Window {
    /// The `length` bytes at `address`, if they are in `memory`, in one piece.
    #[must_use]
    pub fn new(memory: &GuestMemoryMmap, address: u64, length: usize) -> Option<Self> {
        let slice = memory.get_slice(GuestAddress(address), length).ok()?;
        let start = slice.ptr_guard_mut().as_ptr();
        Some(Self { start, length, _memory: memory.clone() })
    }

    /// The memory, for checked access.
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: `new` found so many bytes there, and they stay mapped for as long as the window holds the memory. Nobody
        // has references to guest memory.
        unsafe { VolatileSlice::new(self.start, self.length) }
    }
}
