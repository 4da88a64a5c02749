//! System calls on guest memory: the only unsafe code of the devices.
//!
//! Guest memory is read and written by the guest at any time, so no Rust reference to it may exist, and the standard
//! library's I/O, which takes slices, cannot be used. The calls here hand its addresses to the kernel, which does not mind.
//! They go by number: the functions of libc's that have a name are cancellation points, which takes as many instructions
//! as the rest of a small request.
#![expect(unsafe_code, reason = "the kernel reads and writes memory that is outside Rust's rules")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use vm_memory::GuestMemoryMmap;

use super::Segment;
use super::chain::Lookup;

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

    /// readv(2), or read(2) where it is one piece, which costs the kernel less: from `fd` into `segments`.
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
        check(match self.single() {
            // SAFETY: each vector lies in `memory`, which is mapped readable and writable for as long as it is borrowed.
            Some((at, length)) => unsafe { libc::syscall(libc::SYS_read, raw(fd), at, length) },
            // SAFETY: as above.
            None => unsafe { libc::syscall(libc::SYS_readv, raw(fd), vectors, count) },
        })
    }

    /// writev(2) or write(2): from `segments` to `fd`.
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
        check(match self.single() {
            // SAFETY: as in `read`.
            Some((at, length)) => unsafe { libc::syscall(libc::SYS_write, raw(fd), at, length) },
            // SAFETY: as in `read`.
            None => unsafe { libc::syscall(libc::SYS_writev, raw(fd), vectors, count) },
        })
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
        // SAFETY: as in `read`. The last argument is the upper half of the offset where it has two.
        check(unsafe { libc::syscall(libc::SYS_preadv, raw(fd), vectors, count, offset, 0_i64) })
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
        // SAFETY: as in `read_at`.
        check(unsafe { libc::syscall(libc::SYS_pwritev, raw(fd), vectors, count, offset, 0_i64) })
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
    fn single(&self) -> Option<(*mut u8, usize)> {
        match self.0[..] {
            [vector] => Some((vector.iov_base.cast(), vector.iov_len)),
            _ => None,
        }
    }

    /// Makes the vectors for `segments`.
    fn point(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
    ) -> io::Result<(*const libc::iovec, usize)> {
        self.0.clear();
        self.append(memory, segments, 0)?;
        if self.0.len() > MAX_VECTORS {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok((self.0.as_ptr(), self.0.len()))
    }

    /// Adds the vectors for `segments`, but for the first `skip` bytes. Returns their length.
    fn append(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        mut skip: usize,
    ) -> io::Result<usize> {
        let mut total = 0;
        let mut lookup = Lookup::new(memory);
        for segment in segments {
            let mut piece = *segment;
            if skip > 0 {
                piece = segment.part(skip, usize::MAX);
                skip = skip.saturating_sub(segment.len());
            }
            if piece.is_empty() {
                continue;
            }
            // Segments are checked when they are made; this finds the host's address.
            let address = lookup.find(&piece).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
            self.0.push(libc::iovec { iov_base: address.cast(), iov_len: piece.len() });
            total += piece.len();
        }
        Ok(total)
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    offset.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A descriptor as the operand of a system call, all of whose operands have 64 bits.
fn raw(fd: BorrowedFd<'_>) -> libc::c_long {
    fd.as_raw_fd().into()
}

fn check(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
