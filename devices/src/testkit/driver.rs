//! The driver's side of a split virtqueue (virtio 1.2, section 2.7), laid out in an arena of guest memory.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// VIRTQ_DESC_F_NEXT: the chain goes on.
pub const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: for the device to write.
pub const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: a table of descriptors.
pub const INDIRECT: u16 = 4;

/// One descriptor as it stands in a table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Descriptor {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Descriptor {
    /// Its 16 bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A part of a request.
#[derive(Clone, Copy, Debug)]
pub enum Buffer<'a> {
    /// For the device to read.
    Readable(&'a [u8]),
    /// This many bytes for the device to write.
    Writable(u32),
}

/// One queue and its arena: descriptor table, rings, then data.
#[derive(Debug)]
pub struct DriverQueue {
    memory: GuestMemoryMmap,
    size: u16,
    base: u64,
    next_descriptor: u16,
    next_data: u64,
    available: u16,
    seen: u16,
}

impl DriverQueue {
    /// Bytes of an arena.
    pub const ARENA: u64 = 1 << 20;
    const AVAILABLE: u64 = 0x4000;
    const USED: u64 = 0x6000;
    const DATA: u64 = 0x10000;

    /// A queue of `size` buffers in the arena at `base`.
    #[must_use]
    pub fn new(memory: GuestMemoryMmap, base: u64, size: u16) -> Self {
        Self { memory, size, base, next_descriptor: 0, next_data: base + Self::DATA, available: 0, seen: 0 }
    }

    /// Number of buffers.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Where its descriptor table is.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        self.base
    }

    /// Where its available ring is.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.base + Self::AVAILABLE
    }

    /// Where its used ring is.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.base + Self::USED
    }

    /// Makes a request of `buffers` available; returns its head, and the address of each buffer.
    pub fn add(&mut self, buffers: &[Buffer<'_>]) -> (u16, Vec<u64>) {
        let mut addresses = Vec::new();
        let mut descriptors = Vec::new();
        for (index, buffer) in buffers.iter().enumerate() {
            let (length, flags) = match buffer {
                Buffer::Readable(bytes) => (bytes.len() as u32, 0),
                Buffer::Writable(length) => (*length, WRITE),
            };
            let address = self.allocate(length);
            if let Buffer::Readable(bytes) = buffer {
                self.write(address, bytes);
            }
            let more = if index + 1 < buffers.len() { NEXT } else { 0 };
            addresses.push(address);
            descriptors.push(Descriptor { address, length, flags: flags | more, next: 0 });
        }
        (self.add_descriptors(&descriptors), addresses)
    }

    /// Makes a request of `descriptors` available, one after the other in the table; those that go on lead to the next one.
    pub fn add_descriptors(&mut self, descriptors: &[Descriptor]) -> u16 {
        let head = self.next_descriptor;
        for descriptor in descriptors {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let next = if descriptor.flags & NEXT == 0 { descriptor.next } else { self.next_descriptor };
            self.set_descriptor(index, Descriptor { next, ..*descriptor });
        }
        self.make_available(head);
        head
    }

    /// The same through a table of its own (VIRTQ_DESC_F_INDIRECT).
    pub fn add_indirect(&mut self, descriptors: &[Descriptor]) -> u16 {
        let length = 16 * descriptors.len() as u32;
        let table = self.allocate(length);
        for (index, descriptor) in (0u16..).zip(descriptors) {
            let next = if descriptor.flags & NEXT == 0 { descriptor.next } else { index + 1 };
            self.write(table + 16 * u64::from(index), &Descriptor { next, ..*descriptor }.bytes());
        }
        self.add_descriptors(&[Descriptor { address: table, length, flags: INDIRECT, next: 0 }])
    }

    /// Writes one descriptor of the table.
    pub fn set_descriptor(&mut self, index: u16, descriptor: Descriptor) {
        self.write(self.base + 16 * u64::from(index), &descriptor.bytes());
    }

    /// Puts `head` into the available ring, whatever it leads to.
    pub fn make_available(&mut self, head: u16) {
        let entry = self.available() + 4 + 2 * u64::from(self.available % self.size);
        self.write(entry, &head.to_le_bytes());
        self.set_available_index(self.available.wrapping_add(1));
    }

    /// Sets the available ring's index, truly or falsely.
    pub fn set_available_index(&mut self, index: u16) {
        self.available = index;
        self.write(self.available() + 2, &index.to_le_bytes());
    }

    /// Sets the available ring's flags.
    pub fn set_flags(&mut self, flags: u16) {
        self.write(self.available(), &flags.to_le_bytes());
    }

    /// Asks for an interrupt once the used ring has passed `index` (VIRTIO_F_RING_EVENT_IDX).
    pub fn set_used_event(&mut self, index: u16) {
        self.write(self.available() + 4 + 2 * u64::from(self.size), &index.to_le_bytes());
    }

    /// The next request that the device has finished: its head, and how many bytes the device says it wrote.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        let index = u16::from_le_bytes(self.bytes(self.used() + 2));
        if index == self.seen {
            return None;
        }
        let entry = self.used() + 4 + 8 * u64::from(self.seen % self.size);
        self.seen = self.seen.wrapping_add(1);
        let head = u32::from_le_bytes(self.bytes(entry));
        Some((head as u16, u32::from_le_bytes(self.bytes(entry + 4))))
    }

    /// Room for `length` bytes of data; the oldest is used again when the arena is full.
    pub fn allocate(&mut self, length: u32) -> u64 {
        let end = self.base + Self::ARENA;
        if self.next_data + u64::from(length) > end {
            self.next_data = self.base + Self::DATA;
        }
        let address = self.next_data;
        self.next_data += u64::from(length).next_multiple_of(16);
        address
    }

    /// Writes guest memory; outside it, nothing happens.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        let _ = self.memory.write_slice(bytes, GuestAddress(address));
    }

    /// Reads `length` bytes of guest memory.
    #[must_use]
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let _ = self.memory.read_slice(&mut bytes, GuestAddress(address));
        bytes
    }

    fn bytes<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let _ = self.memory.read_slice(&mut bytes, GuestAddress(address));
        bytes
    }
}
