//! The clock's registers, by the data sheet of the Motorola MC146818.

/// RW: the index port: which register [`DATA`] reaches.
pub const INDEX: u64 = 0;
/// RW: the data port.
pub const DATA: u64 = 1;
/// How many ports, from [`INDEX`] on.
pub const LENGTH: u64 = 2;

/// In [`INDEX`]: the number of the register. The bit above gates the NMI on a PC and is dropped.
pub const INDEX_MASK: u8 = 0x7f;

/// R: seconds, 0 to 59.
pub const SECONDS: u8 = 0x00;
/// R: minutes, 0 to 59.
pub const MINUTES: u8 = 0x02;
/// R: hours, 0 to 23.
pub const HOURS: u8 = 0x04;
/// R: day of the week, Sunday is 1.
pub const WEEKDAY: u8 = 0x06;
/// R: day of the month, from 1 on.
pub const DAY: u8 = 0x07;
/// R: month, January is 1.
pub const MONTH: u8 = 0x08;
/// R: year, its last two digits.
pub const YEAR: u8 = 0x09;
/// R: year, the two digits before: no register of the MC146818, but the place that PCs agreed on.
pub const CENTURY: u8 = 0x32;

/// R: status A.
pub const STATUS_A: u8 = 0x0a;
/// R: status B.
pub const STATUS_B: u8 = 0x0b;
/// R: status C, the interrupts that are pending: none, ever.
pub const STATUS_C: u8 = 0x0c;
/// R: status D.
pub const STATUS_D: u8 = 0x0d;
/// How many registers there are. What is not named here (the three alarms, the rest) is RW memory.
pub const REGISTERS: usize = 0x80;

/// In [`STATUS_A`]: the time is about to change, and must not be read.
pub const STATUS_A_UPDATING: u8 = 1 << 7;
/// In [`STATUS_A`]: a 32.768 kHz crystal, and the rate of 1024 Hz that a PC sets up.
pub const STATUS_A_RATE: u8 = 0x26;
/// [`STATUS_A_UPDATING`] is seen this long, in ns, before the time changes.
pub const UPDATE_NOTICE_NS: u32 = 244_000;
/// In [`STATUS_B`]: hours count to 24. Binary mode, interrupts and the rest are off: digits are BCD.
pub const STATUS_B_24_HOURS: u8 = 1 << 1;
/// In [`STATUS_D`]: memory and time are valid.
pub const STATUS_D_VALID: u8 = 1 << 7;
