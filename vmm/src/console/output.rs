//! The bounded buffer between the guest's serial port and stdout.
//!
//! A virtual CPU puts bytes in, one per exit. Writing each to stdout would cost a system call a byte, so a line is
//! written when it is whole, by the virtual CPU itself; what is left without an end of line is written by the event
//! loop a moment later. When stdout takes no more, the buffer fills up to its limit, the serial port says that
//! its transmitter is busy, and the event loop goes on as soon as stdout is writable again.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Sink;
use crate::event_loop::Waker;
use crate::timeline::{Phase, Timeline};

/// Bytes that wait for a slow reader: as much as a pipe holds.
const LIMIT: usize = 64 << 10;
/// A line that never ends is written in pieces of this size.
const PIECE: usize = 4096;

/// Shared by the serial port, which fills it, and the event loop, which empties it.
pub struct ConsoleOutput {
    sink: Sink,
    wake: Waker,
    buffer: Mutex<Buffer>,
    /// Input waits for the guest to read what it has.
    input_waits: AtomicBool,
    timeline: Arc<Timeline>,
}

#[derive(Default)]
struct Buffer {
    bytes: VecDeque<u8>,
    /// The event loop has been told that there is something to write.
    announced: bool,
    /// Stdout took less than it was offered; only the event loop writes until that is over.
    stalled: bool,
    /// The reader is gone: bytes are dropped in silence, as by a terminal that was closed.
    closed: bool,
    /// Why, until the event loop has said so.
    unsaid: Option<io::Error>,
}

/// What the event loop has to do after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is left to write.
    Empty,
    /// Stdout takes no more: wait until it is writable.
    Stalled,
}

impl ConsoleOutput {
    /// A buffer before `sink`; `wake` rouses the event loop.
    pub fn new(sink: Sink, wake: Waker, timeline: Arc<Timeline>) -> Self {
        Self { sink, wake, buffer: Mutex::default(), input_waits: AtomicBool::new(false), timeline }
    }

    /// Takes a byte from the guest, which has asked for room before.
    fn push(&self, byte: u8) {
        self.timeline.mark(Phase::FirstSerialByte);
        let mut buffer = self.lock();
        buffer.bytes.push_back(byte);
        if buffer.stalled {
            return;
        }
        // A virtual CPU may make no other system call than write(2), which is all that a direct sink needs.
        if self.sink.is_direct() && (byte == b'\n' || buffer.bytes.len() >= PIECE) {
            buffer.write_some(&self.sink);
        }
        let unfinished = !buffer.bytes.is_empty() || buffer.unsaid.is_some();
        if unfinished && !buffer.announced {
            buffer.announced = true;
            drop(buffer);
            self.wake.wake();
        }
    }

    /// Asks for the event loop to be roused when the guest has read all of its input, or not.
    pub fn set_input_waits(&self, waits: bool) {
        self.input_waits.store(waits, Ordering::SeqCst);
    }

    /// Whether the guest may send more.
    fn room(&self) -> bool {
        self.lock().bytes.len() < LIMIT
    }

    /// Writes what is there; for the event loop.
    pub fn flush(&self) -> Flushed {
        let mut buffer = self.lock();
        buffer.announced = false;
        buffer.stalled = false;
        while !buffer.bytes.is_empty() && !buffer.stalled {
            buffer.stalled = !buffer.write_some(&self.sink);
        }
        let (stalled, unsaid) = (buffer.stalled, buffer.unsaid.take());
        drop(buffer);
        if let Some(error) = unsaid {
            match error.kind() {
                // A reader that has seen enough.
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    log::debug!("the console's reader is gone; the guest's output is dropped");
                }
                _ => log::warn!("the guest's output cannot be written and is dropped: {error}"),
            }
        }
        if stalled { Flushed::Stalled } else { Flushed::Empty }
    }

    /// Whether there is something that the event loop has been told to write.
    pub fn announced(&self) -> bool {
        self.lock().announced
    }

    /// Stdout, for the event loop to wait on.
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// A panic elsewhere does not make the bytes wrong.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Writes what one call takes. `false`: nothing more just now.
    fn write_some(&mut self, sink: &Sink) -> bool {
        if self.closed {
            self.bytes.clear();
            return true;
        }
        match sink.write(self.bytes.as_slices().0) {
            Ok(written) => drop(self.bytes.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                self.closed = true;
                self.bytes.clear();
                self.unsaid = Some(error);
            }
        }
        true
    }
}

/// The serial port's end of the buffer.
#[derive(Clone)]
pub struct SerialOutput(pub Arc<ConsoleOutput>);

impl devices::legacy::Output for SerialOutput {
    fn write(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn room(&self) -> bool {
        self.0.room()
    }

    fn input_wanted(&mut self) {
        if self.0.input_waits.load(Ordering::SeqCst) {
            self.0.wake.wake();
        }
    }
}

#[cfg(test)]
mod tests;
