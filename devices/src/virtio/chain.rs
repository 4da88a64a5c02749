//! One buffer of a queue: what the driver wrote for the device, then room for the device's answer.

use std::sync::atomic::Ordering;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{
    ByteValued, Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress, Permissions, VolatileMemory, VolatileSlice,
};

use super::QueueError;

/// A piece of guest memory that was checked: it is wholly inside the RAM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    address: GuestAddress,
    length: u32,
    /// The number of the region that it is in, or [`NOWHERE`]: so it is looked up once.
    region: u32,
}

/// For a segment that is in no single region.
const NOWHERE: u32 = u32::MAX;

impl Segment {
    /// The segment at `address`, if all of it is in `memory`.
    ///
    /// # Errors
    /// [`QueueError::Buffer`] if it is not.
    pub fn new(memory: &GuestMemoryMmap, address: u64, length: u32) -> Result<Self, QueueError> {
        // There are two regions at most, as a rule: no search is faster.
        let mut regions = (0..).zip(memory.iter());
        let region = regions.find_map(|(number, region)| {
            let offset = address.checked_sub(region.start_addr().0)?;
            let room = region.len().checked_sub(offset)?;
            (u64::from(length) <= room).then_some(number)
        });
        match region {
            Some(region) => Ok(Self { address: GuestAddress(address), length, region }),
            None => Self::in_no_region(memory, GuestAddress(address), length),
        }
    }

    /// An empty segment is nowhere, and needs no memory. Others may be in two regions side by side. Rare, and so kept out of
    /// where each piece of each request passes.
    #[cold]
    fn in_no_region(
        memory: &GuestMemoryMmap,
        address: GuestAddress,
        length: u32,
    ) -> Result<Self, QueueError> {
        let sound =
            length == 0 || GuestMemory::check_range(memory, address, length as usize, Permissions::ReadWrite);
        if sound { Ok(Self { address, length, region: NOWHERE }) } else { Err(QueueError::Buffer) }
    }

    /// Its memory; none if that is in two regions. `memory` is the one that it was made with.
    pub(super) fn slice<'a>(&self, memory: &'a GuestMemoryMmap) -> Option<VolatileSlice<'a>> {
        let region = memory.iter().nth(self.region as usize)?;
        let offset = self.address.0.checked_sub(region.start_addr().0)?;
        region.get_slice(MemoryRegionAddress(offset), self.len()).ok()
    }

    /// At most `limit` bytes of it, from `offset` on; nothing where that is behind its end.
    pub(super) fn part(&self, offset: usize, limit: usize) -> Self {
        // No longer than the segment, and inside it: no overflow.
        let offset = offset.min(self.len());
        let length = (self.len() - offset).min(limit) as u32;
        Self { address: GuestAddress(self.address.0 + offset as u64), length, region: self.region }
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

/// Finds where segments are in this process. Keeps the region of the last one: the next is most likely there, too.
pub(super) struct Lookup<'a> {
    memory: &'a GuestMemoryMmap,
    number: u32,
    start: u64,
    region: Option<VolatileSlice<'a>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(memory: &'a GuestMemoryMmap) -> Self {
        Self { memory, number: NOWHERE, start: 0, region: None }
    }

    /// The address of `segment`, all of which is there; none if it is in two regions. It was made with this memory.
    #[inline]
    pub(super) fn find(&mut self, segment: &Segment) -> Option<*mut u8> {
        if self.number != segment.region {
            let region = self.memory.iter().nth(segment.region as usize)?;
            self.region = Some(region.as_volatile_slice().ok()?);
            (self.number, self.start) = (segment.region, region.start_addr().0);
        }
        let offset = segment.address.0.checked_sub(self.start)? as usize;
        Some(self.region?.subslice(offset, segment.len()).ok()?.ptr_guard_mut().as_ptr())
    }
}

/// A descriptor chain whose every buffer was checked. Made to be filled again and again: it keeps its room.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    head: u16,
    segments: Vec<Segment>,
    /// How many of the segments are device-readable; the rest is device-writable.
    readable: usize,
    /// Bytes in both parts.
    readable_length: usize,
    writable_length: usize,
}

impl Chain {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes it the chain that begins with descriptor `head` of the queue's `table`. On errors it has no lengths, and some of the
    /// segments: it is to be filled anew.
    pub(super) fn fill<'a>(
        &mut self,
        memory: &'a GuestMemoryMmap,
        mut table: Table<'a>,
        size: u16,
        head: u16,
    ) -> Result<(), QueueError> {
        self.head = head;
        self.segments.clear();
        (self.readable, self.readable_length, self.writable_length) = (0, 0, 0);
        let (mut index, mut indirect) = (head, false);
        // In registers: this runs for each piece of each request.
        let (mut readable, mut readable_length, mut writable_length) = (0, 0, 0);
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
            let count = self.segments.len();
            // Section 2.7.5.3.1: a chain is no longer than the queue, whether its table is indirect or not; so a loop has an end.
            if count >= usize::from(size) {
                return Err(QueueError::Chain);
            }
            let segment = Segment::new(memory, descriptor.addr().0, descriptor.len())?;
            // No more than a queue's size of segments, with 32 bits each: no overflow.
            if descriptor.is_write_only() {
                writable_length += segment.len();
            } else if readable == count {
                readable += 1;
                readable_length += segment.len();
            } else {
                // Section 2.7.4.2: writable descriptors come after all readable ones.
                return Err(QueueError::Chain);
            }
            self.segments.push(segment);
            if !descriptor.has_next() {
                break;
            }
            index = descriptor.next();
        }
        (self.readable, self.readable_length, self.writable_length) =
            (readable, readable_length, writable_length);
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

    /// The bytes in all that the driver wrote.
    #[must_use]
    pub fn readable_length(&self) -> usize {
        self.readable_length
    }

    /// The bytes of room for the answer.
    #[must_use]
    pub fn writable_length(&self) -> usize {
        self.writable_length
    }

    /// The number, little-endian, as the host is, that is `offset` bytes into the readable part, wherever descriptors begin and end.
    /// `None` if there are not as many bytes.
    #[must_use]
    pub fn read<N: ByteValued + Default>(&self, memory: &GuestMemoryMmap, offset: usize) -> Option<N> {
        // Most drivers put a header into a piece of its own.
        let first = self.readable().first().and_then(|first| first.slice(memory));
        if let Some(number) = first.and_then(|first| Some(first.get_ref(offset).ok()?.load())) {
            return Some(number);
        }
        let mut number = N::default();
        self.read_at(memory, offset, number.as_mut_slice()).then_some(number)
    }

    /// Fills `data` from `offset` bytes into the readable part on, wherever descriptors begin and end. `false` if there is less.
    #[must_use]
    pub fn read_at(&self, memory: &GuestMemoryMmap, offset: usize, data: &mut [u8]) -> bool {
        let mut rest = data;
        for piece in pieces(self.readable(), offset, rest.len()) {
            let Some((target, later)) = rest.split_at_mut_checked(piece.len()) else {
                return false;
            };
            match piece.slice(memory) {
                Some(slice) => _ = slice.copy_to(target),
                None if memory.read_slice(target, piece.address).is_ok() => {}
                None => return false,
            }
            rest = later;
        }
        rest.is_empty()
    }

    /// Writes the last byte of the writable part, where devices have their status. `false` if there is none.
    #[must_use]
    pub fn write_last(&self, memory: &GuestMemoryMmap, byte: u8) -> bool {
        let Some(before) = self.writable_length.checked_sub(1) else {
            return false;
        };
        // Most drivers put it into a piece of its own. Atomic, because that is the shortest way to one byte.
        let written = self.segments.last().and_then(|last| {
            let at = last.len().checked_sub(1)?;
            last.slice(memory)?.store(byte, at, Ordering::Relaxed).ok()
        });
        // The last segment may be empty, and one in two regions has no slice.
        written.is_some() || self.write_at(memory, before, &[byte])
    }

    /// Writes `data` from `offset` bytes into the writable part on. `false` if it does not fit.
    #[must_use]
    pub fn write_at(&self, memory: &GuestMemoryMmap, offset: usize, data: &[u8]) -> bool {
        write_at(memory, self.writable(), offset, data)
    }
}

/// Writes `data` from `offset` bytes into `segments` on, wherever they begin and end. `false` if it does not fit.
#[must_use]
pub(super) fn write_at(memory: &GuestMemoryMmap, segments: &[Segment], offset: usize, data: &[u8]) -> bool {
    let mut rest = data;
    for piece in pieces(segments, offset, rest.len()) {
        let Some((source, later)) = rest.split_at_checked(piece.len()) else {
            return false;
        };
        match piece.slice(memory) {
            Some(slice) => slice.copy_from(source),
            None if memory.write_slice(source, piece.address).is_ok() => {}
            None => return false,
        }
        rest = later;
    }
    rest.is_empty()
}

/// A table of descriptors: the queue's, or one in a buffer.
pub(super) struct Table<'a>(pub(super) VolatileSlice<'a>);

impl<'a> Table<'a> {
    /// Bytes of a descriptor.
    pub(super) const ENTRY: u32 = 16;

    /// Not inlined: the loop around it has no registers left for it.
    #[inline(never)]
    fn new(memory: &'a GuestMemoryMmap, address: u64, length: u32) -> Result<Self, QueueError> {
        if !length.is_multiple_of(Self::ENTRY) {
            return Err(QueueError::Chain);
        }
        let table = memory.iter().find_map(|region| {
            let offset = address.checked_sub(region.start_addr().0)?;
            region.get_slice(MemoryRegionAddress(offset), length as usize).ok()
        });
        table.map(Self).ok_or(QueueError::Chain)
    }

    /// The buffer of descriptor `index`, if it is device-writable, one piece, and in memory.
    #[inline]
    pub(super) fn writable_piece(&self, memory: &GuestMemoryMmap, index: u16) -> Option<Segment> {
        let descriptor = self.get(index).ok()?;
        let plain =
            descriptor.is_write_only() && !descriptor.has_next() && !descriptor.refers_to_indirect_table();
        let segment = || Segment::new(memory, descriptor.addr().0, descriptor.len()).ok();
        plain.then(segment).flatten()
    }

    fn get(&self, index: u16) -> Result<Descriptor, QueueError> {
        let place = usize::from(index) * Self::ENTRY as usize;
        self.0.get_ref(place).map(|place| place.load()).map_err(|_| QueueError::Chain)
    }
}

/// The bytes in all `segments` together.
#[cfg(test)]
pub(super) fn length(segments: &[Segment]) -> usize {
    segments.iter().map(Segment::len).sum()
}

/// Appends to `out` the part of `segments` that begins `offset` bytes in and is at most `limit` bytes long; returns its length.
pub fn cut(segments: &[Segment], offset: usize, limit: usize, out: &mut Vec<Segment>) -> usize {
    let mut total = 0;
    for piece in pieces(segments, offset, limit) {
        total += piece.len();
        out.push(piece);
    }
    total
}

/// Where `limit` bytes from `offset` on are, piece by piece; empty pieces are left out.
fn pieces(segments: &[Segment], offset: usize, limit: usize) -> impl Iterator<Item = Segment> + '_ {
    let (mut skip, mut left) = (offset, limit);
    let mut segments = segments.iter();
    std::iter::from_fn(move || {
        while left > 0 {
            let segment = segments.next()?;
            if skip >= segment.len() {
                skip -= segment.len();
                continue;
            }
            let piece = segment.part(skip, left);
            skip = 0;
            left -= piece.len();
            return Some(piece);
        }
        None
    })
}
