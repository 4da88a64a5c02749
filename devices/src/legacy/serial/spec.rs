//! The registers of a 16550A, by National Semiconductor's data sheet PC16550D, section 8.
//!
//! Only what this crate looks at is named: vm-superio knows the rest.

/// R: receiver buffer. W: transmitter holding register. RW while the divisor latch is open: its low byte.
pub const DATA: u8 = 0;
/// RW: interrupt enable. RW while the divisor latch is open: its high byte.
pub const INTERRUPT_ENABLE: u8 = 1;
/// R: interrupt identification. W: FIFO control, ignored.
pub const INTERRUPT_IDENTIFICATION: u8 = 2;
/// RW: line control.
pub const LINE_CONTROL: u8 = 3;
/// RW: modem control.
pub const MODEM_CONTROL: u8 = 4;
/// R: line status.
pub const LINE_STATUS: u8 = 5;
/// How many registers.
pub const LENGTH: u64 = 8;

/// In [`INTERRUPT_ENABLE`]: the transmitter holding register is empty.
pub const ENABLE_TRANSMITTER_EMPTY: u8 = 1 << 1;
/// In [`INTERRUPT_ENABLE`]: the bits that exist.
pub const ENABLE_MASK: u8 = 0b1111;

/// In [`INTERRUPT_IDENTIFICATION`]: nothing is pending.
pub const PENDING_NONE: u8 = 1 << 0;
/// In [`INTERRUPT_IDENTIFICATION`]: the transmitter holding register is empty.
pub const PENDING_TRANSMITTER_EMPTY: u8 = 1 << 1;
/// In [`INTERRUPT_IDENTIFICATION`]: data was received.
pub const PENDING_RECEIVED: u8 = 1 << 2;

/// In [`LINE_CONTROL`]: the divisor latch is open.
pub const LINE_CONTROL_DIVISOR_LATCH: u8 = 1 << 7;
/// In [`MODEM_CONTROL`]: what is transmitted is received, and nothing else is.
pub const MODEM_CONTROL_LOOP: u8 = 1 << 4;

/// In [`LINE_STATUS`]: data was received.
pub const LINE_STATUS_DATA_READY: u8 = 1 << 0;
/// In [`LINE_STATUS`]: the transmitter holding register is empty.
pub const LINE_STATUS_TRANSMITTER_EMPTY: u8 = 1 << 5;
/// In [`LINE_STATUS`]: the transmitter's shift register is empty, too.
pub const LINE_STATUS_TRANSMITTER_IDLE: u8 = 1 << 6;
/// [`LINE_STATUS`] without data: the transmitter is free.
pub const LINE_STATUS_FREE: u8 = LINE_STATUS_TRANSMITTER_EMPTY | LINE_STATUS_TRANSMITTER_IDLE;
