//! One split virtqueue, from the device's side (virtio 1.2, section 2.7).

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use vm_memory::{
    AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress,
};

use super::chain::{Chain, Table};
use super::transport::QueueSetup;

#[cfg(test)]
mod tests;

/// Offsets in both rings (sections 2.7.6 and 2.7.8).
const FLAGS: u64 = 0;
const INDEX: u64 = 2;
const ENTRIES: u64 = 4;

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

#[derive(Clone, Copy, Debug)]
struct Parts {
    descriptors: Ring,
    available: Ring,
    used: Ring,
}

/// A ring, or the descriptor table, in the region of memory that it lies in: found once, so that it is reached quickly. Little-endian, as the host is.
#[derive(Clone, Copy, Debug)]
struct Ring {
    region: usize,
    offset: u64,
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
            parts = Some(Parts {
                descriptors: Ring::new(&memory, setup.descriptors)?,
                available: Ring::new(&memory, setup.available)?,
                used: Ring::new(&memory, setup.used)?,
            });
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
        let Some(Parts { descriptors, available, .. }) = self.parts else {
            return Ok(false);
        };
        // What the index covers must not be read before it.
        let index: u16 = available.load(&self.memory, INDEX, Ordering::Acquire);
        match index.wrapping_sub(self.next_available) {
            0 => return Ok(false),
            waiting if waiting > self.size => return Err(QueueError::Index),
            _ => {}
        }
        let entry = ENTRIES + 2 * u64::from(self.next_available & (self.size - 1));
        let head = available.load(&self.memory, entry, Ordering::Relaxed);
        let table = descriptors.table(&self.memory, self.size).ok_or(QueueError::Address)?;
        chain.fill(&self.memory, table, self.size, head)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(true)
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
        self.parts.map_or(0, |parts| {
            let index: u16 = parts.available.load(&self.memory, INDEX, Ordering::Acquire);
            index.wrapping_sub(self.next_available).min(self.size)
        })
    }

    /// Gives the buffer of head `head` back, `written` bytes of its device-writable part filled.
    pub fn add_used(&mut self, head: u16, written: u32) {
        self.add_used_together(&[(head, written)]);
    }

    /// Gives several buffers back, each with how much of it was filled. The driver sees all of them at once or none.
    pub fn add_used_together(&mut self, buffers: &[(u16, u32)]) {
        let Some(Parts { used, .. }) = self.parts else {
            return;
        };
        for &(head, written) in buffers {
            let entry = ENTRIES + 8 * u64::from(self.next_used & (self.size - 1));
            used.store(&self.memory, entry, u32::from(head), Ordering::Relaxed);
            used.store(&self.memory, entry + 4, written, Ordering::Relaxed);
            self.next_used = self.next_used.wrapping_add(1);
        }
        // The driver sees the entries when it sees the index.
        used.store(&self.memory, INDEX, self.next_used, Ordering::Release);
    }

    /// Whether the driver wants an interrupt for what was used since the last call (section 2.7.7.2).
    pub fn needs_interrupt(&mut self) -> bool {
        let told = std::mem::replace(&mut self.told, self.next_used);
        let Some(Parts { available, .. }) = self.parts.filter(|_| told != self.next_used) else {
            return false;
        };
        // The used index must be visible before the driver's wish is read: the driver does it the other way round.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event_at = ENTRIES + 2 * u64::from(self.size);
            let event: u16 = available.load(&self.memory, event_at, Ordering::Relaxed);
            let passed = self.next_used.wrapping_sub(event).wrapping_sub(1);
            return passed < self.next_used.wrapping_sub(told);
        }
        let flags: u16 = available.load(&self.memory, FLAGS, Ordering::Relaxed);
        flags & NO_INTERRUPT == 0
    }

    /// Asks the driver for notifications. `true` if buffers came meanwhile: they may not be notified.
    pub fn enable_notification(&mut self) -> bool {
        let Some(Parts { available, used, .. }) = self.parts else {
            return false;
        };
        if self.event_idx {
            let event_at = ENTRIES + 8 * u64::from(self.size);
            used.store(&self.memory, event_at, self.next_available, Ordering::Relaxed);
        } else {
            used.store(&self.memory, FLAGS, 0u16, Ordering::Relaxed);
        }
        // As in `needs_interrupt`, with the roles exchanged.
        fence(Ordering::SeqCst);
        let index: u16 = available.load(&self.memory, INDEX, Ordering::Relaxed);
        index != self.next_available
    }

    /// Tells the driver that the device looks by itself.
    pub fn disable_notification(&mut self) {
        // With VIRTIO_F_RING_EVENT_IDX a notification is asked for each time, and not called off.
        if let Some(Parts { used, .. }) = self.parts.filter(|_| !self.event_idx) {
            used.store(&self.memory, FLAGS, NO_NOTIFY, Ordering::Relaxed);
        }
    }

    /// Where the device is: the indices of the next available and of the next used entry.
    #[must_use]
    pub fn position(&self) -> (u16, u16) {
        (self.next_available.wrapping_sub(self.kept), self.next_used)
    }
}

/// Rings are checked when they are made. Were one out of memory all the same, it would read as zeros.
impl Ring {
    fn new(memory: &GuestMemoryMmap, address: u64) -> Result<Self, QueueError> {
        let mut regions = memory.iter().enumerate();
        let place =
            regions.find_map(|(region, it)| Some((region, it.to_region_addr(GuestAddress(address))?)));
        place.map(|(region, offset)| Self { region, offset: offset.0 }).ok_or(QueueError::Address)
    }

    fn table(self, memory: &GuestMemoryMmap, size: u16) -> Option<Table<'_>> {
        let region = memory.iter().nth(self.region)?;
        let length = usize::from(size) * Table::ENTRY as usize;
        region.get_slice(MemoryRegionAddress(self.offset), length).ok().map(Table)
    }

    fn load<T: AtomicAccess + Default>(self, memory: &GuestMemoryMmap, at: u64, order: Ordering) -> T {
        let place = MemoryRegionAddress(self.offset + at);
        let value = memory.iter().nth(self.region).and_then(|region| region.load(place, order).ok());
        value.unwrap_or_default()
    }

    fn store<T: AtomicAccess>(self, memory: &GuestMemoryMmap, at: u64, value: T, order: Ordering) {
        if let Some(region) = memory.iter().nth(self.region) {
            let _ = region.store(value, MemoryRegionAddress(self.offset + at), order);
        }
    }
}

impl QueueSetup {
    /// Whether a queue may be run as it is set up.
    pub(super) fn check(&self, max_size: u16, memory: &GuestMemoryMmap) -> Result<(), QueueError> {
        if self.size > max_size || !self.size.is_power_of_two() {
            return Err(QueueError::Size);
        }
        // Alignment and size of each part: section 2.7.
        let size = usize::from(self.size);
        let parts = [
            (self.descriptors, 16, 16 * size),
            (self.available, 2, 6 + 2 * size),
            (self.used, 4, 6 + 8 * size),
        ];
        let sound = parts.into_iter().all(|(start, alignment, length)| {
            // No driver puts a ring at address 0: that is one that was never set.
            start.is_multiple_of(alignment)
                && start != 0
                && memory.get_slice(GuestAddress(start), length).is_ok()
        });
        if sound { Ok(()) } else { Err(QueueError::Address) }
    }
}
