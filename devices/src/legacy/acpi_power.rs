//! Power-off and reset, through the registers of hardware-reduced ACPI.

use serde::{Deserialize, Serialize};

use crate::{Action, ByteDevice, IoError, RestoreError};

/// The registers, by the ACPI specification 6.5, sections 4.8.3.6 (reset) and 4.8.3.7 (sleep control and status).
pub mod spec {
    /// RW: sleep control.
    pub const SLEEP_CONTROL: u64 = 0;
    /// RW: sleep status. The one bit, wake status, is never set: this machine does not wake up again.
    pub const SLEEP_STATUS: u64 = 1;
    /// W: reset.
    pub const RESET: u64 = 2;
    /// How many bytes, from [`SLEEP_CONTROL`] on.
    pub const LENGTH: u64 = 3;

    /// In [`SLEEP_CONTROL`], W: enter the state in the type field.
    pub const SLEEP_ENABLE: u8 = 1 << 5;
    /// In [`SLEEP_CONTROL`], RW: the type of the sleep state, three bits wide.
    pub const SLEEP_TYPE_SHIFT: u8 = 2;
    /// The type field's mask.
    pub const SLEEP_TYPE_MASK: u8 = 0b111 << SLEEP_TYPE_SHIFT;
    /// The type that means soft off. The `_S5` object that the guest is given must say the same.
    pub const SLEEP_TYPE_SOFT_OFF: u8 = 5;
    /// What [`RESET`] takes. RESET_VALUE in the FADT must say the same.
    pub const RESET_VALUE: u8 = 1;
}

const NAME: &str = "ACPI power registers";
const VERSION: u16 = 1;

/// The sleep control, sleep status and reset registers.
#[derive(Debug, Default)]
pub struct AcpiPower {
    // Guest-visible state.
    sleep_type: u8,
}

/// What a snapshot holds of an [`AcpiPower`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AcpiPowerState {
    version: u16,
    sleep_type: u8,
}

impl AcpiPower {
    /// The registers of a machine that runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Their state.
    #[must_use]
    pub fn save(&self) -> AcpiPowerState {
        AcpiPowerState { version: VERSION, sleep_type: self.sleep_type }
    }

    /// Registers in a saved state.
    ///
    /// # Errors
    /// When the state's version is unknown, or its sleep type wider than three bits.
    pub fn restore(state: &AcpiPowerState) -> Result<Self, RestoreError> {
        let AcpiPowerState { version, sleep_type } = *state;
        RestoreError::check_version(NAME, version, VERSION)?;
        let widest = spec::SLEEP_TYPE_MASK >> spec::SLEEP_TYPE_SHIFT;
        RestoreError::check(NAME, "sleep_type", sleep_type, sleep_type <= widest)?;
        Ok(Self { sleep_type })
    }
}

impl ByteDevice for AcpiPower {
    fn read_byte(&mut self, offset: u64) -> Result<u8, IoError> {
        match offset {
            spec::SLEEP_CONTROL => Ok(self.sleep_type << spec::SLEEP_TYPE_SHIFT),
            spec::SLEEP_STATUS => Ok(0),
            _ => Err(IoError::Offset(offset)),
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) -> Result<Action, IoError> {
        match offset {
            spec::SLEEP_CONTROL => {
                self.sleep_type = (value & spec::SLEEP_TYPE_MASK) >> spec::SLEEP_TYPE_SHIFT;
                let off = value & spec::SLEEP_ENABLE != 0 && self.sleep_type == spec::SLEEP_TYPE_SOFT_OFF;
                Ok(if off { Action::PowerOff } else { Action::Continue })
            }
            spec::SLEEP_STATUS => Ok(Action::Continue),
            spec::RESET if value == spec::RESET_VALUE => Ok(Action::Reset),
            spec::RESET => Ok(Action::Continue),
            _ => Err(IoError::Offset(offset)),
        }
    }
}
