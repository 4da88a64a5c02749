//! One split virtqueue, from the device's side (virtio 1.2, section 2.7).

use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::Chain;
use super::transport::QueueSetup;

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
    // State.
    ring: virtio_queue::Queue,
    /// Buffers were used since the driver was last asked whether it wants to know.
    used: bool,
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
        Ok(Self { memory, ring, used: false })
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
        let mut available = self.ring.iter(&self.memory).map_err(|_| QueueError::Index)?;
        let Some(head) = available.next().map(|chain| chain.head_index()) else {
            return Ok(false);
        };
        let taken = chain.fill(&self.memory, self.ring.desc_table(), self.ring.size(), head);
        if taken.is_err() {
            self.ring.go_to_previous_position();
        }
        taken.map(|()| true)
    }

    /// Puts the buffer that was popped last back, as if it had not been taken.
    pub fn undo_pop(&mut self) {
        self.ring.go_to_previous_position();
    }

    /// Gives the buffer of head `head` back, `written` bytes of its device-writable part filled.
    pub fn add_used(&mut self, head: u16, written: u32) {
        // `head` came from `pop` and the rings were checked: this cannot fail.
        self.used |= self.ring.add_used(&self.memory, head, written).is_ok();
    }

    /// Whether the driver wants an interrupt for what was used since the last call (section 2.7.7.2).
    pub fn needs_interrupt(&mut self) -> bool {
        if !std::mem::take(&mut self.used) {
            return false;
        }
        if self.ring.event_idx_enabled() {
            return self.ring.needs_notification(&self.memory).unwrap_or(true);
        }
        // The used index must be visible before the flag is read: the driver does it the other way round.
        fence(Ordering::SeqCst);
        let flags = self.memory.load::<u16>(GuestAddress(self.ring.avail_ring()), Ordering::Relaxed);
        flags.map_or(true, |flags| u16::from_le(flags) & NO_INTERRUPT == 0)
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
        (self.ring.next_avail(), self.ring.next_used())
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
