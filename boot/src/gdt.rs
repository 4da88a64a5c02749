//! Segment descriptors, as the GDT in guest memory and as the plain data that a vCPU is loaded with.
//!
//! Layout and bits: Intel SDM volume 3A, 3.4.5 (segments) and 8.2.3 (the 64-bit TSS descriptor).

use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};

use crate::layout;

/// Selectors of the flat segments: the 64-bit Linux protocol asks for 0x10 and 0x18 by number.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

/// Descriptor types with the bits that hardware would set: accessed, and busy for the task.
const CODE_EXECUTE_READ_ACCESSED: u8 = 0xb;
const DATA_READ_WRITE_ACCESSED: u8 = 0x3;
const TASK_BUSY: u8 = 0xb;

/// A TSS without an I/O permission bitmap.
const TASK_LIMIT: u32 = 0x67;

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentDescriptor {
    /// What the visible part holds.
    pub selector: u16,
    /// First linear address.
    pub base: u64,
    /// Last offset, in bytes whatever `granularity` says.
    pub limit: u32,
    /// The four type bits.
    pub kind: u8,
    /// Privilege level.
    pub dpl: u8,
    /// P.
    pub present: bool,
    /// S: a code or data segment, not a system one.
    pub code_or_data: bool,
    /// L: 64-bit code.
    pub long: bool,
    /// D/B: 32-bit operands.
    pub big: bool,
    /// G: the limit is stored in pages.
    pub granularity: bool,
}

impl SegmentDescriptor {
    const fn flat(selector: u16, kind: u8, long: bool) -> Self {
        Self {
            selector,
            base: 0,
            limit: u32::MAX,
            kind,
            dpl: 0,
            present: true,
            code_or_data: true,
            long,
            big: !long,
            granularity: true,
        }
    }

    /// The eight bytes in the GDT, for a base that fits 32 bits.
    fn encode(&self) -> u64 {
        let limit = u64::from(if self.granularity { self.limit >> 12 } else { self.limit });
        let access = u64::from(self.kind)
            | u64::from(self.code_or_data) << 4
            | u64::from(self.dpl) << 5
            | u64::from(self.present) << 7;
        let flags = u64::from(self.long) << 1 | u64::from(self.big) << 2 | u64::from(self.granularity) << 3;
        (limit & 0xffff)
            | (self.base & 0xff_ffff) << 16
            | access << 40
            | (limit >> 16 & 0xf) << 48
            | flags << 52
            | (self.base >> 24 & 0xff) << 56
    }
}

/// The segment registers of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// CS.
    pub code: SegmentDescriptor,
    /// DS, ES, FS, GS and SS.
    pub data: SegmentDescriptor,
    /// TR. Nothing is stored where it points; entering a guest merely needs a busy task.
    pub task: SegmentDescriptor,
}

impl Segments {
    const fn new(long: bool) -> Self {
        Self {
            code: SegmentDescriptor::flat(CODE_SELECTOR, CODE_EXECUTE_READ_ACCESSED, long),
            // The D/B bit of a data segment is the stack's width where code is 32-bit; 64-bit code ignores it.
            data: SegmentDescriptor::flat(DATA_SELECTOR, DATA_READ_WRITE_ACCESSED, false),
            task: SegmentDescriptor {
                selector: TASK_SELECTOR,
                base: 0,
                limit: TASK_LIMIT,
                kind: TASK_BUSY,
                dpl: 0,
                present: true,
                code_or_data: false,
                long: false,
                big: false,
                granularity: false,
            },
        }
    }

    /// Flat 64-bit code.
    pub(crate) const LONG: Self = Self::new(true);
    /// Flat 32-bit code.
    pub(crate) const PROTECTED: Self = Self::new(false);
}

/// What GDTR or IDTR holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorTable {
    /// First linear address.
    pub base: u64,
    /// Last offset.
    pub limit: u16,
}

/// Writes the GDT for these segments and returns where it is.
pub(crate) fn write<M: GuestMemory>(
    mem: &M,
    segments: &Segments,
) -> Result<DescriptorTable, GuestMemoryError> {
    // Two null entries, code, data, and the two entries of a 64-bit TSS: their upper half is a base of 0.
    let entries = [0, 0, segments.code.encode(), segments.data.encode(), segments.task.encode(), 0];
    let mut bytes = [0; 48];
    for (slot, entry) in bytes.chunks_exact_mut(8).zip(entries) {
        slot.copy_from_slice(&entry.to_le_bytes());
    }
    mem.write_slice(&bytes, GuestAddress(layout::GDT_START))?;
    Ok(DescriptorTable { base: layout::GDT_START, limit: bytes.len() as u16 - 1 })
}

#[cfg(test)]
mod tests;
