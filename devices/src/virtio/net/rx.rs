//! Frames to the guest (virtio 1.2, sections 5.1.6.3 and 5.1.6.4).
//!
//! How long the next frame is, nobody can tell before it is read. Offering the kernel 64 KiB of buffers for
//! each would be safe, and costly: most frames fill one buffer, and forty would be looked up in vain. So as
//! much is offered as frames were long lately, and behind it a buffer of the device's own takes what does not
//! fit: the one copy there is, for a frame that is longer than those before it. It also tells a frame that
//! was cut off from one that just fits.

use std::io;
use std::time::Instant;

use super::spec::{ETHERNET_HEADER, VLAN_TAG, feature, header};
use super::{Batch, MAX_FRAME, MIN_FRAME, RETRY, Side, Stop};
use crate::virtio::chain::write_at;
use crate::virtio::io::{MAX_FRAME_SEGMENTS, Vectors};
use crate::virtio::{Chain, Queue, QueueError, Segment};

/// As much as is offered at least: a frame of the usual MTU.
const SMALL_FRAME: usize = header::LENGTH + ETHERNET_HEADER + VLAN_TAG + 1500;

/// So many frames that would have fitted into half of it, and less is offered.
const PATIENCE: u32 = 64;

/// Puts frames into the receive queue.
pub(super) struct Receiver {
    // Configuration.
    features: u64,
    /// How long a frame may be that is not to be segmented.
    max_ordinary: usize,
    // Wiring.
    vectors: Vectors,
    /// The buffer that was popped last.
    chain: Chain,
    // State.
    /// Buffers that were popped and are not used: frames go into them in this order.
    held: Vec<Buffer>,
    /// Their segments, and their room.
    segments: Vec<Segment>,
    room: usize,
    /// The most buffers that the driver ever had posted at once.
    most: usize,
    /// How much room is offered for the next frame.
    window: usize,
    /// How many frames would have fitted into half of it.
    calm: u32,
    /// A frame that was read: how long it is, header and all. Its header is here, what follows is in the
    /// buffers held, the rest was spilled.
    frame: Option<usize>,
    header: [u8; header::LENGTH],
    spill: Vec<u8>,
}

/// One of the buffers held.
#[derive(Clone, Copy)]
struct Buffer {
    head: u16,
    /// How many of the segments are its own; a chain is no longer than the queue.
    segments: u16,
    room: usize,
}

impl Receiver {
    /// For a driver that accepted `features`, and was told `mtu`.
    pub(super) fn new(features: u64, mtu: Option<u16>) -> Self {
        let mtu = mtu.filter(|_| features & feature::MTU != 0);
        let max_ordinary = mtu.map(|mtu| header::LENGTH + ETHERNET_HEADER + VLAN_TAG + usize::from(mtu));
        Self {
            features,
            max_ordinary: max_ordinary.unwrap_or(MAX_FRAME),
            vectors: Vectors::new(),
            chain: Chain::new(),
            held: Vec::new(),
            segments: Vec::new(),
            room: 0,
            most: 0,
            window: SMALL_FRAME,
            calm: 0,
            frame: None,
            header: [0; header::LENGTH],
            // The host gives the pages when something is spilled.
            spill: Vec::with_capacity(MAX_FRAME),
        }
    }

    /// Delivers what frames there are, as far as limits and buffers allow.
    pub(super) fn serve(&mut self, side: &mut Side<'_>) -> Result<Stop, QueueError> {
        side.queue.disable_notification();
        let posted = self.held.len() + usize::from(side.queue.available());
        self.most = self.most.max(posted.min(side.queue.size().into()));
        let stop = self.receive(side);
        // No more than the queue has.
        side.queue.keep(self.held.len() as u16);
        stop
    }

    fn receive(&mut self, side: &mut Side<'_>) -> Result<Stop, QueueError> {
        let mut batch = Batch::default();
        while batch.turn() {
            if self.frame.is_none() {
                if let Err(deadline) = side.flow.ready() {
                    return Ok(Stop::Until(deadline));
                }
                self.gather(side.queue, self.window)?;
                if !self.held.is_empty() {
                    match self.read(side) {
                        Ok(length) => batch.bytes += length,
                        Err(io::ErrorKind::WouldBlock) => return Ok(Stop::Idle),
                        Err(io::ErrorKind::Interrupted) => continue,
                        Err(_) => {
                            side.flow.counters.errors += 1;
                            return Ok(Stop::Until(Instant::now() + RETRY));
                        }
                    }
                }
            }
            if self.deliver(side)? {
                continue;
            }
            if !side.queue.enable_notification() {
                return Ok(Stop::Starved);
            }
            side.queue.disable_notification();
        }
        Ok(Stop::Batch)
    }

    /// Pops buffers until there is room for `wanted` bytes, or there are no more. Where frames are not
    /// spread, one is all.
    fn gather(&mut self, queue: &mut Queue, wanted: usize) -> Result<(), QueueError> {
        let at_once = if self.mergeable() { usize::from(queue.size()) } else { 1 };
        while self.held.len() < at_once && self.room < wanted {
            if let Some((head, piece)) = queue.pop_piece() {
                self.segments.push(piece);
                self.hold(Buffer { head, segments: 1, room: piece.len() })?;
            } else if queue.pop(&mut self.chain)? {
                let segments = self.chain.writable();
                self.segments.extend_from_slice(segments);
                let (head, room) = (self.chain.head(), self.chain.writable_length());
                self.hold(Buffer { head, segments: segments.len() as u16, room })?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Adds a buffer whose segments were added.
    fn hold(&mut self, buffer: Buffer) -> Result<(), QueueError> {
        // Section 5.1.6.3.1: each buffer holds the header at least.
        if buffer.room < header::LENGTH {
            return Err(QueueError::Buffer);
        }
        self.room += buffer.room;
        self.held.push(buffer);
        Ok(())
    }

    /// Reads the next frame into the buffers held.
    fn read(&mut self, side: &mut Side<'_>) -> Result<usize, io::ErrorKind> {
        let mut offered = self.segments.len();
        if offered > MAX_FRAME_SEGMENTS {
            let ends = self.held.iter().scan(0, |end, buffer| {
                *end += usize::from(buffer.segments);
                Some(*end)
            });
            // A chain alone never has too many.
            offered = ends.take_while(|&end| end <= MAX_FRAME_SEGMENTS).last().unwrap_or(0);
        }
        let (memory, wire) = (side.queue.memory(), side.wire.as_fd());
        let segments = self.segments.get(..offered).unwrap_or_default();
        let read = self.vectors.read_frame(memory, segments, wire, &mut self.header, &mut self.spill);
        match read.map_err(|error| error.kind())? {
            // No frame is empty: nobody is at the other end any more.
            0 => Err(io::ErrorKind::UnexpectedEof),
            length => {
                self.frame = Some(length);
                self.adapt(length);
                side.flow.take(length);
                Ok(length)
            }
        }
    }

    /// Chooses how much to offer for the next frame after one of `length`.
    fn adapt(&mut self, length: usize) {
        if length > self.window {
            self.window = length.next_power_of_two().min(MAX_FRAME);
            self.calm = 0;
        } else if length > self.window / 2 {
            self.calm = 0;
        } else {
            self.calm += 1;
            if self.calm == PATIENCE {
                self.window = (self.window / 2).max(SMALL_FRAME);
                self.calm = 0;
            }
        }
    }

    /// Gives the frame that was read to the driver, or drops it. `false` if there is none, or not enough room
    /// for it yet.
    fn deliver(&mut self, side: &mut Side<'_>) -> Result<bool, QueueError> {
        let Some(length) = self.frame else {
            return Ok(false);
        };
        let mut delivered = false;
        if self.acceptable(length) {
            self.gather(side.queue, length)?;
            // What the driver has not posted again yet may make the room. If it has posted all, nothing will.
            if self.room < length && self.mergeable() && self.held.len() < self.most {
                return Ok(false);
            }
            delivered = self.room >= length && self.hand_over(side.queue, length);
        }
        self.frame = None;
        if delivered {
            side.flow.count(length);
        } else {
            side.flow.counters.dropped += 1;
        }
        Ok(true)
    }

    /// Whether the driver can make sense of the frame. A wire keeps to the driver's features, but what it
    /// holds may be older than they.
    fn acceptable(&self, length: usize) -> bool {
        let [flags, gso_type, ..] = self.header;
        let accepted = |feature: u64| self.features & feature != 0;
        let gso = gso_type & !header::GSO_ECN;
        let gso_accepted = match gso {
            header::GSO_NONE => true,
            header::GSO_TCPV4 => accepted(feature::GUEST_TSO4),
            header::GSO_TCPV6 => accepted(feature::GUEST_TSO6),
            header::GSO_UDP => accepted(feature::GUEST_UFO),
            _ => false,
        };
        let ecn_accepted = gso_type & header::GSO_ECN == 0 || accepted(feature::GUEST_ECN);
        let checksum_accepted = flags & header::NEEDS_CSUM == 0 || accepted(feature::GUEST_CSUM);
        let max = if gso == header::GSO_NONE { self.max_ordinary } else { MAX_FRAME };
        gso_accepted && ecn_accepted && checksum_accepted && (MIN_FRAME..=max).contains(&length)
    }

    /// Completes the frame in as many of the buffers as it takes, and gives them back.
    fn hand_over(&mut self, queue: &mut Queue, length: usize) -> bool {
        let memory = queue.memory();
        let in_place = length - self.spill.len().min(length);
        let (mut room, mut segments, mut count) = (0, 0, 0);
        for buffer in &self.held {
            if room >= length {
                break;
            }
            room += buffer.room;
            segments += usize::from(buffer.segments);
            count += 1;
        }
        // Buffers are filled one after the other, as if they were one.
        let frame = self.segments.get(..segments).unwrap_or_default();
        let mut sound = write_at(memory, frame, in_place, &self.spill);
        // Section 5.1.6.4.1: without GUEST_CSUM the flags are 0. The number of buffers is always set, to 1
        // where frames are not spread.
        if self.features & feature::GUEST_CSUM == 0 {
            self.header[header::FLAGS] = 0;
        }
        self.header[header::NUM_BUFFERS..].copy_from_slice(&(count as u16).to_le_bytes());
        sound &= write_at(memory, frame, 0, &self.header);
        if sound {
            let mut left = length;
            queue.add_used_together(self.held.drain(..count).map(|buffer| {
                let filled = left.min(buffer.room);
                left -= filled;
                // No more than MAX_FRAME.
                (buffer.head, filled as u32)
            }));
            self.room -= room;
            self.segments.drain(..segments);
        }
        sound
    }

    fn mergeable(&self) -> bool {
        self.features & feature::MRG_RXBUF != 0
    }
}
