//! One split virtqueue, from the device's side (virtio 1.2, section 2.7).

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use vm_memory::{
    AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory, VolatileSlice,
};

use super::chain::{Chain, Segment, Table};
use super::io::Window;
use super::transport::QueueSetup;

#[cfg(test)]
mod tests;

/// Offsets in both rings (sections 2.7.6 and 2.7.8).
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;

/// VIRTQ_USED_F_NO_NOTIFY: the device wants no notifications (section 2.7.8).
const NO_NOTIFY: u16 = 1;

/// VIRTQ_AVAIL_F_NO_INTERRUPT: the driver wants no interrupts (section 2.7.6).
const NO_INTERRUPT: u16 = 1;

/// What a driver can do wrong with a queue. The queue cannot be used any more.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum QueueError {
    /// The size is 0, not a power of two, or larger than the device allows.
    #[error("the queue's size is not allowed")]
    Size,
    /// A ring is not aligned as it must be, or not wholly in memory.
    #[error("a ring of the queue is unaligned or outside memory")]
    Address,
    /// More buffers are said to be available than the queue can hold.
    #[error("the available ring's index is out of range")]
    Index,
    /// A chain has a loop, a bad index, a table in a table, or is longer than the queue.
    #[error("a descriptor chain is malformed")]
    Chain,
    /// A buffer is not wholly in memory.
    #[error("a buffer is outside memory")]
    Buffer,
}

/// A queue that its driver has set up.
#[derive(Debug)]
pub struct Queue {
    // Configuration.
    size: u16,
    event_idx: bool,
    // Wiring.
    memory: GuestMemoryMmap,
    /// None where the driver has not set it up.
    parts: Option<Parts>,
    // State. Both count without end and wrap.
    next_available: u16,
    next_used: u16,
    /// Where `next_used` was when the driver was last asked whether it wants to know.
    told: u16,
    /// How many of the buffers that were popped last the device keeps untouched.
    kept: u16,
}

/// The rings are looked up once. Little-endian, as the host is.
#[derive(Debug)]
struct Parts {
    descriptors: Window,
    available: Window,
    used: Window,
}

impl Queue {
    /// A queue as `setup` says, of at most `max_size` buffers.
    ///
    /// # Errors
    /// [`QueueError::Size`] or [`QueueError::Address`].
    pub fn new(
        setup: &QueueSetup,
        max_size: u16,
        event_idx: bool,
        memory: GuestMemoryMmap,
    ) -> Result<Self, QueueError> {
        let mut parts = None;
        if setup.ready {
            setup.check(max_size, &memory)?;
            let window = |(start, _, length)| Window::new(&memory, start, length).ok_or(QueueError::Address);
            let [descriptors, available, used] = setup.parts().map(window);
            parts = Some(Parts { descriptors: descriptors?, available: available?, used: used? });
        }
        let size = if setup.ready { setup.size } else { max_size };
        let (next_available, next_used) = (setup.next_available, setup.next_used);
        Ok(Self { size, event_idx, memory, parts, next_available, next_used, told: next_used, kept: 0 })
    }

    /// Whether the driver has set it up.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.parts.is_some()
    }

    /// How many buffers it holds at most.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The memory that its buffers are in.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Takes the next available buffer into `chain`; `false` if there is none.
    ///
    /// # Errors
    /// When the driver breaks the rules. Nothing is taken then.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let Some(parts) = &self.parts else {
            return Ok(false);
        };
        let Some(head) = self.next_head(parts)? else {
            return Ok(false);
        };
        chain.fill(&self.memory, Table(parts.descriptors.slice()), self.size, head)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(true)
    }

    /// Takes the next available buffer, with its head, if it is a single device-writable piece, as drivers post them by the dozen
    /// for one frame. `None` if it is anything else, or there is none: [`pop`](Self::pop) knows.
    #[inline]
    pub fn pop_piece(&mut self) -> Option<(u16, Segment)> {
        let parts = self.parts.as_ref()?;
        let head = self.next_head(parts).ok()??;
        let segment = Table(parts.descriptors.slice()).writable_piece(&self.memory, head)?;
        self.next_available = self.next_available.wrapping_add(1);
        Some((head, segment))
    }

    /// The head of the next available buffer.
    #[inline]
    fn next_head(&self, parts: &Parts) -> Result<Option<u16>, QueueError> {
        let available = parts.available.slice();
        // What the index covers must not be read before it.
        let index: u16 = load(&available, INDEX, Ordering::Acquire);
        match index.wrapping_sub(self.next_available) {
            0 => return Ok(None),
            waiting if waiting > self.size => return Err(QueueError::Index),
            _ => {}
        }
        let entry = ENTRIES + 2 * usize::from(self.next_available & (self.size - 1));
        Ok(Some(load(&available, entry, Ordering::Relaxed)))
    }

    /// Puts the buffer that was popped last back, as if it had not been taken.
    pub fn undo_pop(&mut self) {
        self.next_available = self.next_available.wrapping_sub(1);
    }

    /// Says that the device holds the `count` buffers that were popped last, and has not used any: a saved
    /// machine finds them available.
    pub fn keep(&mut self, count: u16) {
        self.kept = count;
    }

    /// How many buffers are available and not popped; at most as many as the queue holds.
    #[must_use]
    pub fn available(&self) -> u16 {
        self.parts.as_ref().map_or(0, |parts| {
            let index: u16 = load(&parts.available.slice(), INDEX, Ordering::Acquire);
            index.wrapping_sub(self.next_available).min(self.size)
        })
    }

    /// Gives the buffer of head `head` back, `written` bytes of its device-writable part filled.
    pub fn add_used(&mut self, head: u16, written: u32) {
        self.add_used_together(std::iter::once((head, written)));
    }

    /// Gives several buffers back, each with how much of it was filled. The driver sees all of them at once or none.
    pub fn add_used_together(&mut self, buffers: impl IntoIterator<Item = (u16, u32)>) {
        let Some(Parts { used, .. }) = &self.parts else {
            return;
        };
        let used = used.slice();
        for (head, written) in buffers {
            let entry = ENTRIES + 8 * usize::from(self.next_used & (self.size - 1));
            // Not atomic: the index tells when it is to be read.
            if let Ok(place) = used.get_ref(entry) {
                place.store([u32::from(head), written]);
            }
            self.next_used = self.next_used.wrapping_add(1);
        }
        // The driver sees the entries when it sees the index.
        store(&used, INDEX, self.next_used, Ordering::Release);
    }

    /// Whether the driver wants an interrupt for what was used since the last call (section 2.7.7.2).
    pub fn needs_interrupt(&mut self) -> bool {
        let told = std::mem::replace(&mut self.told, self.next_used);
        let Some(Parts { available, .. }) = self.parts.as_ref().filter(|_| told != self.next_used) else {
            return false;
        };
        let available = available.slice();
        // The used index must be visible before the driver's wish is read: the driver does it the other way round.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event_at = ENTRIES + 2 * usize::from(self.size);
            let event: u16 = load(&available, event_at, Ordering::Relaxed);
            let passed = self.next_used.wrapping_sub(event).wrapping_sub(1);
            return passed < self.next_used.wrapping_sub(told);
        }
        let flags: u16 = load(&available, FLAGS, Ordering::Relaxed);
        flags & NO_INTERRUPT == 0
    }

    /// Asks the driver for notifications. `true` if buffers came meanwhile: they may not be notified.
    pub fn enable_notification(&mut self) -> bool {
        let Some(Parts { available, used, .. }) = &self.parts else {
            return false;
        };
        if self.event_idx {
            let event_at = ENTRIES + 8 * usize::from(self.size);
            store(&used.slice(), event_at, self.next_available, Ordering::Relaxed);
        } else {
            store(&used.slice(), FLAGS, 0u16, Ordering::Relaxed);
        }
        // As in `needs_interrupt`, with the roles exchanged.
        fence(Ordering::SeqCst);
        let index: u16 = load(&available.slice(), INDEX, Ordering::Relaxed);
        index != self.next_available
    }

    /// Tells the driver that the device looks by itself.
    pub fn disable_notification(&mut self) {
        // With VIRTIO_F_RING_EVENT_IDX a notification is asked for each time, and not called off.
        if let Some(Parts { used, .. }) = self.parts.as_ref().filter(|_| !self.event_idx) {
            store(&used.slice(), FLAGS, NO_NOTIFY, Ordering::Relaxed);
        }
    }

    /// Where the device is: the indices of the next available and of the next used entry.
    #[must_use]
    pub fn position(&self) -> (u16, u16) {
        (self.next_available.wrapping_sub(self.kept), self.next_used)
    }
}

// Rings are checked when they are made. Were one shorter or unaligned all the same, it would read as zeros.

fn load<T: AtomicAccess + Default>(ring: &VolatileSlice<'_>, at: usize, order: Ordering) -> T {
    ring.load(at, order).unwrap_or_default()
}

fn store<T: AtomicAccess>(ring: &VolatileSlice<'_>, at: usize, value: T, order: Ordering) {
    let _ = ring.store(value, at, order);
}

impl QueueSetup {
    /// Whether a queue may be run as it is set up.
    pub(super) fn check(&self, max_size: u16, memory: &GuestMemoryMmap) -> Result<(), QueueError> {
        if self.size > max_size || !self.size.is_power_of_two() {
            return Err(QueueError::Size);
        }
        let sound = self.parts().into_iter().all(|(start, alignment, length)| {
            // No driver puts a ring at address 0: that is one that was never set.
            start.is_multiple_of(alignment)
                && start != 0
                && memory.get_slice(GuestAddress(start), length).is_ok()
        });
        if sound { Ok(()) } else { Err(QueueError::Address) }
    }

    /// Start, alignment and size of each part (section 2.7): descriptors, available ring, used ring.
    fn parts(&self) -> [(u64, u64, usize); 3] {
        let size = usize::from(self.size);
        [(self.descriptors, 16, 16 * size), (self.available, 2, 6 + 2 * size), (self.used, 4, 6 + 8 * size)]
    }
}
