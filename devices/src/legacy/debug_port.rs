//! Two ports of mote's own: the status of the guest's job, and the moment when the guest is ready.

use serde::{Deserialize, Serialize};

use crate::{Action, ByteDevice, IoError, RestoreError};

/// The registers.
pub mod spec {
    /// RW: the status of the guest's job, 0 until it is written.
    pub const STATUS: u64 = 0;
    /// W: whatever is written marks the guest as ready.
    pub const READY: u64 = 1;
    /// How many bytes, from [`STATUS`] on.
    pub const LENGTH: u64 = 2;
}

const NAME: &str = "debug port";
const VERSION: u16 = 1;

/// The debug port.
#[derive(Debug, Default)]
pub struct DebugPort {
    // Guest-visible state.
    status: u8,
}

/// What a snapshot holds of a [`DebugPort`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DebugPortState {
    version: u16,
    status: u8,
}

impl DebugPort {
    /// A port to which nothing was written yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The status that the guest reported last, 0 if none.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The port's state.
    #[must_use]
    pub fn save(&self) -> DebugPortState {
        DebugPortState { version: VERSION, status: self.status }
    }

    /// A port in a saved state.
    ///
    /// # Errors
    /// When the state's version is unknown.
    pub fn restore(state: &DebugPortState) -> Result<Self, RestoreError> {
        RestoreError::check_version(NAME, state.version, VERSION)?;
        Ok(Self { status: state.status })
    }
}

impl ByteDevice for DebugPort {
    fn read_byte(&mut self, offset: u64) -> Result<u8, IoError> {
        match offset {
            spec::STATUS => Ok(self.status),
            _ => Err(IoError::Offset(offset)),
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) -> Result<Action, IoError> {
        match offset {
            spec::STATUS => {
                self.status = value;
                Ok(Action::GuestStatus(value))
            }
            spec::READY => Ok(Action::GuestReady),
            _ => Err(IoError::Offset(offset)),
        }
    }
}
