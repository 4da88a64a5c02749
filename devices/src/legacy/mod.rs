//! The few devices of a PC that a guest cannot do without, or is better off with.
//!
//! All have registers one byte wide ([`ByteDevice`](crate::ByteDevice)).

pub mod acpi_power;
pub mod debug_port;
pub mod i8042;
pub mod pvpanic;
pub mod rtc;
pub mod serial;

#[cfg(test)]
mod tests;

pub use acpi_power::{AcpiPower, AcpiPowerState};
pub use debug_port::{DebugPort, DebugPortState};
pub use i8042::{I8042, I8042State};
pub use pvpanic::{Pvpanic, PvpanicState};
pub use rtc::{Clock, Rtc, RtcState, SystemClock};
pub use serial::{Output, Serial, SerialState};
