//! Page numbers and reports become ranges that the host can take back.

use std::collections::BTreeMap;

use serde::Serialize;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::spec::{PAGE_SHIFT, PAGE_SIZE, PFN_SIZE};
use crate::virtio::io::{HostPage, discard};
use crate::virtio::{Chain, Segment, cut};

/// How many page numbers are dealt with at a time. Linux has no more in one request, and each may cost a system call.
pub(super) const TURN_PAGES: usize = 256;

/// How many bytes that are reported free are given back at a time: some milliseconds, if the guest has used all of
/// them.
pub(super) const TURN_BYTES: usize = 32 << 20;

/// What became of the pages that a driver gave.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct BalloonCounters {
    /// Bytes that the host took back; those that came more than once count each time.
    pub given_back: u64,
    /// Ranges that the host refused to take back.
    pub refused: u64,
}

/// Gives memory back, and knows which huge pages are in the balloon in part.
#[derive(Debug)]
pub(super) struct Pages {
    // Configuration.
    page: HostPage,
    /// The driver says that it uses pages from the balloon before it does.
    told: bool,
    // State.
    counters: BalloonCounters,
    /// Which of the 512 pages of a huge page are in the balloon, by the huge page's number. A driver gives 4 KiB at a
    /// time and the host takes 2 MiB: without this, no huge page would ever be whole. At most one entry for each 2
    /// MiB of RAM. Not saved: a page that is forgotten stays with the guest, which is safe.
    partial: BTreeMap<u64, [u64; 8]>,
    // Room that is kept.
    numbers: Vec<u64>,
    pieces: Vec<Segment>,
}

/// How many pages of the balloon a huge page has, as a shift.
const HUGE_SHIFT: u32 = HostPage::Huge.size().trailing_zeros() - PAGE_SHIFT;

impl Pages {
    pub(super) fn new(page: HostPage) -> Self {
        Self {
            page,
            told: false,
            counters: BalloonCounters::default(),
            partial: BTreeMap::new(),
            numbers: Vec::new(),
            pieces: Vec::new(),
        }
    }

    pub(super) fn counters(&self) -> BalloonCounters {
        self.counters
    }

    /// A driver begins, with all pages. `told`: it says so before it uses pages from the balloon.
    pub(super) fn start(&mut self, told: bool) {
        self.told = told;
        self.partial.clear();
    }

    /// The pages that the request in `chain` names, from `offset` bytes on, are in the balloon now. Returns how many
    /// bytes of the request are dealt with, and how many of its numbers are none of a page of RAM.
    pub(super) fn inflate(
        &mut self,
        memory: &GuestMemoryMmap,
        chain: &Chain,
        offset: usize,
    ) -> (usize, usize) {
        let taken = self.read(memory, chain, offset);
        let mut numbers = std::mem::take(&mut self.numbers);
        let named = numbers.len();
        numbers.retain(|&number| is_ram(memory, number));
        let faults = named - numbers.len() + usize::from(!taken.is_multiple_of(PFN_SIZE));
        match self.page {
            HostPage::Small => {
                // A driver names neighbours one after the other, up or down: sorted, they are one call.
                numbers.sort_unstable();
                numbers.dedup();
                for run in numbers.chunk_by(|first, second| first + 1 == *second) {
                    self.give_pages(memory, run[0], run.len());
                }
            }
            // Untold, a huge page could be given back of which the driver uses a part already.
            HostPage::Huge if !self.told => {}
            HostPage::Huge => numbers.iter().for_each(|&number| self.inflate_part(memory, number)),
        }
        self.numbers = numbers;
        (taken, faults)
    }

    /// The pages that the request in `chain` names, from `offset` bytes on, are the guest's again. The host gives
    /// them when they are touched. Returns how many bytes of the request are dealt with.
    pub(super) fn deflate(&mut self, memory: &GuestMemoryMmap, chain: &Chain, offset: usize) -> usize {
        let taken = self.read(memory, chain, offset);
        for &number in &self.numbers {
            if let Some(bits) = self.partial.get_mut(&(number >> HUGE_SHIFT)) {
                let (word, bit) = place(number);
                bits[word] &= !bit;
                if *bits == [0; 8] {
                    self.partial.remove(&(number >> HUGE_SHIFT));
                }
            }
        }
        taken
    }

    /// The room in `chain`, from `offset` bytes on, is free memory. Returns how many bytes of it are dealt with.
    pub(super) fn report(&mut self, memory: &GuestMemoryMmap, chain: &Chain, offset: usize) -> usize {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.clear();
        let taken = cut(chain.writable(), offset, TURN_BYTES, &mut pieces);
        pieces.iter().for_each(|&piece| self.give(memory, piece));
        self.pieces = pieces;
        taken
    }

    /// Reads the next numbers of a request, and returns how many bytes of it they are.
    fn read(&mut self, memory: &GuestMemoryMmap, chain: &Chain, offset: usize) -> usize {
        let mut bytes = [0; TURN_PAGES * PFN_SIZE];
        let left = chain.readable_length().saturating_sub(offset).min(bytes.len());
        let bytes = &mut bytes[..left];
        self.numbers.clear();
        // The chain was checked: all of it is there.
        if chain.read_at(memory, offset, bytes) {
            let (numbers, _) = bytes.as_chunks();
            self.numbers.extend(numbers.iter().map(|&number| u64::from(u32::from_le_bytes(number))));
        }
        left
    }

    fn inflate_part(&mut self, memory: &GuestMemoryMmap, number: u64) {
        let huge = number >> HUGE_SHIFT;
        let bits = self.partial.entry(huge).or_default();
        let (word, bit) = place(number);
        let new = bits[word] & bit == 0;
        bits[word] |= bit;
        if new && *bits == [u64::MAX; 8] {
            self.give_pages(memory, huge << HUGE_SHIFT, 1 << HUGE_SHIFT);
        }
    }

    /// Gives `count` pages from `number` on back: a turn's or a huge page's at most.
    fn give_pages(&mut self, memory: &GuestMemoryMmap, number: u64, count: usize) {
        let length = count as u32 * PAGE_SIZE as u32;
        // They are RAM, each of them.
        if let Ok(segment) = Segment::new(memory, number * PAGE_SIZE, length) {
            self.give(memory, segment);
        }
    }

    /// Gives `segment` back, as far as it is whole pages.
    fn give(&mut self, memory: &GuestMemoryMmap, segment: Segment) {
        match discard(memory, segment, self.page) {
            Ok(bytes) => self.counters.given_back += bytes as u64,
            Err(_) => self.counters.refused += 1,
        }
    }
}

fn is_ram(memory: &GuestMemoryMmap, number: u64) -> bool {
    memory.check_range(GuestAddress(number * PAGE_SIZE), PAGE_SIZE as usize, Permissions::ReadWrite)
}

/// Where the bit of a page is among the eight words of its huge page.
fn place(number: u64) -> (usize, u64) {
    let index = (number & ((1 << HUGE_SHIFT) - 1)) as usize;
    (index / 64, 1 << (index % 64))
}
