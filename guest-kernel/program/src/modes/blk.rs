//! `mode=blk`: reads or writes the first virtio disk, by its own driver.
//!
//! With `verify=1` the disk holds 64-bit numbers, each its own place in the disk (exclusive-or the seed): reads are checked
//! against that, and writes are read back, so a block that came from elsewhere, or in part, is noticed.

use super::tally::{self, Tally};
use crate::machine::Machine;
use crate::options::Options;
use crate::serial::Line;
use crate::virtio::blk::{Direction, Disk, MAX_DEPTH, SECTOR};
use crate::virtio::failure::Failure;

const RANDOM_SIZE: u64 = 4096;
const SEQUENTIAL_SIZE: u64 = 128 * 1024;
/// What `size=` may be: a multiple of the first, and not more than the second.
const SIZE_UNIT: u64 = 4096;
const SIZE_LIMIT: u64 = SEQUENTIAL_SIZE;
/// Bytes of one number in a block.
const WORD: u64 = 8;

/// Runs the job and prints its figures. Not inlined: its stack frame would be every mode's.
#[inline(never)]
pub(super) fn run(machine: Machine, options: &Options<'_>) {
    let job = Job::new(options).unwrap_or_else(|detail| tally::refuse(machine, detail));
    let (mut tally, mut arena) = Tally::new(machine, b"blk", options, job.size);
    let disk = Disk::open(options.windows(), &mut arena, job.depth, job.size)
        .unwrap_or_else(|failure| tally::fail(machine, failure));
    machine.ready();
    super::header();
    if let Err(failure) = job.run(disk, &mut tally) {
        tally::fail(machine, failure);
    }
}

/// The job, from the options.
#[derive(Clone, Copy)]
struct Job {
    direction: Direction,
    is_random: bool,
    depth: u16,
    size: u64,
    seed: u64,
    verify: bool,
}

impl Job {
    fn new(options: &Options<'_>) -> Result<Job, &'static [u8]> {
        let (direction, is_random) = match options.op.unwrap_or(b"read") {
            b"read" => (Direction::Read, true),
            b"write" => (Direction::Write, true),
            b"seqread" => (Direction::Read, false),
            b"seqwrite" => (Direction::Write, false),
            _ => return Err(b"op-is-read-write-seqread-seqwrite"),
        };
        let depth = u16::try_from(options.depth.unwrap_or(1)).unwrap_or_default();
        if !(1..=MAX_DEPTH).contains(&depth) {
            return Err(b"depth-is-1-to-64");
        }
        let size = options.size.unwrap_or(if is_random { RANDOM_SIZE } else { SEQUENTIAL_SIZE });
        if size == 0 || size > SIZE_LIMIT || !size.is_multiple_of(SIZE_UNIT) {
            return Err(b"size-is-4096-to-131072-by-4096");
        }
        let (seed, verify) = (options.seed.unwrap_or_default(), options.verify());
        Ok(Job { direction, is_random, depth, size, seed, verify })
    }

    fn run(self, disk: Disk, tally: &mut Tally) -> Result<(), Failure> {
        let writes = self.direction == Direction::Write;
        if writes && disk.is_read_only() {
            return Err(Failure::new(b"read-only", b"disk"));
        }
        let positions = disk.sectors().saturating_mul(SECTOR) / self.size;
        if positions == 0 {
            return Err(Failure::new(b"disk-too-small", b"size"));
        }
        let mut pass = Pass { job: self, disk, positions, errors: 0, corrupt: 0 };
        for slot in 0..self.depth {
            pass.fill(slot, slot.into(), 0);
        }
        pass.run(self.direction, Watch::Timed(tally))?;
        let notifications = pass.disk.notifications();
        if writes {
            pass.disk.flush()?;
        }
        if writes && self.verify {
            pass.run(Direction::Read, Watch::Untimed(tally.operations()))?;
        }
        pass.disk.close()?;
        tally.print(tally.operations().saturating_mul(self.size), pass.errors, notifications);
        match (pass.errors, pass.corrupt) {
            (0, 0) => Ok(()),
            (0, _) => Err(Failure::new(b"corrupt", b"verify")),
            _ => Err(Failure::new(b"io", b"request-status")),
        }
    }

    /// Which piece of the disk operation number `index` is about: the same each time that it is asked for.
    fn position(self, index: u64, positions: u64) -> u64 {
        let number = if self.is_random { mix(index ^ self.seed.rotate_left(32)) } else { index };
        number % positions
    }
}

/// Who says when a pass ends.
enum Watch<'a> {
    Timed(&'a mut Tally),
    Untimed(u64),
}

/// A series of requests, `depth` of them at once.
struct Pass {
    job: Job,
    disk: Disk,
    positions: u64,
    errors: u64,
    corrupt: u64,
}

impl Pass {
    fn run(&mut self, direction: Direction, mut watch: Watch<'_>) -> Result<(), Failure> {
        if let Watch::Timed(tally) = &mut watch {
            tally.start();
        }
        let (mut started, mut ended) = (0, 0);
        for slot in 0..self.job.depth {
            started += u64::from(self.begin(slot, direction, &mut watch, started));
        }
        self.disk.publish();
        while ended < started {
            let mut done = Some(self.disk.wait()?);
            // All that is done makes room for new requests, of which the device then is told at once.
            while let Some((slot, is_good)) = done {
                self.end(slot, is_good, direction, &mut watch);
                ended += 1;
                started += u64::from(self.begin(slot, direction, &mut watch, started));
                done = self.disk.poll()?;
            }
            self.disk.publish();
        }
        if let Watch::Timed(tally) = watch {
            tally.stop();
        }
        Ok(())
    }

    /// Prepares the next request. False where there is to be none.
    fn begin(&mut self, slot: u16, direction: Direction, watch: &mut Watch<'_>, started: u64) -> bool {
        let goes_on = match watch {
            Watch::Timed(tally) => tally.goes_on(started),
            Watch::Untimed(count) => started < *count,
        };
        if goes_on {
            let position = self.job.position(started, self.positions);
            if self.job.verify {
                // Before a read, the buffer gets what is wrong in each bit: nothing that the device leaves out is overlooked.
                self.fill(slot, position, if direction == Direction::Write { 0 } else { u64::MAX });
            }
            if let Watch::Timed(tally) = watch {
                tally.begin(slot);
            }
            self.disk.request(slot, direction, position * (self.job.size / SECTOR));
        }
        goes_on
    }

    fn end(&mut self, slot: u16, is_good: bool, direction: Direction, watch: &mut Watch<'_>) {
        if let Watch::Timed(tally) = watch {
            tally.end(slot);
        }
        let position = self.disk.sector(slot) / (self.job.size / SECTOR);
        if !is_good {
            self.errors += 1;
        } else if self.job.verify && direction == Direction::Read && !self.is_right(slot, position) {
            if self.corrupt == 0 {
                Line::new().text(b"blk corrupt_offset=").hex(position * self.job.size).send();
            }
            self.corrupt += 1;
        }
    }

    /// Fills a slot's buffer with what belongs at `position`, with the bits of `changed` changed.
    fn fill(&self, slot: u16, position: u64, changed: u64) {
        let data = self.disk.data(slot);
        for (at, value) in self.content(position) {
            data.write(at, value ^ changed);
        }
    }

    fn is_right(&self, slot: u16, position: u64) -> bool {
        let data = self.disk.data(slot);
        self.content(position).all(|(at, value)| data.read::<u64>(at) == value)
    }

    /// Offset and value of each number of the piece at `position`.
    fn content(&self, position: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let Job { size, seed, .. } = self.job;
        (0..size / WORD).map(move |word| (word * WORD, (position * (size / WORD) + word) ^ seed))
    }
}

/// SplitMix64: a permutation of all 64-bit numbers that looks random.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
