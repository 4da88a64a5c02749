//! What every device is: registers that are read and written, and the actions that follow.

use std::io;

use thiserror::Error;

/// A device on a [`Bus`](crate::Bus).
///
/// A device knows no base address: `offset` counts from the start of its own range. The bus hands over
/// only accesses of 1, 2, 4 or 8 bytes that lie wholly inside that range.
pub trait Device: Send {
    /// Fills `data` from the registers at `offset`.
    ///
    /// # Errors
    /// When there is nothing to read there, or not in this width, or the host fails. What `data` holds then is of no account:
    /// the bus answers the guest with ones.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), IoError>;

    /// Takes `data` into the registers at `offset`.
    ///
    /// # Errors
    /// When there is nothing to write there, or not in this width, or the host fails.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Action, IoError>;
}

/// What the machine has to do after a write.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use = "a guest that asked to be switched off would go on"]
pub enum Action {
    /// Nothing: the guest goes on.
    #[default]
    Continue,
    /// The guest switched the machine off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest's kernel panicked.
    Panicked {
        /// It will start its crash kernel itself: the machine must not be ended under it.
        crash_loaded: bool,
    },
    /// The guest reported the status of its job.
    GuestStatus(u8),
    /// The guest reported that it is ready.
    GuestReady,
}

/// Why a device did not carry out an access.
#[derive(Debug, Error)]
pub enum IoError {
    /// The device has no register there that can be accessed in this direction.
    #[error("no register to access at offset {0:#x}")]
    Offset(u64),
    /// The registers there cannot be accessed in this width.
    #[error("the registers cannot be accessed {0} bytes at a time")]
    Width(usize),
    /// The registers at this offset cannot be written in the state that the device is in.
    #[error("the register at offset {0:#x} does not take that now")]
    State(u64),
    /// The host did not deliver the interrupt that the access caused.
    #[error("the interrupt was not delivered")]
    Interrupt(#[source] io::Error),
}

/// A device whose registers are all one byte wide.
///
/// A wider access is split into bytes at rising offsets, as the bridge to an 8-bit ISA bus does it: guests
/// rely on that where two registers lie side by side (one 16-bit write to the RTC's index and data), and
/// refusing would protect nothing, since each byte is checked by itself.
///
/// A write stops at the first byte that is refused or asks for an action other than [`Action::Continue`]:
/// the machine acts on one thing at a time.
pub trait ByteDevice: Send {
    /// Reads the register at `offset`.
    ///
    /// # Errors
    /// See [`Device::read`].
    fn read_byte(&mut self, offset: u64) -> Result<u8, IoError>;

    /// Writes `value` to the register at `offset`.
    ///
    /// # Errors
    /// See [`Device::write`].
    fn write_byte(&mut self, offset: u64, value: u8) -> Result<Action, IoError>;
}

impl<D: ByteDevice> Device for D {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), IoError> {
        for (offset, byte) in (offset..=u64::MAX).zip(data) {
            *byte = self.read_byte(offset)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Action, IoError> {
        for (offset, &byte) in (offset..=u64::MAX).zip(data) {
            let action = self.write_byte(offset, byte)?;
            if action != Action::Continue {
                return Ok(action);
            }
        }
        Ok(Action::Continue)
    }
}
