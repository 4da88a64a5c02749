//! The event loop, as a device sees it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// The token with which an expired timer is announced.
pub const TIMER: u32 = u32::MAX;

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interest {
    /// To be readable.
    Read,
    /// To be writable.
    Write,
    /// Either.
    Both,
    /// To *become* readable: announced once each time, however much is left unread.
    ReadEdge,
}

/// Where a device says what it waits for. Each device has one of its own, with its own space of tokens.
pub trait Reactor: Send {
    /// Announces `token` when `fd` is ready; a second call for the same descriptor changes token and interest.
    ///
    /// # Errors
    /// When the host refuses: `fd` cannot be waited for, or there are too many.
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()>;

    /// Waits for `fd` no longer. Nothing happens if nobody did.
    fn unwatch(&mut self, fd: BorrowedFd<'_>);

    /// Announces [`TIMER`] once at `deadline`, replacing an earlier deadline; `None` calls it off.
    fn set_timer(&mut self, deadline: Option<Instant>);
}
