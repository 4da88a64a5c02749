//! A network interface (virtio 1.2, 5.1): one pair of queues, whole frames in one buffer each.

use super::failure::{Failure, NO_ROOM};
use super::mmio::{Kind, Transport, feature};
use super::queue::{Part, Queue, Used};
use crate::dma::{Arena, Shared};
use crate::options::Window;

/// Feature bits (5.1.3).
const F_CSUM: u64 = 1 << 0;
const F_MAC: u64 = 1 << 5;
const F_HOST_TSO4: u64 = 1 << 11;
/// The configuration's first field (5.1.4).
const CONFIG_MAC: u64 = 0;
/// Used where the device names no address: locally administered.
const DEFAULT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

/// The queues (5.1.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// What stands before each frame (5.1.6).
pub(crate) const HEADER_SIZE: u64 = 12;
const HEADER_F_NEEDS_CSUM: u8 = 1;
const HEADER_GSO_TCPV4: u8 = 1;

/// Without offloads towards the guest, no frame is longer (5.1.6.3.1): 1514 bytes and the header fit.
const RECEIVE_SLOT: u64 = 2048;
const RECEIVE_SLOTS: u16 = 64;
/// The most frames on their way out.
pub(crate) const MAX_DEPTH: u16 = 64;

/// The segmentation that a frame leaves to the device.
#[derive(Clone, Copy)]
pub(crate) struct Segmentation {
    /// Bytes of Ethernet, IPv4 and TCP headers.
    pub(crate) headers: u16,
    /// The payload's size in each segment.
    pub(crate) size: u16,
    /// Where the TCP header begins.
    pub(crate) checksum_start: u16,
    /// Where the checksum is in it.
    pub(crate) checksum_offset: u16,
}

/// An interface with `depth` slots for frames on their way out.
pub(crate) struct Interface {
    transport: Transport,
    receive: Queue,
    transmit: Queue,
    received: Shared,
    outgoing: Shared,
    frame_size: u64,
    /// Which outgoing slots the device has.
    in_flight: u64,
}

impl Interface {
    /// Opens the first interface for outgoing frames of `frame_size` bytes, `depth` (at most [`MAX_DEPTH`]) at once.
    pub(crate) fn open(
        windows: impl Iterator<Item = Window>,
        arena: &mut Arena,
        depth: u16,
        frame_size: u64,
    ) -> Result<Interface, Failure> {
        let wanted = F_CSUM | F_MAC | F_HOST_TSO4 | feature::RING_EVENT_IDX;
        let transport = Transport::open(Kind::Net, windows, wanted)?;
        let mut receive = transport.queue(RECEIVE, RECEIVE_SLOTS, arena)?;
        let transmit = transport.queue(TRANSMIT, depth, arena)?;
        let received = arena.take(u64::from(RECEIVE_SLOTS) * RECEIVE_SLOT, 4096).ok_or(NO_ROOM)?;
        let slot = Interface::slot_size(frame_size);
        let outgoing = arena.take(u64::from(depth) * slot, 4096).ok_or(NO_ROOM)?;
        transport.start();
        for index in 0..RECEIVE_SLOTS {
            let memory = received.piece(index.into(), RECEIVE_SLOT);
            receive.describe(index, &[Part { memory, device_writes: true }]);
            receive.push(index);
        }
        receive.publish();
        Ok(Interface { transport, receive, transmit, received, outgoing, frame_size, in_flight: 0 })
    }

    /// This interface's address.
    pub(crate) fn mac(&self) -> [u8; 6] {
        if !self.transport.has(F_MAC) {
            return DEFAULT_MAC;
        }
        let mut mac = [0; 6];
        for (offset, byte) in (CONFIG_MAC..).zip(&mut mac) {
            *byte = self.transport.config_u8(offset);
        }
        mac
    }

    /// Whether the device cuts large TCP segments.
    pub(crate) fn segments(&self) -> bool {
        self.transport.has(F_CSUM) && self.transport.has(F_HOST_TSO4)
    }

    /// The frame in an outgoing slot.
    pub(crate) fn frame(&self, slot: u16) -> Shared {
        self.slot(slot).part(HEADER_SIZE, self.frame_size)
    }

    /// Prepares a slot for the first `length` bytes of its frame, once for any number of [`Interface::send`].
    pub(crate) fn prepare(&mut self, slot: u16, length: u64, segmentation: Option<Segmentation>) {
        let memory = self.slot(slot).part(0, HEADER_SIZE + length);
        memory.write_bytes(0, &[0; HEADER_SIZE as usize]);
        if let Some(segmentation) = segmentation {
            memory.write(0, HEADER_F_NEEDS_CSUM);
            memory.write(1, HEADER_GSO_TCPV4);
            memory.write(2, segmentation.headers);
            memory.write(4, segmentation.size);
            memory.write(6, segmentation.checksum_start);
            memory.write(8, segmentation.checksum_offset);
        }
        self.transmit.describe(slot, &[Part { memory, device_writes: false }]);
    }

    /// Hands a free slot's frame to the device, which sees it after [`Interface::publish`].
    pub(crate) fn send(&mut self, slot: u16) {
        self.in_flight |= 1 << slot;
        self.transmit.push(slot);
    }

    /// Shows the device all that was sent.
    pub(crate) fn publish(&mut self) {
        self.transmit.publish();
    }

    /// Waits until the device is done with a frame. Returns its slot.
    pub(crate) fn wait_sent(&mut self) -> Result<u16, Failure> {
        let used = self.transmit.wait()?;
        self.sent(used)
    }

    /// The same without waiting.
    pub(crate) fn poll_sent(&mut self) -> Result<Option<u16>, Failure> {
        match self.transmit.pop()? {
            Some(used) => self.sent(used).map(Some),
            None => Ok(None),
        }
    }

    /// Hands the next frame that has come, if there is one, to `look`, and its buffer back to the device.
    pub(crate) fn poll_received<T>(&mut self, look: impl FnOnce(Shared) -> T) -> Result<Option<T>, Failure> {
        let Some(Used { head, length }) = self.receive.pop()? else { return Ok(None) };
        let length = u64::from(length);
        if !(HEADER_SIZE..=RECEIVE_SLOT).contains(&length) {
            return Err(Failure::new(b"bad-used-ring", b"length"));
        }
        let buffer = self.received.piece(head.into(), RECEIVE_SLOT);
        let result = look(buffer.part(HEADER_SIZE, length - HEADER_SIZE));
        self.receive.push(head);
        self.receive.publish_half();
        Ok(Some(result))
    }

    /// How often the device was notified.
    pub(crate) fn notifications(&self) -> u64 {
        self.receive.notifications() + self.transmit.notifications()
    }

    /// Ends the device's work.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.transport.reset()
    }

    fn sent(&mut self, used: Used) -> Result<u16, Failure> {
        if used.head >= MAX_DEPTH || self.in_flight & (1 << used.head) == 0 {
            return Err(Failure::new(b"bad-used-ring", b"not-in-flight"));
        }
        self.in_flight &= !(1 << used.head);
        Ok(used.head)
    }

    fn slot(&self, slot: u16) -> Shared {
        self.outgoing.piece(slot.into(), Interface::slot_size(self.frame_size))
    }

    /// Slots begin on multiples of 16.
    fn slot_size(frame_size: u64) -> u64 {
        (HEADER_SIZE + frame_size).next_multiple_of(16)
    }
}
