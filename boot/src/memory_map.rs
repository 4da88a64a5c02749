//! The memory map that both boot protocols hand to the guest: RAM, and what looks like RAM but is not.

use crate::layout::{self, RamRegions};

/// What the guest may do with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Use it freely.
    Ram,
    /// Leave it alone.
    Reserved,
}

/// One range of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) kind: Kind,
}

/// The map of a machine with this RAM: sorted, without overlap, every byte of RAM exactly once.
pub(crate) fn entries(ram: &RamRegions) -> impl Iterator<Item = Entry> + use<> {
    let legacy = [
        (0, layout::LOW_RESERVED_START, Kind::Ram),
        (layout::LOW_RESERVED_START, layout::KERNEL_START, Kind::Reserved),
    ];
    // The first range starts at 0 and is at least 16 MiB, so it always reaches past the kernel's start.
    let usable = ram.iter().map(|region| (region.start.max(layout::KERNEL_START), region.end(), Kind::Ram));
    legacy.into_iter().chain(usable).map(|(start, end, kind)| Entry { start, size: end - start, kind })
}

#[cfg(test)]
mod tests;
