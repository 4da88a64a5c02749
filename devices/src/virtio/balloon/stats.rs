//! What a driver says about its memory (virtio 1.2, sections 5.5.6.3 and 5.5.6.4).

use serde::Serialize;

use super::spec::{STAT_SIZE, tag};

/// The latest statistics. A driver supplies those that it has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// Bytes swapped in since the guest's boot.
    pub swap_in: Option<u64>,
    /// Bytes swapped out since the guest's boot.
    pub swap_out: Option<u64>,
    /// Page faults that had to read from a disk.
    pub major_faults: Option<u64>,
    /// Page faults that had not.
    pub minor_faults: Option<u64>,
    /// Bytes that nothing uses.
    pub free_memory: Option<u64>,
    /// Bytes that the guest has in all.
    pub total_memory: Option<u64>,
    /// Bytes that new programs can have without swapping.
    pub available_memory: Option<u64>,
    /// Bytes that can be reclaimed quickly, mostly the cache of files.
    pub disk_caches: Option<u64>,
    /// Huge pages that the guest allocated.
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that it could not allocate.
    pub hugetlb_failures: Option<u64>,
}

impl Stats {
    /// Reads the entries in `bytes`, in any order; what has an unknown tag is ignored, as the specification asks, and
    /// so is a piece of an entry at the end.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut stats = Self::default();
        let (entries, _) = bytes.as_chunks::<STAT_SIZE>();
        for [t0, t1, value @ ..] in entries {
            if let Some(field) = stats.field(u16::from_le_bytes([*t0, *t1])) {
                *field = Some(u64::from_le_bytes(*value));
            }
        }
        stats
    }

    fn field(&mut self, tag: u16) -> Option<&mut Option<u64>> {
        Some(match tag {
            tag::SWAP_IN => &mut self.swap_in,
            tag::SWAP_OUT => &mut self.swap_out,
            tag::MAJFLT => &mut self.major_faults,
            tag::MINFLT => &mut self.minor_faults,
            tag::MEMFREE => &mut self.free_memory,
            tag::MEMTOT => &mut self.total_memory,
            tag::AVAIL => &mut self.available_memory,
            tag::CACHES => &mut self.disk_caches,
            tag::HTLB_PGALLOC => &mut self.hugetlb_allocations,
            tag::HTLB_PGFAIL => &mut self.hugetlb_failures,
            _ => return None,
        })
    }
}
