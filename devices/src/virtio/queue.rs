//! One split virtqueue, from the device's side (virtio 1.2, section 2.7).

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::Chain;
use super::transport::QueueSetup;

#[cfg(test)]
mod tests;

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
    // Wiring.
    memory: GuestMemoryMmap,
    /// Room to put used entries together in.
    entries: Vec<u8>,
    // State.
    ring: virtio_queue::Queue,
    /// How many buffers were used since the driver was last asked whether it wants to know.
    used: u16,
    /// How many of the buffers that were popped last the device keeps untouched.
    kept: u16,
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
        let mut ring = virtio_queue::Queue::new(max_size).map_err(|_| QueueError::Size)?;
        if setup.ready {
            setup.check(max_size, &memory)?;
            ring.try_set_size(setup.size).map_err(|_| QueueError::Size)?;
            ring.try_set_desc_table_address(GuestAddress(setup.descriptors))
                .map_err(|_| QueueError::Address)?;
            ring.try_set_avail_ring_address(GuestAddress(setup.available))
                .map_err(|_| QueueError::Address)?;
            ring.try_set_used_ring_address(GuestAddress(setup.used)).map_err(|_| QueueError::Address)?;
            ring.set_event_idx(event_idx);
            ring.set_next_avail(setup.next_available);
            ring.set_next_used(setup.next_used);
            ring.set_ready(true);
        }
        Ok(Self { memory, ring, entries: Vec::new(), used: 0, kept: 0 })
    }

    /// Whether the driver has set it up.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ring.ready()
    }

    /// How many buffers it holds at most.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.ring.size()
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
        if !self.ring.ready() {
            return Ok(false);
        }
        let size = self.ring.size();
        let mut available = self.ring.iter(&self.memory).map_err(|_| QueueError::Index)?;
        let Some(descriptors) = available.next() else {
            return Ok(false);
        };
        let taken = if descriptors.head_index() < size {
            chain.fill(descriptors, size, &self.memory)
        } else {
            Err(QueueError::Chain)
        };
        if taken.is_err() {
            self.ring.go_to_previous_position();
        }
        taken.map(|()| true)
    }

    /// Puts the buffer that was popped last back, as if it had not been taken.
    pub fn undo_pop(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// Says that the device holds the `count` buffers that were popped last, and has not used any: a saved
    /// machine finds them available.
    pub fn keep(&mut self, count: u16) {
        self.kept = count;
    }

    /// How many buffers are available and not popped; at most as many as the queue holds.
    #[must_use]
    pub fn available(&self) -> u16 {
        let index = self.ring.ready().then(|| self.ring.avail_idx(&self.memory, Ordering::Acquire));
        let index = index.and_then(Result::ok).map_or(self.ring.next_avail(), |index| index.0);
        index.wrapping_sub(self.ring.next_avail()).min(self.ring.size())
    }

    /// Gives the buffer of head `head` back, `written` bytes of its device-writable part filled.
    pub fn add_used(&mut self, head: u16, written: u32) {
        self.add_used_together(&[(head, written)]);
    }

    /// Gives several buffers back, each with how much of it was filled. The driver sees all of them at once or none.
    pub fn add_used_together(&mut self, buffers: &[(u16, u32)]) {
        let Some((&(last, written), others)) = buffers.split_last() else {
            return;
        };
        // The entries of the others are filled in before the last one's, with which the index moves past all. The
        // heads came from `pop` and the rings were checked: nothing of this can fail.
        self.fill_used(others);
        self.ring.set_next_used(self.ring.next_used().wrapping_add(others.len() as u16));
        if self.ring.add_used(&self.memory, last, written).is_ok() {
            self.used = self.used.saturating_add(buffers.len() as u16);
        }
    }

    /// Writes used entries from the next one on, in one go up to the ring's end and in another from its beginning.
    fn fill_used(&mut self, buffers: &[(u16, u32)]) {
        let position = usize::from(self.ring.next_used() % self.ring.size());
        let (first, rest) = buffers.split_at(buffers.len().min(usize::from(self.ring.size()) - position));
        for (position, buffers) in [(position, first), (0, rest)] {
            if buffers.is_empty() {
                continue;
            }
            self.entries.clear();
            for &(head, written) in buffers {
                self.entries.extend_from_slice(&u32::from(head).to_le_bytes());
                self.entries.extend_from_slice(&written.to_le_bytes());
            }
            let address = GuestAddress(self.ring.used_ring() + 4 + 8 * position as u64);
            let _ = self.memory.write_slice(&self.entries, address);
        }
    }

    /// Whether the driver wants an interrupt for what was used since the last call (section 2.7.7.2).
    pub fn needs_interrupt(&mut self) -> bool {
        let used = std::mem::take(&mut self.used);
        if used == 0 {
            return false;
        }
        // The used index must be visible before the driver's wish is read: the driver does it the other way round.
        fence(Ordering::SeqCst);
        let wish = |offset| {
            let address = GuestAddress(self.ring.avail_ring() + offset);
            self.memory.load::<u16>(address, Ordering::Relaxed).map(u16::from_le)
        };
        if self.ring.event_idx_enabled() {
            // used_event, behind the ring: an interrupt once the entry of that index is used.
            let event = wish(4 + 2 * u64::from(self.ring.size()));
            let next = self.ring.next_used();
            return event.map_or(true, |event| next.wrapping_sub(event).wrapping_sub(1) < used);
        }
        wish(0).map_or(true, |flags| flags & NO_INTERRUPT == 0)
    }

    /// Asks the driver for notifications. `true` if buffers came meanwhile: they may not be notified.
    pub fn enable_notification(&mut self) -> bool {
        self.ring.ready() && self.ring.enable_notification(&self.memory).unwrap_or(false)
    }

    /// Tells the driver that the device looks by itself.
    pub fn disable_notification(&mut self) {
        if self.ring.ready() {
            // Fails only where the ring is outside memory, which was checked.
            let _ = self.ring.disable_notification(&self.memory);
        }
    }

    /// Where the device is: the indices of the next available and of the next used entry.
    #[must_use]
    pub fn position(&self) -> (u16, u16) {
        (self.ring.next_avail().wrapping_sub(self.kept), self.ring.next_used())
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
            (self.descriptors, 16, 16 * size, Permissions::Read),
            (self.available, 2, 6 + 2 * size, Permissions::Read),
            (self.used, 4, 6 + 8 * size, Permissions::Write),
        ];
        let sound = parts.into_iter().all(|(start, alignment, length, access)| {
            // The crate takes address 0 of the available ring for one that was never set.
            start.is_multiple_of(alignment)
                && start != 0
                && memory.check_range(GuestAddress(start), length, access)
        });
        if sound { Ok(()) } else { Err(QueueError::Address) }
    }
}
