//! A machine around a device, for tests, fuzz targets and benches: memory, an interrupt that counts, an event loop that only
//! takes notes, and a driver for the queues.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::Trigger;
use crate::virtio::{Interest, Reactor};

mod driver;
mod guest;

pub use driver::{Buffer, Descriptor, DriverQueue, INDIRECT, NEXT, WRITE};
pub use guest::Guest;

/// How much memory [`memory`] has.
pub const MEMORY: usize = 16 << 20;

/// Guest memory from address 0 on.
///
/// # Panics
/// When the host has none.
#[must_use]
pub fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("a little anonymous memory")
}

/// Counts how often it was raised.
#[derive(Clone, Debug, Default)]
pub struct CountingTrigger(Arc<AtomicUsize>);

impl CountingTrigger {
    /// How often it was raised since the last call.
    #[must_use]
    pub fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Trigger for CountingTrigger {
    fn trigger(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A host that delivers nothing.
#[derive(Clone, Copy, Debug)]
pub struct BrokenTrigger;

impl Trigger for BrokenTrigger {
    fn trigger(&self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

/// Notes what a device waits for; the test plays the event loop.
#[derive(Clone, Debug, Default)]
pub struct FakeReactor(Arc<Mutex<Waits>>);

#[derive(Debug, Default)]
struct Waits {
    descriptors: Vec<(RawFd, u32, Interest)>,
    timer: Option<Instant>,
}

impl FakeReactor {
    /// The descriptors that are watched, each with its token and interest.
    #[must_use]
    pub fn watched(&self) -> Vec<(RawFd, u32, Interest)> {
        self.lock().descriptors.clone()
    }

    /// When the timer expires.
    #[must_use]
    pub fn timer(&self) -> Option<Instant> {
        self.lock().timer
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reactor for FakeReactor {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.unwatch(fd);
        self.lock().descriptors.push((fd.as_raw_fd(), token, interest));
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.lock().descriptors.retain(|&(other, ..)| other != fd.as_raw_fd());
    }

    fn set_timer(&mut self, deadline: Option<Instant>) {
        self.lock().timer = deadline;
    }
}
