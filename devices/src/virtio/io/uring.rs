//! An io_uring that reads and writes guest memory: many operations in flight, one system call for all of them.
//!
//! What makes it sound: the ring owns the guest memory that the kernel works on, and lets go of it only when nothing is in
//! flight. Were it dropped before, and the host slow to finish, it would leak the mapping rather than free it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, register::Restriction, squeue};
use vm_memory::GuestMemoryMmap;

use super::{Operation, Vectors, file_offset};
use crate::virtio::Segment;

#[cfg(test)]
mod tests;

/// How long a ring that is dropped waits for what is in flight.
const PATIENCE: Duration = Duration::from_secs(1);

/// The ring, and what the kernel may touch through it.
pub struct Ring {
    // Wiring.
    ring: IoUring,
    memory: Option<GuestMemoryMmap>,
    // State.
    /// One for each tag that was ever used.
    places: Vec<Place>,
    in_flight: usize,
    /// In flight, but not yet handed to the kernel.
    queued: usize,
}

/// What one operation needs until it is over.
#[derive(Default)]
struct Place {
    /// There while the operation is in flight.
    file: Option<Arc<File>>,
    vectors: Vectors,
}

/// An operation that is over.
#[derive(Debug)]
pub struct Completion {
    /// What it was started with.
    pub tag: u16,
    /// The file it was started with.
    pub file: Arc<File>,
    /// How many bytes were read or written, which may be fewer than there is room for; 0 for other operations.
    pub result: io::Result<usize>,
}

impl Ring {
    /// A ring for `entries` operations at a time, a power of two. It can do nothing but the [`Operation`]s, and cannot be
    /// changed any more: afterwards no other system call than `io_uring_enter` is needed.
    ///
    /// # Errors
    /// When the host has no io_uring (before Linux 5.11), or forbids it (`kernel.io_uring_disabled`, seccomp).
    pub fn new(entries: u16) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_r_disabled();
        // Completions wait for this thread's next system call instead of interrupting it; from Linux 5.19 on.
        let ring = match builder.clone().setup_coop_taskrun().build(entries.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.build(entries.into())?,
            result => result?,
        };
        // No completion is ever lost; vectors are copied when they are submitted; waiting can end by time.
        let features = ring.params();
        if !features.is_feature_nodrop()
            || !features.is_feature_submit_stable()
            || !features.is_feature_ext_arg()
        {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let codes = [
            opcode::Read::CODE,
            opcode::Readv::CODE,
            opcode::Write::CODE,
            opcode::Writev::CODE,
            opcode::Fsync::CODE,
            opcode::Fallocate::CODE,
        ];
        ring.submitter().register_restrictions(&mut codes.map(Restriction::sqe_op))?;
        ring.submitter().register_enable_rings()?;
        Ok(Self { ring, memory: None, places: Vec::new(), in_flight: 0, queued: 0 })
    }

    /// The memory of what is started from now on. `false`, and nothing changes, while something is in flight.
    #[must_use]
    pub fn set_memory(&mut self, memory: Option<GuestMemoryMmap>) -> bool {
        let idle = self.in_flight == 0;
        if idle {
            self.memory = memory;
        }
        idle
    }

    /// Starts `operation` on `file` and `segments`, at the latest with the next [`submit`](Self::submit). `tag` must not
    /// be in flight.
    ///
    /// # Errors
    /// When it cannot be started: a tag beyond the ring or in flight, no memory, a segment outside it. The file is given back.
    pub fn start(
        &mut self,
        tag: u16,
        file: Arc<File>,
        operation: Operation,
        segments: &[Segment],
    ) -> Result<(), Completion> {
        match self.try_start(tag, &file, operation, segments) {
            Ok(()) => {
                if let Some(place) = self.places.get_mut(usize::from(tag)) {
                    place.file = Some(file);
                }
                self.in_flight += 1;
                self.queued += 1;
                Ok(())
            }
            Err(error) => Err(Completion { tag, file, result: Err(error) }),
        }
    }

    /// Hands what was started to the kernel. Some of it may be over when this returns.
    ///
    /// # Errors
    /// When the kernel does not take all of it just now. It is kept, and taken with a later call.
    pub fn submit(&mut self) -> io::Result<()> {
        // The kernel stops at an operation that it refuses outright, which completes with an error.
        while self.queued > 0 {
            match self.ring.submit() {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(taken) => self.queued = self.queued.saturating_sub(taken),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Something that is over, if there is anything. Costs no system call.
    pub fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let tag = entry.user_data() as u16;
        let file = self.places.get_mut(usize::from(tag))?.file.take()?;
        self.in_flight -= 1;
        let result = usize::try_from(entry.result());
        let result = result.map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        Some(Completion { tag, file, result })
    }

    /// How many operations were started and have not been seen to be over.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn try_start(
        &mut self,
        tag: u16,
        file: &Arc<File>,
        operation: Operation,
        segments: &[Segment],
    ) -> io::Result<()> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        if u32::from(tag) >= self.ring.params().sq_entries() {
            return Err(invalid());
        }
        if self.places.len() <= usize::from(tag) {
            self.places.resize_with(usize::from(tag) + 1, Place::default);
        }
        let place = self.places.get_mut(usize::from(tag)).filter(|place| place.file.is_none());
        let place = place.ok_or_else(invalid)?;
        let memory = self.memory.as_ref().ok_or_else(invalid)?;
        let entry = place.entry(memory, Fd(file.as_raw_fd()), operation, segments)?;
        let entry = entry.user_data(tag.into());
        // SAFETY: what the entry points to lives until the operation is over: guest memory in `self.memory`, which stays while
        // anything is in flight; the vectors and the file in the place, which is not used again before.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| invalid())
    }

    /// Waits for what is in flight, until `deadline`.
    fn drain(&mut self, deadline: Instant) {
        while self.in_flight > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let timeout = Timespec::from(left);
            // Whatever it says, time goes on.
            let _ = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout));
            while self.next_completion().is_some() {}
        }
    }
}

impl Place {
    fn entry(
        &mut self,
        memory: &GuestMemoryMmap,
        fd: Fd,
        operation: Operation,
        segments: &[Segment],
    ) -> io::Result<squeue::Entry> {
        let (vectors, count) = self.vectors.point(memory, segments)?;
        // `point` allows no more than fit.
        let count = count as u32;
        // A single piece needs no vector, neither here nor in the kernel.
        // A segment's length has 32 bits.
        let single = self.vectors.single().map(|(address, length)| (address, length as u32));
        Ok(match (operation, single) {
            (Operation::Read(offset), Some((address, length))) => {
                file_offset(offset)?;
                opcode::Read::new(fd, address, length).offset(offset).build()
            }
            (Operation::Read(offset), None) => {
                file_offset(offset)?;
                opcode::Readv::new(fd, vectors, count).offset(offset).build()
            }
            (Operation::Write(offset), Some((address, length))) => {
                file_offset(offset)?;
                opcode::Write::new(fd, address, length).offset(offset).build()
            }
            (Operation::Write(offset), None) => {
                file_offset(offset)?;
                opcode::Writev::new(fd, vectors, count).offset(offset).build()
            }
            (Operation::Sync, _) => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            (Operation::Allocate { flags, offset, length }, _) => {
                let entry = opcode::Fallocate::new(fd, length).offset(offset);
                // The kernel's numbers, all of which are small.
                entry.mode(flags.bits() as i32).build()
            }
        })
    }
}

impl AsFd for Ring {
    /// Readable while something is over and has not been seen.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and closes it when it is dropped, not before.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.drain(Instant::now() + PATIENCE);
        if self.in_flight > 0 {
            // A host that hangs may still write there. The process ends, or it has lost this memory.
            std::mem::forget(self.memory.take());
        }
    }
}
