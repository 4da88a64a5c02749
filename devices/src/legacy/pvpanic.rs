//! The port through which a guest's kernel says that it has panicked (ACPI id QEMU0001).

use serde::{Deserialize, Serialize};

use crate::{Action, ByteDevice, IoError, RestoreError};

/// The register, by QEMU's docs/specs/pvpanic.
pub mod spec {
    /// RW: reads as the events that can be reported, takes those that happened.
    pub const EVENTS: u64 = 0;
    /// How many bytes.
    pub const LENGTH: u64 = 1;

    /// The guest has panicked.
    pub const PANICKED: u8 = 1 << 0;
    /// The guest has panicked and runs its crash kernel.
    pub const CRASH_LOADED: u8 = 1 << 1;
}

const NAME: &str = "pvpanic port";
const VERSION: u16 = 1;

/// The panic port.
#[derive(Debug, Default)]
pub struct Pvpanic;

/// What a snapshot holds of a [`Pvpanic`]: nothing but its version.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PvpanicState {
    version: u16,
}

impl Pvpanic {
    /// The port.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Its state.
    #[must_use]
    pub fn save(&self) -> PvpanicState {
        PvpanicState { version: VERSION }
    }

    /// A port in a saved state.
    ///
    /// # Errors
    /// When the state's version is unknown.
    pub fn restore(state: &PvpanicState) -> Result<Self, RestoreError> {
        RestoreError::check_version(NAME, state.version, VERSION)?;
        Ok(Self)
    }
}

impl ByteDevice for Pvpanic {
    fn read_byte(&mut self, offset: u64) -> Result<u8, IoError> {
        match offset {
            spec::EVENTS => Ok(spec::PANICKED | spec::CRASH_LOADED),
            _ => Err(IoError::Offset(offset)),
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) -> Result<Action, IoError> {
        match offset {
            // A guest that reports both will not run its crash kernel.
            spec::EVENTS if value & spec::PANICKED != 0 => Ok(Action::Panicked { crash_loaded: false }),
            spec::EVENTS if value & spec::CRASH_LOADED != 0 => Ok(Action::Panicked { crash_loaded: true }),
            spec::EVENTS => Ok(Action::Continue),
            _ => Err(IoError::Offset(offset)),
        }
    }
}
