//! One epoll instance: descriptors to wait for, each with a token, until a deadline.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use devices::virtio::Interest;
use rustix::event::{self, Timespec, epoll};

/// More descriptors that are ready at once wait for the next turn.
const BATCH: usize = 16;
/// A wait that is longer would take another system call than epoll_pwait(2), whose limit is in milliseconds.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Rouses an event loop from another thread.
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// For one loop, which waits for it like for any descriptor.
    pub fn new() -> io::Result<Self> {
        let fd = event::eventfd(0, event::EventfdFlags::CLOEXEC | event::EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Makes the loop turn once.
    pub fn wake(&self) {
        // Fails only if the counter would overflow: then the loop has been roused already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Takes note; the loop sleeps until the next call to [`wake`](Self::wake).
    pub fn acknowledge(&self) {
        // Fails only if there is nothing to take note of.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Descriptors of one thread. A clone is another handle on the same ones.
#[derive(Clone)]
pub struct EventLoop {
    epoll: Arc<OwnedFd>,
}

impl EventLoop {
    /// Without descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?) })
    }

    /// Waits for `fd` from now on. `false` where it is a file, which is always ready and cannot be waited for.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<bool> {
        match epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags(interest)) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::PERM) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for something else on `fd`, or announces another token.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), flags(interest))?)
    }

    /// Waits for `fd` no longer.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Sleeps until something is ready or `deadline` passes, and calls `ready` with each token. Wakes up earlier where the
    /// deadline is more than a day away.
    pub fn wait(&self, deadline: Option<Instant>, mut ready: impl FnMut(u64)) -> io::Result<()> {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; BATCH];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            ready(event.data.u64());
        }
        Ok(())
    }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    match interest {
        Interest::Read => epoll::EventFlags::IN,
        Interest::Write => epoll::EventFlags::OUT,
        Interest::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        Interest::ReadEdge => epoll::EventFlags::IN | epoll::EventFlags::ET,
    }
}
