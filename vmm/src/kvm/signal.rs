//! An eventfd that KVM waits for or signals.
#![expect(unsafe_code, reason = "vmm-sys-util's EventFd lends its descriptor as a number only")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::KvmError;

/// The kernel's half of a notification (ioeventfd) or of an interrupt (irqfd).
pub struct Signal(EventFd);

impl Signal {
    /// One that nobody uses yet.
    pub fn new() -> Result<Self, KvmError> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        event.map(Self).map_err(|source| KvmError::Ioctl { call: "eventfd", detail: String::new(), source })
    }

    /// Signals it.
    pub fn send(&self) -> io::Result<()> {
        rustix::io::write(self, &1u64.to_ne_bytes())?;
        Ok(())
    }

    pub(super) fn event(&self) -> &EventFd {
        &self.0
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the EventFd is, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
