//! One buffer of a queue: what the driver wrote for the device, then room for the device's answer.

use std::ops::Deref;

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::QueueError;

/// A piece of guest memory that was checked: it is wholly inside the RAM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    address: GuestAddress,
    length: u32,
}

impl Segment {
    /// The segment at `address`, if all of it is in `memory`.
    ///
    /// # Errors
    /// [`QueueError::Buffer`] if it is not.
    pub fn new(memory: &GuestMemoryMmap, address: u64, length: u32) -> Result<Self, QueueError> {
        let address = GuestAddress(address);
        // An empty buffer is nowhere, and needs no memory.
        let inside = length == 0 || memory.check_range(address, length as usize, Permissions::ReadWrite);
        if inside { Ok(Self { address, length }) } else { Err(QueueError::Buffer) }
    }

    /// Where it begins.
    #[must_use]
    pub fn address(&self) -> GuestAddress {
        self.address
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// A descriptor chain whose every buffer was checked. Made to be filled again and again: it keeps its room.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    head: u16,
    segments: Vec<Segment>,
    /// How many of the segments are device-readable; the rest is device-writable.
    readable: usize,
}

impl Chain {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn fill<M>(
        &mut self,
        descriptors: DescriptorChain<M>,
        limit: u16,
        memory: &GuestMemoryMmap,
    ) -> Result<(), QueueError>
    where
        M: Deref,
        M::Target: GuestMemory,
    {
        self.head = descriptors.head_index();
        self.segments.clear();
        self.readable = 0;
        // The iterator ends without a word where a descriptor cannot be followed: then the last one said NEXT, or there was none.
        let mut complete = false;
        for descriptor in descriptors {
            let writable = descriptor.is_write_only();
            // Section 2.7.4.2: writable descriptors come after all readable ones. Section 2.7.5.3.1: a chain is no
            // longer than the queue, whether its table is indirect or not.
            let misplaced = !writable && self.readable < self.segments.len();
            if misplaced || self.segments.len() >= usize::from(limit) {
                return Err(QueueError::Chain);
            }
            self.segments.push(Segment::new(memory, descriptor.addr().0, descriptor.len())?);
            self.readable += usize::from(!writable);
            complete = !descriptor.has_next();
        }
        if complete { Ok(()) } else { Err(QueueError::Chain) }
    }

    /// What identifies it in [`Queue::add_used`](super::Queue::add_used).
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the driver wrote.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or_default()
    }

    /// Room for the answer.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.readable..).unwrap_or_default()
    }

    /// Fills `data` from `offset` bytes into the readable part on, wherever descriptors begin and end. `false` if there is less.
    #[must_use]
    pub fn read_at(&self, memory: &GuestMemoryMmap, offset: usize, data: &mut [u8]) -> bool {
        let mut done = 0;
        for (address, length) in pieces(self.readable(), offset, data.len()) {
            let Some(target) = data.get_mut(done..done + length) else {
                return false;
            };
            if memory.read_slice(target, address).is_err() {
                return false;
            }
            done += length;
        }
        done == data.len()
    }

    /// Writes `data` from `offset` bytes into the writable part on. `false` if it does not fit.
    #[must_use]
    pub fn write_at(&self, memory: &GuestMemoryMmap, offset: usize, data: &[u8]) -> bool {
        let mut done = 0;
        for (address, length) in pieces(self.writable(), offset, data.len()) {
            let Some(source) = data.get(done..done + length) else {
                return false;
            };
            if memory.write_slice(source, address).is_err() {
                return false;
            }
            done += length;
        }
        done == data.len()
    }
}

/// The bytes in all `segments` together.
#[must_use]
pub fn length(segments: &[Segment]) -> usize {
    segments.iter().map(Segment::len).sum()
}

/// Appends to `out` the part of `segments` that begins `offset` bytes in and is at most `limit` bytes long; returns its length.
pub fn cut(segments: &[Segment], offset: usize, limit: usize, out: &mut Vec<Segment>) -> usize {
    let mut total = 0;
    for (address, length) in pieces(segments, offset, limit) {
        // A piece of a segment is no longer than it.
        out.push(Segment { address, length: length as u32 });
        total += length;
    }
    total
}

/// Where `limit` bytes from `offset` on are, piece by piece; empty pieces are left out.
fn pieces(
    segments: &[Segment],
    offset: usize,
    limit: usize,
) -> impl Iterator<Item = (GuestAddress, usize)> + '_ {
    let (mut skip, mut left) = (offset, limit);
    segments.iter().filter_map(move |segment| {
        let skipped = skip.min(segment.len());
        skip -= skipped;
        let length = (segment.len() - skipped).min(left);
        left -= length;
        // Inside a segment that was checked: no overflow.
        (length > 0).then(|| (GuestAddress(segment.address.0 + skipped as u64), length))
    })
}
