//! RAM that drivers share with devices: addresses are guest-physical, because this program's memory is mapped one to one.

#![expect(unsafe_code, reason = "a device writes to this memory, so no Rust reference may describe it")]

/// RAM of which devices get parts, from its start to its end.
pub(crate) struct Arena {
    next: u64,
    end: u64,
}

impl Arena {
    /// Nothing else will use `words`.
    pub(crate) fn new(words: &'static mut [u64]) -> Arena {
        let next = words.as_mut_ptr().expose_provenance() as u64;
        Arena { next, end: next + size_of_val(words) as u64 }
    }

    /// The next `length` bytes from a multiple of `alignment`, for good. None where they are not there.
    pub(crate) fn take(&mut self, length: u64, alignment: u64) -> Option<Shared> {
        let address = self.next.checked_next_multiple_of(alignment)?;
        let end = address.checked_add(length).filter(|&end| end <= self.end)?;
        self.next = end;
        Some(Shared { address, length })
    }
}

/// A piece of an [`Arena`]. Each access happens exactly as written, in the order of the program: x86 keeps that order
/// towards other processors, but for a read that overtakes a write.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    address: u64,
    length: u64,
}

impl Shared {
    /// The first byte's address, for the device.
    pub(crate) fn address(self) -> u64 {
        self.address
    }

    /// The length in bytes.
    pub(crate) fn length(self) -> u64 {
        self.length
    }

    /// Piece number `index` of `length` bytes.
    pub(crate) fn piece(self, index: u64, length: u64) -> Shared {
        self.part(index * length, length)
    }

    /// `length` bytes from `offset`.
    #[inline(never)]
    pub(crate) fn part(self, offset: u64, length: u64) -> Shared {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.length));
        Shared { address: self.address + offset, length }
    }

    /// Reads a number at `offset`, a multiple of its size.
    pub(crate) fn read<T: Number>(self, offset: u64) -> T {
        let pointer = core::ptr::with_exposed_provenance::<T>(self.locate(offset, size_of::<T>() as u64));
        // SAFETY: within an arena, aligned, and any bytes are a number.
        unsafe { pointer.read_volatile() }
    }

    /// Writes a number at `offset`, a multiple of its size.
    pub(crate) fn write<T: Number>(self, offset: u64, value: T) {
        let pointer = core::ptr::with_exposed_provenance_mut::<T>(self.locate(offset, size_of::<T>() as u64));
        // SAFETY: within an arena, which nothing but the device and this type uses, and aligned.
        unsafe { pointer.write_volatile(value) };
    }

    /// Writes `bytes` at `offset`.
    #[inline(never)]
    pub(crate) fn write_bytes(self, offset: u64, bytes: &[u8]) {
        for (at, &byte) in (offset..).zip(bytes) {
            self.write(at, byte);
        }
    }

    /// Reads as many bytes from `offset` as the array has.
    pub(crate) fn read_bytes<const N: usize>(self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        for (at, byte) in (offset..).zip(&mut bytes) {
            *byte = self.read(at);
        }
        bytes
    }

    /// The address of a number at `offset`. Offsets are this program's own; a device's numbers are looked at before they
    /// become one. Not inlined: there are many, and the program is to stay small.
    #[inline(never)]
    fn locate(self, offset: u64, size: u64) -> usize {
        let address = self.address + offset;
        assert!(
            offset.checked_add(size).is_some_and(|end| end <= self.length) && address.is_multiple_of(size)
        );
        address as usize
    }
}

/// Numbers as devices read and write them: little-endian, like the processor's.
pub(crate) trait Number: Copy {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}
