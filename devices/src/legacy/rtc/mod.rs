//! The real-time clock of a PC: time of day, and 128 bytes less of memory.
//!
//! The time is the host's, in UTC and BCD; the guest cannot set it, since the host's clock is the better one and
//! a guest's notion of it must not outlive a snapshot. There are no alarms and no interrupts.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{Action, ByteDevice, IoError, RestoreError};

pub mod spec;
#[cfg(test)]
mod tests;

const NAME: &str = "real-time clock";
const VERSION: u16 = 1;
const SECONDS_PER_DAY: u64 = 86_400;

/// Where the time comes from.
pub trait Clock: Send {
    /// The time since 1970-01-01 00:00 UTC.
    fn now(&self) -> Duration;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // A host set to before 1970 shows its guests 1970.
        SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
    }
}

impl<F: Fn() -> Duration + Send> Clock for F {
    fn now(&self) -> Duration {
        self()
    }
}

/// The real-time clock.
#[derive(Debug)]
pub struct Rtc<C: Clock = SystemClock> {
    // Wiring.
    clock: C,

    // Guest-visible state.
    index: u8,
    memory: [u8; spec::REGISTERS],
}

/// What a snapshot holds of an [`Rtc`]. The time is not in it: it goes on while a machine is saved.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RtcState {
    version: u16,
    index: u8,
    memory: Vec<u8>,
}

impl<C: Clock> Rtc<C> {
    /// A clock that shows the time of `clock`.
    pub fn new(clock: C) -> Self {
        Self { clock, index: 0, memory: [0; spec::REGISTERS] }
    }

    /// Its state.
    #[must_use]
    pub fn save(&self) -> RtcState {
        RtcState { version: VERSION, index: self.index, memory: self.memory.to_vec() }
    }

    /// A clock in a saved state that shows the time of `clock`.
    ///
    /// # Errors
    /// When the state's version is unknown, or its index or memory does not fit.
    pub fn restore(state: &RtcState, clock: C) -> Result<Self, RestoreError> {
        RestoreError::check_version(NAME, state.version, VERSION)?;
        RestoreError::check(NAME, "index", state.index, state.index & !spec::INDEX_MASK == 0)?;
        let memory = state.memory.as_slice().try_into();
        let memory = memory.map_err(|_| RestoreError::Value {
            device: NAME,
            field: "the length of memory",
            value: state.memory.len() as u64,
        })?;
        Ok(Self { clock, index: state.index, memory })
    }

    fn read_register(&self) -> u8 {
        let now = self.clock.now();
        let date = || Date::of(now);
        match self.index {
            spec::SECONDS => bcd(now.as_secs() % 60),
            spec::MINUTES => bcd(now.as_secs() / 60 % 60),
            spec::HOURS => bcd(now.as_secs() / 3600 % 24),
            // Day 0 of the epoch was a Thursday, day 5 of a week that begins with 1.
            spec::WEEKDAY => bcd((now.as_secs() / SECONDS_PER_DAY + 4) % 7 + 1),
            spec::DAY => bcd(date().day),
            spec::MONTH => bcd(date().month),
            spec::YEAR => bcd(date().year),
            spec::CENTURY => bcd(date().year / 100),
            spec::STATUS_A if now.subsec_nanos() >= 1_000_000_000 - spec::UPDATE_NOTICE_NS => {
                spec::STATUS_A_RATE | spec::STATUS_A_UPDATING
            }
            spec::STATUS_A => spec::STATUS_A_RATE,
            spec::STATUS_B => spec::STATUS_B_24_HOURS,
            spec::STATUS_C => 0,
            spec::STATUS_D => spec::STATUS_D_VALID,
            index => self.memory[usize::from(index)],
        }
    }
}

impl<C: Clock> ByteDevice for Rtc<C> {
    fn read_byte(&mut self, offset: u64) -> Result<u8, IoError> {
        match offset {
            spec::INDEX => Ok(self.index),
            spec::DATA => Ok(self.read_register()),
            _ => Err(IoError::Offset(offset)),
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) -> Result<Action, IoError> {
        match offset {
            spec::INDEX => self.index = value & spec::INDEX_MASK,
            // Bytes under the time and the status registers are written and never read.
            spec::DATA => self.memory[usize::from(self.index)] = value,
            _ => return Err(IoError::Offset(offset)),
        }
        Ok(Action::Continue)
    }
}

/// A day of the Gregorian calendar.
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// The day at `time` since 1970.
    ///
    /// Years are counted from the first of March of year 0, so that a leap day ends one. Months from March on
    /// then have 153 days in every five.
    fn of(time: Duration) -> Self {
        const DAYS_FROM_YEAR_0: u64 = 719_468;
        const DAYS_IN_400_YEARS: u64 = 146_097;

        let days = time.as_secs() / SECONDS_PER_DAY + DAYS_FROM_YEAR_0;
        let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
        let year = (day - day / 1_460 + day / 36_524 - day / (DAYS_IN_400_YEARS - 1)) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        Self {
            year: era * 400 + year + u64::from(month >= 10),
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day - (153 * month + 2) / 5 + 1,
        }
    }
}

/// The last two decimal digits of `value`, one in each half of a byte.
fn bcd(value: u64) -> u8 {
    let value = (value % 100) as u8;
    ((value / 10) << 4) | (value % 10)
}
