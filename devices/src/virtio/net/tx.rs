//! Frames from the guest (virtio 1.2, section 5.1.6.2).

use std::io::ErrorKind;

use super::{Batch, MAX_FRAME, MIN_FRAME, Side, Stop};
use crate::virtio::io::Vectors;
use crate::virtio::{Chain, QueueError};

/// Takes frames out of the transmit queue. A buffer is a frame, with its header at the front, in however many pieces.
#[derive(Default)]
pub(super) struct Transmitter {
    chain: Chain,
    vectors: Vectors,
}

impl Transmitter {
    /// Sends what frames there are, as far as limits and wire allow.
    pub(super) fn serve(&mut self, side: &mut Side<'_>) -> Result<Stop, QueueError> {
        side.queue.disable_notification();
        let mut batch = Batch::default();
        while batch.turn() {
            if let Err(deadline) = side.flow.ready() {
                return Ok(Stop::Until(deadline));
            }
            if !side.queue.pop(&mut self.chain)? {
                if !side.queue.enable_notification() {
                    return Ok(Stop::Idle);
                }
                side.queue.disable_notification();
                continue;
            }
            match self.send(side) {
                Ok(length) => batch.bytes += length,
                Err(ErrorKind::WouldBlock) => {
                    side.queue.undo_pop();
                    return Ok(Stop::Blocked);
                }
                // A signal; the frame has another turn.
                Err(_) => side.queue.undo_pop(),
            }
        }
        Ok(Stop::Batch)
    }

    /// Sends the frame in `chain`, or drops it, and gives the buffer back. Only for want of room, or because
    /// of a signal, it stays.
    fn send(&mut self, side: &mut Side<'_>) -> Result<usize, ErrorKind> {
        let (frame, length) = (self.chain.readable(), self.chain.readable_length());
        if !(MIN_FRAME..=MAX_FRAME).contains(&length) {
            side.link.fault();
            side.flow.counters.dropped += 1;
            side.queue.add_used(self.chain.head(), 0);
            return Ok(0);
        }
        match self.vectors.write(side.queue.memory(), frame, side.wire.as_fd()).map_err(|error| error.kind())
        {
            Ok(_) => side.flow.count(length),
            Err(kind @ (ErrorKind::WouldBlock | ErrorKind::Interrupted)) => return Err(kind),
            Err(kind) => {
                // The kernel checks the header: what it cannot make sense of is the driver's fault. Else the
                // interface is down, or gone.
                if kind == ErrorKind::InvalidInput {
                    side.link.fault();
                } else {
                    side.flow.counters.errors += 1;
                }
                side.flow.counters.dropped += 1;
            }
        }
        side.flow.take(length);
        side.queue.add_used(self.chain.head(), 0);
        Ok(length)
    }
}
