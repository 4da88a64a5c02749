//! A split virtqueue (virtio 1.2, 2.7), from the driver's side. Interrupts come only where one is asked for.
//!
//! Descriptors are not allocated: each driver divides the table once and for all, so that nothing is searched for while
//! the clock runs.

use core::sync::atomic::{Ordering, fence};

use super::failure::Failure;
use crate::dma::Shared;
use crate::{cpu, memory};

const DESCRIPTOR_SIZE: u64 = 16;
/// Flags of a descriptor (2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Flag of the available ring (2.7.6): no interrupt, please.
const NO_INTERRUPT: u16 = 1;
/// Flag of the used ring (2.7.8): no notification, please.
const NO_NOTIFY: u16 = 1;
/// Both rings have flags and index first.
const INDEX: u64 = 2;
const RING: u64 = 4;
const AVAILABLE_ENTRY: u64 = 2;
const USED_ENTRY: u64 = 8;

/// One buffer of a chain.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) memory: Shared,
    /// The device writes to it; else it reads.
    pub(crate) device_writes: bool,
}

/// A chain that the device is done with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used {
    /// Its first descriptor: less than the queue's size.
    pub(crate) head: u16,
    /// How many bytes the device says it has written.
    pub(crate) length: u32,
}

/// The driver's side of a queue.
pub(crate) struct Queue {
    descriptors: Shared,
    available: Shared,
    used: Shared,
    size: u16,
    event_index: bool,
    /// The notification register, and what to write to it.
    notify: (u64, u32),
    /// The available index with what has been pushed, and as the device knows it.
    next_available: u16,
    published: u16,
    next_used: u16,
    notifications: u64,
}

impl Queue {
    /// Bytes for the three parts of a queue of `size`, a power of two. The order keeps each aligned.
    pub(crate) fn memory_needed(size: u16) -> u64 {
        let [_, _, end] = Queue::offsets(size);
        end
    }

    /// Where the available ring starts, the used ring, and where that ends: each has one event field after its entries.
    fn offsets(size: u16) -> [u64; 3] {
        let size = u64::from(size);
        let available = size * DESCRIPTOR_SIZE;
        let used = (available + RING + size * AVAILABLE_ENTRY + 2).next_multiple_of(4);
        [available, used, used + RING + size * USED_ENTRY + 2]
    }

    /// A queue without a buffer in it.
    pub(crate) fn new(memory: Shared, size: u16, event_index: bool, notify: (u64, u32)) -> Queue {
        let [available, used, end] = Queue::offsets(size);
        for at in (0..end / 2).map(|half| half * 2) {
            memory.write(at, 0u16);
        }
        let queue = Queue {
            descriptors: memory.part(0, available),
            available: memory.part(available, used - available),
            used: memory.part(used, end - used),
            size,
            event_index,
            notify,
            next_available: 0,
            published: 0,
            next_used: 0,
            notifications: 0,
        };
        queue.suppress_interrupts();
        queue
    }

    /// What the device has to be told: descriptor table, available ring, used ring.
    pub(crate) fn addresses(&self) -> [u64; 3] {
        [self.descriptors.address(), self.available.address(), self.used.address()]
    }

    /// How often the device was notified: each time is an exit.
    pub(crate) fn notifications(&self) -> u64 {
        self.notifications
    }

    /// Fills the descriptors from `first` with a chain.
    pub(crate) fn describe(&mut self, first: u16, parts: &[Part]) {
        for (index, part) in (first..).zip(parts) {
            let at = u64::from(index) * DESCRIPTOR_SIZE;
            let is_last = usize::from(index - first) + 1 == parts.len();
            let next = if is_last { 0 } else { NEXT };
            let write = if part.device_writes { WRITE } else { 0 };
            self.descriptors.write(at, part.memory.address());
            self.descriptors.write(at + 8, part.memory.length() as u32);
            self.descriptors.write(at + 12, next | write);
            self.descriptors.write(at + 14, index + 1);
        }
    }

    /// Puts a chain into the available ring. The device sees it after [`Queue::publish`].
    pub(crate) fn push(&mut self, head: u16) {
        let slot = u64::from(self.next_available & (self.size - 1));
        self.available.write(RING + slot * AVAILABLE_ENTRY, head);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Shows the device what was pushed, and notifies it if it wants that (2.7.13).
    pub(crate) fn publish(&mut self) {
        let old = self.published;
        if old == self.next_available {
            return;
        }
        self.available.write(INDEX, self.next_available);
        self.published = self.next_available;
        // The index must be visible before the device's wish is read.
        fence(Ordering::SeqCst);
        let wanted = if self.event_index {
            let event: u16 = self.used.read(RING + u64::from(self.size) * USED_ENTRY);
            // 2.7.10: whether the index has moved past the event.
            let past = self.published.wrapping_sub(event).wrapping_sub(1);
            past < self.published.wrapping_sub(old)
        } else {
            self.used.read::<u16>(0) & NO_NOTIFY == 0
        };
        if wanted {
            self.notify();
        }
    }

    /// Notifies the device.
    pub(crate) fn notify(&mut self) {
        memory::write_register(self.notify.0, self.notify.1);
        self.notifications += 1;
    }

    /// Asks for an interrupt for the next chain that the device is done with (2.7.7), until that is taken.
    pub(crate) fn interrupt_once(&self) {
        if self.event_index {
            self.write_used_event(self.next_used);
        } else {
            self.available.write(0, 0u16);
        }
    }

    /// The same once half of the queue's chains wait for it: enough for buffers that the device fills, and fewer exits.
    pub(crate) fn publish_half(&mut self) {
        if self.next_available.wrapping_sub(self.published) >= self.size / 2 {
            self.publish();
        }
    }

    /// The next chain that the device is done with, if there is one.
    pub(crate) fn pop(&mut self) -> Result<Option<Used>, Failure> {
        if self.used.read::<u16>(INDEX) == self.next_used {
            return Ok(None);
        }
        let entry = RING + u64::from(self.next_used & (self.size - 1)) * USED_ENTRY;
        let head: u32 = self.used.read(entry);
        let length = self.used.read(entry + 4);
        self.next_used = self.next_used.wrapping_add(1);
        self.suppress_interrupts();
        match u16::try_from(head) {
            Ok(head) if head < self.size => Ok(Some(Used { head, length })),
            _ => Err(Failure::new(b"bad-used-ring", b"descriptor")),
        }
    }

    /// Waits for the next chain that the device is done with.
    pub(crate) fn wait(&mut self) -> Result<Used, Failure> {
        let patience = cpu::Patience::new();
        loop {
            if let Some(used) = self.pop()? {
                return Ok(used);
            }
            if patience.is_over() {
                return Err(Failure::new(b"timeout", b"used-ring"));
            }
            cpu::relax();
        }
    }

    /// With event indexes, an interrupt is due when the used index passes the one that is written here: the farthest from
    /// where it stands.
    fn suppress_interrupts(&self) {
        if self.event_index {
            self.write_used_event(self.next_used.wrapping_sub(1));
        } else {
            self.available.write(0, NO_INTERRUPT);
        }
    }

    fn write_used_event(&self, index: u16) {
        self.available.write(RING + u64::from(self.size) * AVAILABLE_ENTRY, index);
    }
}
