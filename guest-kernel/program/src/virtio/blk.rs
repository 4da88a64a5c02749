//! A disk (virtio 1.2, 5.2): reads and writes of one size, several in flight.

use super::failure::{Failure, NO_ROOM};
use super::mmio::{Kind, Transport, feature};
use super::queue::{Part, Queue};
use crate::dma::{Arena, Shared};
use crate::options::Window;

/// Feature bits (5.2.3).
const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
/// The configuration's first field (5.2.4): the size in sectors.
const CONFIG_CAPACITY: u64 = 0;
/// What positions are counted in.
pub(crate) const SECTOR: u64 = 512;

/// Request types and the status of success (5.2.6).
const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const S_OK: u8 = 0;
/// What a status byte holds before the device writes it: no status that exists.
const S_NONE: u8 = 0xff;

/// Type, reserved, sector; then the status, which stands behind it here.
const HEADER_SIZE: u64 = 16;
const HEADER_SECTOR: u64 = 8;
const STATUS: u64 = HEADER_SIZE;
const SLOT_SIZE: u64 = 32;
/// The most slots a disk can have.
pub(crate) const MAX_DEPTH: u16 = 64;
/// Header, data, status.
const CHAIN: u16 = 3;

/// What to do with a request's data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A disk with `depth` slots, each of which holds one request.
pub(crate) struct Disk {
    transport: Transport,
    queue: Queue,
    slots: Shared,
    data: Shared,
    size: u64,
    sectors: u64,
    /// Which slots the device has.
    in_flight: u64,
}

impl Disk {
    /// Opens the first disk for requests of `size` bytes, `depth` (at most [`MAX_DEPTH`]) at once.
    pub(crate) fn open(
        windows: impl Iterator<Item = Window>,
        arena: &mut Arena,
        depth: u16,
        size: u64,
    ) -> Result<Disk, Failure> {
        let transport = Transport::open(Kind::Block, windows, F_RO | F_FLUSH | feature::RING_EVENT_IDX)?;
        let queue = transport.queue(0, depth * CHAIN, arena)?;
        let slots = arena.take(u64::from(depth) * SLOT_SIZE, SLOT_SIZE).ok_or(NO_ROOM)?;
        let data = arena.take(u64::from(depth) * size, 4096).ok_or(NO_ROOM)?;
        let sectors = transport.config_u64(CONFIG_CAPACITY);
        transport.start();
        Ok(Disk { transport, queue, slots, data, size, sectors, in_flight: 0 })
    }

    /// The disk's size in sectors.
    pub(crate) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether the disk refuses writes.
    pub(crate) fn is_read_only(&self) -> bool {
        self.transport.has(F_RO)
    }

    /// The buffer of a slot.
    pub(crate) fn data(&self, slot: u16) -> Shared {
        self.data.piece(slot.into(), self.size)
    }

    /// Where the slot's last request began.
    pub(crate) fn sector(&self, slot: u16) -> u64 {
        self.slots.piece(slot.into(), SLOT_SIZE).read(HEADER_SECTOR)
    }

    /// Prepares a request in a free slot. The device sees it after [`Disk::publish`].
    pub(crate) fn request(&mut self, slot: u16, direction: Direction, sector: u64) {
        let reads = direction == Direction::Read;
        let data = Part { memory: self.data(slot), device_writes: reads };
        self.submit(slot, if reads { T_IN } else { T_OUT }, sector, Some(data));
    }

    /// Shows the device all that was prepared.
    pub(crate) fn publish(&mut self) {
        self.queue.publish();
    }

    /// Waits for a request to be done. Returns its slot, and whether it succeeded.
    pub(crate) fn wait(&mut self) -> Result<(u16, bool), Failure> {
        let used = self.queue.wait()?;
        self.finish(used.head)
    }

    /// The same without waiting.
    pub(crate) fn poll(&mut self) -> Result<Option<(u16, bool)>, Failure> {
        match self.queue.pop()? {
            Some(used) => self.finish(used.head).map(Some),
            None => Ok(None),
        }
    }

    /// Makes what was written durable, where the disk has a cache. Nothing may be in flight.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if !self.transport.has(F_FLUSH) {
            return Ok(());
        }
        self.submit(0, T_FLUSH, 0, None);
        self.publish();
        match self.wait()? {
            (_, true) => Ok(()),
            (_, false) => Err(Failure::new(b"io", b"flush")),
        }
    }

    /// Notifies the device, whether there is anything for it or not.
    pub(crate) fn notify(&mut self) {
        self.queue.notify();
    }

    /// Has the device raise an interrupt when the next request is done; the requests after that are silent again.
    pub(crate) fn interrupt_once(&self) {
        self.queue.interrupt_once();
    }

    /// The pin of the I/O APIC that its interrupts come to, if it is known.
    pub(crate) fn gsi(&self) -> Option<u8> {
        self.transport.gsi()
    }

    /// Acknowledges the device's interrupt. False where it has raised none.
    pub(crate) fn acknowledge(&self) -> bool {
        self.transport.acknowledge()
    }

    /// How often the device was notified.
    pub(crate) fn notifications(&self) -> u64 {
        self.queue.notifications()
    }

    /// Ends the device's work.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.transport.reset()
    }

    fn submit(&mut self, slot: u16, kind: u32, sector: u64, data: Option<Part>) {
        let memory = self.slots.piece(slot.into(), SLOT_SIZE);
        memory.write(0, kind);
        memory.write(4, 0u32);
        memory.write(HEADER_SECTOR, sector);
        memory.write(STATUS, S_NONE);
        let header = Part { memory: memory.part(0, HEADER_SIZE), device_writes: false };
        let status = Part { memory: memory.part(STATUS, 1), device_writes: true };
        let head = slot * CHAIN;
        match data {
            Some(data) => self.queue.describe(head, &[header, data, status]),
            None => self.queue.describe(head, &[header, status]),
        }
        self.in_flight |= 1 << slot;
        self.queue.push(head);
    }

    fn finish(&mut self, head: u16) -> Result<(u16, bool), Failure> {
        let slot = head / CHAIN;
        if !head.is_multiple_of(CHAIN) || slot >= MAX_DEPTH || self.in_flight & (1 << slot) == 0 {
            return Err(Failure::new(b"bad-used-ring", b"not-in-flight"));
        }
        self.in_flight &= !(1 << slot);
        let status: u8 = self.slots.piece(slot.into(), SLOT_SIZE).read(STATUS);
        Ok((slot, status == S_OK))
    }
}
