//! A machine around a device, for tests, fuzz targets and benches: memory, an interrupt that counts, an event loop that
//! turns when it is told to, and a driver for the queues.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{Timespec, epoll};
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

#[derive(Debug)]
struct Waits {
    epoll: OwnedFd,
    descriptors: Vec<(RawFd, u32, Interest)>,
    timer: Option<Instant>,
}

impl Default for Waits {
    fn default() -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor for the event loop");
        Self { epoll, descriptors: Vec::new(), timer: None }
    }
}

impl FakeReactor {
    /// The tokens to be announced now: of descriptors that are ready. No more than 64 at a time.
    #[must_use]
    pub fn ready(&self) -> Vec<u32> {
        let mut events = Vec::with_capacity(64);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = epoll::wait(&self.lock().epoll, rustix::buffer::spare_capacity(&mut events), Some(&now));
        events.iter().map(|event: &epoll::Event| event.data.u64() as u32).collect()
    }

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
        let flags = match interest {
            Interest::Read => epoll::EventFlags::IN,
            Interest::Write => epoll::EventFlags::OUT,
            Interest::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            Interest::ReadEdge => epoll::EventFlags::IN | epoll::EventFlags::ET,
        };
        self.unwatch(fd);
        let mut waits = self.lock();
        epoll::add(&waits.epoll, fd, epoll::EventData::new_u64(token.into()), flags)?;
        waits.descriptors.push((fd.as_raw_fd(), token, interest));
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        let mut waits = self.lock();
        waits.descriptors.retain(|&(other, ..)| other != fd.as_raw_fd());
        // Fails where nobody waited for it.
        let _ = epoll::delete(&waits.epoll, fd);
    }

    fn set_timer(&mut self, deadline: Option<Instant>) {
        self.lock().timer = deadline;
    }
}
