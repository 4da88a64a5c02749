//! Descriptors that our parent left open for us, known by their numbers.
#![expect(unsafe_code, reason = "a number from the command line has to become a descriptor")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// A descriptor of our own on what descriptor `number` is.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: borrowed only for the duplication, which fails with EBADF where the number is no open descriptor.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
}
