//! Reading a frame whose length nobody knows beforehand.

use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::GuestMemoryMmap;

use super::{MAX_VECTORS, Vectors, check, raw};
use crate::virtio::Segment;

/// The most segments that [`Vectors::read_frame`] takes: the header and what is spilled have a vector each.
pub const MAX_FRAME_SEGMENTS: usize = MAX_VECTORS - 2;

impl Vectors {
    /// readv(2): fills `header`, then `segments` but for as many bytes at their front, which are kept for it; what is left
    /// of the frame goes into the room of `spill`, whose length becomes that of the rest. Returns the length of all.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_frame(
        &mut self,
        memory: &GuestMemoryMmap,
        segments: &[Segment],
        fd: BorrowedFd<'_>,
        header: &mut [u8],
        spill: &mut Vec<u8>,
    ) -> io::Result<usize> {
        spill.clear();
        self.0.clear();
        self.0.push(libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() });
        let offered = self.append(memory, segments, header.len())? + header.len();
        let room = spill.spare_capacity_mut();
        self.0.push(libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() });
        if self.0.len() > MAX_VECTORS {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the vectors are those of guest memory, mapped for as long as it is borrowed, and two
        // borrowed buffers.
        let read = unsafe { libc::syscall(libc::SYS_readv, raw(fd), self.0.as_ptr(), self.0.len()) };
        let length = check(read)?;
        // SAFETY: the kernel fills vectors in their order, so it has written so much of the last one, which
        // is the spare room.
        unsafe { spill.set_len(length.saturating_sub(offered)) };
        Ok(length)
    }
}
