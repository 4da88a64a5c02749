//! One buffer of a queue: what the driver wrote for the device, then room for the device's answer.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, Permissions, VolatileMemory,
    VolatileSlice,
};

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
        // The second question finds what is in two regions side by side; the first one is quick.
        let inside = length == 0
            || memory.get_slice(address, length as usize).is_ok()
            || GuestMemory::check_range(memory, address, length as usize, Permissions::ReadWrite);
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

    /// Makes it the chain that begins with descriptor `head` of the queue's `table`. On errors it is half of it.
    pub(super) fn fill<'a>(
        &mut self,
        memory: &'a GuestMemoryMmap,
        mut table: Table<'a>,
        size: u16,
        head: u16,
    ) -> Result<(), QueueError> {
        self.head = head;
        self.segments.clear();
        self.readable = 0;
        let (mut index, mut indirect) = (head, false);
        loop {
            let descriptor = table.get(index)?;
            if descriptor.refers_to_indirect_table() {
                // Section 2.7.5.3.1: no table in a table. What comes before it is no matter (section 2.7.5.3.2).
                if std::mem::replace(&mut indirect, true) {
                    return Err(QueueError::Chain);
                }
                table = Table::new(memory, descriptor.addr().0, descriptor.len())?;
                index = 0;
                continue;
            }
            self.push(memory, descriptor, size)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
    }

    fn push(
        &mut self,
        memory: &GuestMemoryMmap,
        descriptor: Descriptor,
        limit: u16,
    ) -> Result<(), QueueError> {
        let writable = descriptor.is_write_only();
        // Section 2.7.4.2: writable descriptors come after all readable ones. Section 2.7.5.3.1: a chain is no longer than
        // the queue, whether its table is indirect or not; so a loop has an end.
        let misplaced = !writable && self.readable < self.segments.len();
        if misplaced || self.segments.len() >= usize::from(limit) {
            return Err(QueueError::Chain);
        }
        self.segments.push(Segment::new(memory, descriptor.addr().0, descriptor.len())?);
        self.readable += usize::from(!writable);
        Ok(())
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
            match memory.get_slice(address, length) {
                Ok(slice) => _ = slice.copy_to(target),
                Err(_) if memory.read_slice(target, address).is_ok() => {}
                Err(_) => return false,
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
            match memory.get_slice(address, length) {
                Ok(slice) => slice.copy_from(source),
                Err(_) if memory.write_slice(source, address).is_ok() => {}
                Err(_) => return false,
            }
            done += length;
        }
        done == data.len()
    }
}

/// A table of descriptors: the queue's, or one in a buffer.
pub(super) struct Table<'a>(pub(super) VolatileSlice<'a>);

impl<'a> Table<'a> {
    /// Bytes of a descriptor.
    pub(super) const ENTRY: u32 = 16;

    fn new(memory: &'a GuestMemoryMmap, address: u64, length: u32) -> Result<Self, QueueError> {
        if !length.is_multiple_of(Self::ENTRY) {
            return Err(QueueError::Chain);
        }
        let slice = memory.get_slice(GuestAddress(address), length as usize);
        slice.map(Self).map_err(|_| QueueError::Chain)
    }

    fn get(&self, index: u16) -> Result<Descriptor, QueueError> {
        let place = usize::from(index) * Self::ENTRY as usize;
        self.0.get_ref(place).map(|place| place.load()).map_err(|_| QueueError::Chain)
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
