//! `mode=touch`: writes to RAM, so that it costs the host what it costs.

use crate::acpi::SleepControl;
use crate::boot_info::{BootInfo, MemoryMap};
use crate::machine::Machine;
use crate::memory::{self, Ram};
use crate::options::Options;
use crate::serial::Line;
use crate::{cpu, report};

const PAGE: u64 = 4096;
const PAGES_PER_MIB: u64 = 256;
const RANGE_RAM: u32 = 1;

/// Writes one word to each page of `mb` MiB, or of all RAM above the program, then says READY.
pub(super) fn run(machine: Machine, boot: BootInfo, options: &Options<'_>) {
    // The tables may lie in the RAM that is about to be written over: what they say is read first.
    let sleep = SleepControl::find(machine.rsdp);
    let map = boot.memory_map();
    let available: u64 = free_ranges(&map).map(|(_, pages)| pages).sum();
    let wanted = options.mb.map_or(available, |mb| mb.saturating_mul(PAGES_PER_MIB));
    let Some(mut ram) = Ram::take().filter(|_| wanted <= available) else {
        Line::new().text(b"available_mib=").decimal(available / PAGES_PER_MIB).send();
        report::fail(machine, report::STATUS_FAILED, b"too-little-ram", b"mb");
    };

    let start = cpu::timestamp();
    let mut missing = wanted;
    for (address, pages) in free_ranges(&map) {
        missing -= ram.touch(address, pages.min(missing));
    }
    let cycles = cpu::timestamp().wrapping_sub(start);
    if missing > 0 {
        report::fail(machine, report::STATUS_FAILED, b"unmapped-ram", b"above-512-gib");
    }

    machine.ready();
    super::header();
    Line::new().text(b"touched_pages=").decimal(wanted).text(b" tsc_cycles=").decimal(cycles).send();
    machine.end_by(options.status, sleep)
}

/// RAM above the program, as address and number of pages.
fn free_ranges(map: &MemoryMap) -> impl Iterator<Item = (u64, u64)> + '_ {
    map.ranges().iter().filter(|range| range.kind == RANGE_RAM).filter_map(|range| {
        let end = range.start.checked_add(range.size)?;
        let start = range.start.max(memory::free_start()).checked_next_multiple_of(PAGE)?;
        let pages = end.checked_sub(start)? / PAGE;
        (pages > 0).then_some((start, pages))
    })
}
