//! The keyboard controller, as far as a reset goes.
//!
//! No keyboard and no mouse are connected. Guests use the controller to pull the CPU's reset line, which is
//! how a PC without ACPI reboots.

use serde::{Deserialize, Serialize};

use crate::{Action, ByteDevice, IoError, RestoreError};

/// The registers, by IBM's PS/2 Hardware Interface Technical Reference, keyboard and auxiliary device controller.
pub mod spec {
    /// RW: data from and to the keyboard.
    pub const DATA: u64 = 0;
    /// RW: system control port B, which has the speaker and the NMI status and lies among the ports.
    pub const PORT_B: u64 = 1;
    /// R: status.
    pub const STATUS: u64 = 4;
    /// W: command.
    pub const COMMAND: u64 = 4;
    /// How many ports, from [`DATA`] on.
    pub const LENGTH: u64 = 5;

    /// In [`PORT_B`]: the output of timer 2 is high.
    pub const PORT_B_TIMER_2_OUT: u8 = 1 << 5;
    /// In [`STATUS`]: the controller's self test has passed. The buffers' bits stay 0: always ready for a command,
    /// never holding data.
    pub const STATUS_SYSTEM_FLAG: u8 = 1 << 2;
    /// A [`COMMAND`]: pulse output line 0, the CPU's reset.
    pub const COMMAND_PULSE_RESET: u8 = 0xfe;
}

const NAME: &str = "keyboard controller";
const VERSION: u16 = 1;

/// A keyboard controller without a keyboard.
#[derive(Debug, Default)]
pub struct I8042;

/// What a snapshot holds of an [`I8042`]: nothing but its version, since no register keeps anything.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct I8042State {
    version: u16,
}

impl I8042 {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Its state.
    #[must_use]
    pub fn save(&self) -> I8042State {
        I8042State { version: VERSION }
    }

    /// A controller in a saved state.
    ///
    /// # Errors
    /// When the state's version is unknown.
    pub fn restore(state: &I8042State) -> Result<Self, RestoreError> {
        RestoreError::check_version(NAME, state.version, VERSION)?;
        Ok(Self)
    }
}

impl ByteDevice for I8042 {
    fn read_byte(&mut self, offset: u64) -> Result<u8, IoError> {
        match offset {
            spec::DATA => Ok(0),
            // There is no timer 2. A kernel that measures the TSC against it waits for its output without a limit.
            spec::PORT_B => Ok(spec::PORT_B_TIMER_2_OUT),
            spec::STATUS => Ok(spec::STATUS_SYSTEM_FLAG),
            _ => Err(IoError::Offset(offset)),
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) -> Result<Action, IoError> {
        match (offset, value) {
            (spec::COMMAND, spec::COMMAND_PULSE_RESET) => Ok(Action::Reset),
            (spec::DATA | spec::PORT_B | spec::COMMAND, _) => Ok(Action::Continue),
            _ => Err(IoError::Offset(offset)),
        }
    }
}
