//! A request on its way through the host: one or more operations until it can be answered.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FallocateFlags;
use vm_memory::GuestMemoryMmap;

use super::request::{Request, room};
use super::spec::{ID, status};
use crate::virtio::io::{Operation, Vectors};
use crate::virtio::{Chain, Queue, Segment, cut};

/// How often an operation that the host interrupts is tried again.
const RETRIES: u8 = 8;

/// A request in flight. Made to be used again and again: it keeps its room.
#[derive(Default)]
pub(super) struct Job {
    pub(super) chain: Chain,
    /// The index of the queue that it came from.
    pub(super) queue: usize,
    request: Option<Request>,
    /// At its end everything that was written must be stable.
    sync: bool,
    /// All its data, and what is left of it.
    data: Vec<Segment>,
    left: Vec<Segment>,
    done: u32,
    retries: u8,
}

/// When what the driver writes is to be stable, so that a power cut does not take it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stability {
    /// The host decides; a flush does nothing.
    Never,
    /// When it has been flushed.
    OnFlush,
    /// When it is answered.
    OnWrite,
}

/// How a job goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// With another operation.
    Next,
    /// It is answered with this status.
    Answer(u8),
}

impl Job {
    /// Begins with `request`, which was parsed from the job's chain.
    pub(super) fn begin(&mut self, request: Request, stability: Stability) {
        request.data(&self.chain, &mut self.data);
        self.request = Some(request);
        self.sync = match request {
            Request::Read { .. } | Request::GetId => false,
            Request::Flush => stability != Stability::Never,
            Request::Write { .. } | Request::Discard { .. } | Request::WriteZeroes { .. } => {
                stability == Stability::OnWrite
            }
        };
        self.done = 0;
        self.retries = 0;
    }

    /// The short way of most requests: does all of a read or write in one call. `false` if it is neither, or something is
    /// left to do: [`operation`](Self::operation) tells what. After an error that is all of it once more, and finds the error again.
    pub(super) fn transfer_at_once(
        &mut self,
        vectors: &mut Vectors,
        memory: &GuestMemoryMmap,
        file: BorrowedFd<'_>,
    ) -> bool {
        let (result, length) = match self.request {
            Some(Request::Read { offset, length }) => {
                (vectors.read_at(memory, &self.data, file, offset), length)
            }
            Some(Request::Write { offset, length }) => {
                (vectors.write_at(memory, &self.data, file, offset), length)
            }
            _ => return false,
        };
        // No more than was asked for.
        self.done = result.map_or(0, |count| count as u32).min(length);
        self.done == length && !self.sync
    }

    /// What the host has to do, and with which guest memory; none if it has nothing to do.
    pub(super) fn operation(&mut self) -> Option<(Operation, &[Segment])> {
        let request = self.request?;
        let left = request.length() - self.done;
        let done = u64::from(self.done);
        let operation = match request {
            _ if left == 0 => return self.sync.then_some((Operation::Sync, &[])),
            Request::Flush | Request::GetId => return None,
            Request::Read { offset, .. } => Operation::Read(offset + done),
            Request::Write { offset, .. } => Operation::Write(offset + done),
            Request::Discard { offset, length } => allocate(FallocateFlags::PUNCH_HOLE, offset, length),
            Request::WriteZeroes { offset, length, unmap: true } => {
                allocate(FallocateFlags::PUNCH_HOLE, offset, length)
            }
            Request::WriteZeroes { offset, length, unmap: false } => {
                allocate(FallocateFlags::ZERO_RANGE, offset, length)
            }
        };
        if self.done == 0 {
            return Some((operation, &self.data));
        }
        self.left.clear();
        cut(&self.data, self.done as usize, left as usize, &mut self.left);
        Some((operation, &self.left))
    }

    /// What follows from the end of the last operation.
    pub(super) fn advance(&mut self, result: io::Result<usize>) -> Step {
        let Some(request) = self.request else {
            return Step::Answer(status::IOERR);
        };
        match (result, request) {
            // There was only the synchronization left.
            (Ok(_), _) if self.done == request.length() => Step::Answer(status::OK),
            // The file ends where it did not when it was opened.
            (Ok(0), Request::Read { .. } | Request::Write { .. }) => Step::Answer(status::IOERR),
            (Ok(count), Request::Read { length, .. } | Request::Write { length, .. }) => {
                // No more than was asked for.
                self.done = (self.done + count as u32).min(length);
                self.next()
            }
            (Ok(_), _) => {
                self.done = request.length();
                self.next()
            }
            (Err(error), _) if transient(&error) && self.retries < RETRIES => {
                self.retries += 1;
                Step::Next
            }
            (Err(error), Request::Discard { .. } | Request::WriteZeroes { .. })
                if error.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                Step::Answer(status::UNSUPP)
            }
            (Err(_), _) => Step::Answer(status::IOERR),
        }
    }

    /// The answer to a request that needs no operation.
    pub(super) fn immediate(&self, id: &[u8; ID], memory: &GuestMemoryMmap) -> u8 {
        let Some(Request::GetId) = self.request else {
            return status::OK;
        };
        let fits = room(&self.chain).unwrap_or(0).min(ID);
        let written = id.get(..fits).is_some_and(|id| self.chain.write_at(memory, 0, id));
        if written { status::OK } else { status::IOERR }
    }

    /// Writes the status byte and gives the buffer back.
    pub(super) fn answer(&mut self, queue: &mut Queue, status: u8) {
        let room = room(&self.chain).unwrap_or(0);
        // The chain was checked to be in memory.
        let _ = self.chain.write_last(queue.memory(), status);
        // Section 2.7.8.2: at least as many bytes must have been written, from the beginning on. If some of the data are
        // missing, the status byte is not counted either.
        let data = match self.request {
            _ if status != status::OK => 0,
            Some(Request::Read { length, .. }) => length as usize,
            Some(Request::GetId) => room.min(ID),
            _ => 0,
        };
        let written = if data == room { data + 1 } else { data };
        queue.add_used(self.chain.head(), u32::try_from(written).unwrap_or(0));
        self.request = None;
    }

    fn next(&self) -> Step {
        let left = self.request.is_some_and(|request| self.done < request.length());
        if left || self.sync { Step::Next } else { Step::Answer(status::OK) }
    }
}

fn allocate(mode: FallocateFlags, offset: u64, length: u32) -> Operation {
    // The size never changes, even where the file was made shorter.
    Operation::Allocate { flags: mode | FallocateFlags::KEEP_SIZE, offset, length: length.into() }
}

fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
