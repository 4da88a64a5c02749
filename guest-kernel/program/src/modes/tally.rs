//! What the device modes have in common: scratch memory, when to stop, and the figures they print.

use super::samples::{self, quantile};
use crate::dma::Arena;
use crate::machine::Machine;
use crate::memory::Ram;
use crate::options::Options;
use crate::serial::Line;
use crate::virtio::failure::Failure;
use crate::{clock, cpu, report};

const MIB: u64 = 1 << 20;
const DEFAULT_COUNT: u64 = 1000;
/// How many operations can be under way at once.
pub(super) const SLOTS: usize = 64;
const NS_PER_KHZ_CYCLE: u64 = 1_000_000;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// When to stop: after so many operations, or so many TSC cycles.
#[derive(Clone, Copy)]
enum End {
    Count(u64),
    Cycles(u64),
}

/// Counts operations, keeps what each took, and says when it is enough.
pub(super) struct Tally {
    name: &'static [u8],
    samples: &'static mut [u64],
    /// When the operation in each slot began.
    began: &'static mut [u64],
    end: End,
    khz: Option<u64>,
    start: u64,
    cycles: u64,
    operations: u64,
}

impl Tally {
    /// The tally of a mode whose operations have `size` bytes, and memory for its driver. It ends after `ms=` (which needs
    /// a clock of known frequency), else after `n=` operations or `mb=`.
    pub(super) fn new(
        machine: Machine,
        name: &'static [u8],
        options: &Options<'_>,
        size: u64,
    ) -> (Tally, Arena) {
        let Some(ram) = Ram::take() else {
            report::fail(machine, report::STATUS_FAILED, b"no-ram", b"scratch");
        };
        let (samples, rest) = ram.scratch().split_at_mut(samples::LIMIT);
        let (began, rest) = rest.split_at_mut(SLOTS);
        let khz = clock::tsc_khz();
        let end = match (options.ms, khz) {
            (None, _) => {
                let by_bytes = options.mb.map(|mb| mb.saturating_mul(MIB) / size);
                End::Count(options.n.or(by_bytes).unwrap_or(DEFAULT_COUNT))
            }
            (Some(ms), Some(khz)) => End::Cycles(ms.saturating_mul(khz)),
            (Some(_), None) => report::fail(machine, report::STATUS_FAILED, b"unknown-frequency", b"tsc"),
        };
        let tally = Tally { name, samples, began, end, khz, start: 0, cycles: 0, operations: 0 };
        (tally, Arena::new(rest))
    }

    /// The clock starts.
    pub(super) fn start(&mut self) {
        self.start = cpu::timestamp();
    }

    /// Whether operation number `started`, from 0, may still begin.
    pub(super) fn goes_on(&self, started: u64) -> bool {
        match self.end {
            End::Count(count) => started < count,
            End::Cycles(cycles) => cpu::timestamp().wrapping_sub(self.start) < cycles,
        }
    }

    /// An operation begins that has the number `slot` among those that are under way.
    pub(super) fn begin(&mut self, slot: u16) {
        if let Some(began) = self.began.get_mut(usize::from(slot)) {
            *began = cpu::timestamp();
        }
    }

    /// It has ended. Of very many, the last are kept.
    pub(super) fn end(&mut self, slot: u16) {
        let began = self.began.get(usize::from(slot)).copied().unwrap_or_default();
        let at = self.operations % self.samples.len() as u64;
        if let Some(sample) = self.samples.get_mut(at as usize) {
            *sample = cpu::timestamp().wrapping_sub(began);
        }
        self.operations += 1;
    }

    /// The clock stops.
    pub(super) fn stop(&mut self) {
        self.cycles = cpu::timestamp().wrapping_sub(self.start);
    }

    /// How many operations have ended.
    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// Prints the figures. Nanoseconds are left out where the clock's frequency is not known.
    pub(super) fn print(&mut self, bytes: u64, errors: u64, notifications: u64) {
        let mut line = self.line();
        number(&mut line, b" ops=", self.operations);
        number(&mut line, b" bytes=", bytes);
        number(&mut line, b" errors=", errors);
        number(&mut line, b" notifications=", notifications);
        line.send();

        let mut line = self.line();
        number(&mut line, b" tsc_cycles=", self.cycles);
        if let Some(khz) = self.khz {
            let ns = nanoseconds(self.cycles, khz);
            number(&mut line, b" tsc_khz=", khz);
            number(&mut line, b" ns=", ns);
            number(&mut line, b" ops_per_second=", rate(self.operations, ns));
            number(&mut line, b" bytes_per_second=", rate(bytes, ns));
        }
        line.send();

        let kept = self.samples.len().min(usize::try_from(self.operations).unwrap_or(usize::MAX));
        let Some(kept) = self.samples.get_mut(..kept).filter(|kept| !kept.is_empty()) else { return };
        samples::sort(kept);
        let quantiles = [0, 50, 99].map(|percent| quantile(kept, percent));
        let mut line = self.line();
        for (key, cycles) in
            [&b" cycles_min="[..], b" cycles_p50=", b" cycles_p99="].into_iter().zip(quantiles)
        {
            number(&mut line, key, cycles);
        }
        if let Some(khz) = self.khz {
            for (key, cycles) in [&b" ns_min="[..], b" ns_p50=", b" ns_p99="].into_iter().zip(quantiles) {
                number(&mut line, key, nanoseconds(cycles, khz));
            }
        }
        line.send();
    }

    fn line(&self) -> Line {
        let mut line = Line::new();
        line.text(self.name);
        line
    }
}

/// Ends the machine with what went wrong.
pub(super) fn fail(machine: Machine, failure: Failure) -> ! {
    report::fail(machine, report::STATUS_FAILED, failure.reason, failure.detail)
}

/// Ends the machine because of an option's value.
pub(super) fn refuse(machine: Machine, detail: &[u8]) -> ! {
    report::fail(machine, report::STATUS_USAGE, b"invalid-option", detail)
}

fn number(line: &mut Line, key: &[u8], value: u64) {
    line.text(key).decimal(value);
}

fn nanoseconds(cycles: u64, khz: u64) -> u64 {
    scale(cycles, NS_PER_KHZ_CYCLE, khz)
}

fn rate(amount: u64, ns: u64) -> u64 {
    scale(amount, NS_PER_SECOND, ns)
}

/// `value` * `by` / `over`, whose middle may need more than 64 bits; 0 where there is nothing to divide by.
fn scale(value: u64, by: u64, over: u64) -> u64 {
    let product = u128::from(value) * u128::from(by);
    product.checked_div(over.into()).and_then(|result| u64::try_from(result).ok()).unwrap_or_default()
}
