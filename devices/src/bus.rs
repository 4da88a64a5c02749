//! A map from guest addresses to devices.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::{Action, Device, IoError};

#[cfg(test)]
mod tests;

/// Why a device was not put on a bus.
#[derive(Debug, Error, Eq, PartialEq)]
pub enum BusError {
    /// The range holds no address, or runs past the last one.
    #[error(
        "a device of {length:#x} bytes at {base:#x} does not fit the address space: change its address or size"
    )]
    Range {
        /// The first address asked for.
        base: u64,
        /// How many bytes.
        length: u64,
    },
    /// Another device has some of the addresses.
    #[error("a device of {length:#x} bytes at {base:#x} overlaps the one at {other:#x}: move one of them")]
    Overlap {
        /// The first address asked for.
        base: u64,
        /// How many bytes.
        length: u64,
        /// Where the device begins that is there already.
        other: u64,
    },
}

/// Port I/O or memory-mapped I/O: address ranges, each with its device.
///
/// It is filled while a machine is built and then shared by its vCPU threads. An access that no device
/// carries out is the guest's business, not an error of the machine: a read answers with ones, as an undriven bus
/// does, a write is dropped, and both are counted.
#[derive(Default)]
pub struct Bus {
    /// Sorted by address, never overlapping.
    slots: Vec<Slot>,
    unclaimed: AtomicU64,
    refused: AtomicU64,
    undelivered: AtomicU64,
}

/// How many accesses went wrong since the bus was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BusCounters {
    /// Accesses that begin where no device is.
    pub unclaimed: u64,
    /// Accesses that a device refused, that run past its end, or that are not 1, 2, 4 or 8 bytes wide.
    pub refused: u64,
    /// Accesses whose interrupt the host did not deliver: the host's fault, not the guest's.
    pub undelivered: u64,
}

struct Slot {
    first: u64,
    last: u64,
    device: Arc<Mutex<dyn Device>>,
}

impl Bus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at `length` bytes from `base` on.
    ///
    /// # Errors
    /// When the range is empty, wraps around, or overlaps another device's.
    pub fn insert(&mut self, base: u64, length: u64, device: Arc<Mutex<dyn Device>>) -> Result<(), BusError> {
        let last = length.checked_sub(1).and_then(|reach| base.checked_add(reach));
        let last = last.ok_or(BusError::Range { base, length })?;
        let index = self.slots.partition_point(|slot| slot.last < base);
        if let Some(slot) = self.slots.get(index).filter(|slot| slot.first <= last) {
            return Err(BusError::Overlap { base, length, other: slot.first });
        }
        self.slots.insert(index, Slot { first: base, last, device });
        Ok(())
    }

    /// Fills `data` with what the guest reads at `address`: ones, if no device answers.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        let done = match self.find(address, data.len()) {
            Ok(slot) => self.count(slot.with_device(|device| device.read(address - slot.first, data))),
            Err(counter) => add_one(counter),
        };
        if done.is_none() {
            data.fill(0xff);
        }
    }

    /// Carries out the guest's write of `data` to `address` and returns what it asks of the machine.
    pub fn write(&self, address: u64, data: &[u8]) -> Action {
        let done = match self.find(address, data.len()) {
            Ok(slot) => self.count(slot.with_device(|device| device.write(address - slot.first, data))),
            Err(counter) => add_one(counter),
        };
        done.unwrap_or_default()
    }

    /// How many accesses went wrong so far.
    #[must_use]
    pub fn counters(&self) -> BusCounters {
        BusCounters {
            unclaimed: self.unclaimed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            undelivered: self.undelivered.load(Ordering::Relaxed),
        }
    }

    /// The slot that holds the whole access, else the counter of what is wrong with it.
    fn find(&self, address: u64, width: usize) -> Result<&Slot, &AtomicU64> {
        let index = self.slots.partition_point(|slot| slot.last < address);
        let slot = self.slots.get(index).filter(|slot| slot.first <= address).ok_or(&self.unclaimed)?;
        // An access of 8 bytes reaches at most 7 bytes on; no sum, so nothing can wrap.
        let fits = matches!(width, 1 | 2 | 4 | 8) && slot.last - address >= width as u64 - 1;
        if fits { Ok(slot) } else { Err(&self.refused) }
    }

    fn count<T>(&self, result: Result<T, IoError>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(IoError::Interrupt(_)) => add_one(&self.undelivered),
            Err(IoError::Offset(_) | IoError::Width(_) | IoError::State(_)) => add_one(&self.refused),
        }
    }
}

impl Slot {
    /// A device that panicked under its lock (in a test: mote aborts) is no more wrong than before.
    fn with_device<T>(&self, access: impl FnOnce(&mut dyn Device) -> T) -> T {
        access(&mut *self.device.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn add_one<T>(counter: &AtomicU64) -> Option<T> {
    counter.fetch_add(1, Ordering::Relaxed);
    None
}

impl fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.slots.iter().map(|slot| format!("{:#x}..={:#x}", slot.first, slot.last));
        formatter.debug_struct("Bus").field("slots", &ranges.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
