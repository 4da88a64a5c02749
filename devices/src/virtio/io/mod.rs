//! System calls on guest memory: the only unsafe code of the devices.
//!
//! Guest memory is read and written by the guest at any time, so no Rust reference to it may exist, and the standard
//! library's I/O, which takes slices, cannot be used. The calls here hand its addresses to the kernel, which does not mind.
#![expect(unsafe_code, reason = "the kernel reads and writes memory that is outside Rust's rules")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use vm_memory::GuestMemoryMmap;

use super::Segment;

mod discard;
mod frame;
pub mod tap;
#[cfg(test)]
mod tests;
mod uring;
mod window;

pub use discard::{HostPage, discard};
pub use frame::MAX_FRAME_SEGMENTS;
pub use uring::{Completion, Ring};
pub use window::Window;

/// The most pieces that one call takes (IOV_MAX).
const MAX_VECTORS: usize = 1024;

/// What can be done with a file and scattered guest memory.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// Fill the memory from this offset in the file on.
    Read(u64),
    /// Write the memory to this offset in the file.
    Write(u64),
    /// Wait until what was written is stable; no memory is involved.
    Sync,
    /// fallocate(2); no memory is involved.
    Allocate {
        /// What becomes of the range.
        flags: FallocateFlags,
        /// Where it begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
}

/// Scattered guest memory as the operand of one system call. Keeps its room from call to call.
#[derive(Debug, Default)]
pub struct Vectors(Vec<libc::iovec>);

// SAFETY: the addresses are those of guest memory, which all threads may use. They are only read by the kernel: within the
// method that made them and was given the memory, or for a ring that owns the memory.
unsafe impl Send for Vectors {}

impl Vectors {
    /// With room for nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// readv(2): from `fd` into `segments`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        fd: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let (vectors, count) = self.point(memory, segments)?;
        // SAFETY: each vector lies in `memory`, which is mapped readable and writable for as long as it is borrowed.
        check(unsafe { libc::readv(fd.as_raw_fd(), vectors, count) })
    }

    /// writev(2): from `segments` to `fd`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        fd: BorrowedFd<'_>,
    ) -> io::Result<usize> {
        let (vectors, count) = self.point(memory, segments)?;
        // SAFETY: as in `read`.
        check(unsafe { libc::writev(fd.as_raw_fd(), vectors, count) })
    }

    /// preadv(2): from `offset` in `fd` into `segments`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_at(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        fd: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        let (vectors, count) = self.point(memory, segments)?;
        // SAFETY: as in `read`.
        check(unsafe { libc::preadv(fd.as_raw_fd(), vectors, count, offset) })
    }

    /// pwritev(2): from `segments` to `offset` in `fd`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_at(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        fd: BorrowedFd<'_>,
        offset: u64,
    ) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        let (vectors, count) = self.point(memory, segments)?;
        // SAFETY: as in `read`.
        check(unsafe { libc::pwritev(fd.as_raw_fd(), vectors, count, offset) })
    }

    /// Carries out `operation` and waits for it. Returns how many bytes were read or written.
    ///
    /// # Errors
    /// The kernel's.
    pub fn perform(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        fd: BorrowedFd<'_>,
        operation: Operation,
    ) -> io::Result<usize> {
        match operation {
            Operation::Read(offset) => self.read_at(memory, segments, fd, offset),
            Operation::Write(offset) => self.write_at(memory, segments, fd, offset),
            Operation::Sync => Ok(fdatasync(fd).map(|()| 0)?),
            Operation::Allocate { flags, offset, length } => {
                Ok(fallocate(fd, flags, offset, length).map(|()| 0)?)
            }
        }
    }

    /// Address and length, if it is one piece.
    fn single(&self) -> Option<(*mut u8, u32)> {
        match self.0[..] {
            // A segment's length has 32 bits.
            [vector] => Some((vector.iov_base.cast(), vector.iov_len as u32)),
            _ => None,
        }
    }

    /// Makes the vectors for `segments`.
    fn point(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
    ) -> io::Result<(*const libc::iovec, libc::c_int)> {
        self.0.clear();
        self.append(memory, segments, 0)?;
        if self.0.len() > MAX_VECTORS {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // At most MAX_VECTORS.
        Ok((self.0.as_ptr(), self.0.len() as libc::c_int))
    }

    /// Adds the vectors for `segments`, but for the first `skip` bytes. Returns their length.
    fn append(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        mut skip: usize,
    ) -> io::Result<usize> {
        let mut total = 0;
        for segment in segments {
            let skipped = skip.min(segment.len());
            skip -= skipped;
            let length = segment.len() - skipped;
            if length == 0 {
                continue;
            }
            // Segments are checked when they are made; this finds the host's address.
            let slice = segment.slice(memory).and_then(|slice| slice.offset(skipped).ok());
            let slice = slice.ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
            self.0.push(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: length });
            total += length;
        }
        Ok(total)
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    offset.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
