//! What saved device states have in common: a version, and errors when they are not to be trusted.

use std::io;

use thiserror::Error;

/// Why a saved state was not restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The state was written by another version of mote.
    #[error(
        "the saved state of the {device} has version {found}, this mote reads version {known}: use the mote that saved it"
    )]
    Version {
        /// The device's name.
        device: &'static str,
        /// The version in the state.
        found: u16,
        /// The version that this build reads and writes.
        known: u16,
    },
    /// The state holds what the device can never hold.
    #[error("the saved state of the {device} is damaged: {field} cannot be {value:#x}")]
    Value {
        /// The device's name.
        device: &'static str,
        /// The field of its state.
        field: &'static str,
        /// What was found there.
        value: u64,
    },
    /// The host did not deliver an interrupt that was pending in the state.
    #[error("the saved state of the {device} holds an interrupt that was not delivered")]
    Interrupt {
        /// The device's name.
        device: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl RestoreError {
    /// Refuses a state whose version is not the one known.
    pub(crate) fn check_version(device: &'static str, found: u16, known: u16) -> Result<(), Self> {
        if found == known { Ok(()) } else { Err(Self::Version { device, found, known }) }
    }

    /// Refuses a field unless it is `sound`.
    pub(crate) fn check(
        device: &'static str,
        field: &'static str,
        value: impl Into<u64>,
        sound: bool,
    ) -> Result<(), Self> {
        if sound { Ok(()) } else { Err(Self::Value { device, field, value: value.into() }) }
    }
}
