//! The numbers of the memory balloon (virtio 1.2, section 5.5).

/// Feature bits (section 5.5.3).
pub mod feature {
    /// Pages in the balloon are not used before the device has acknowledged that they leave it.
    pub const MUST_TELL_HOST: u64 = 1 << 0;
    /// There is a queue for statistics.
    pub const STATS_VQ: u64 = 1 << 1;
    /// The driver may take pages back when it runs out of memory.
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    /// There is a queue for reports of free pages.
    pub const PAGE_REPORTING: u64 = 1 << 5;
}

/// Offsets in the configuration space (section 5.5.4); 32 bits each.
pub mod config {
    /// How many pages the device wants.
    pub const NUM_PAGES: usize = 0;
    /// How many it has; written by the driver.
    pub const ACTUAL: usize = 4;
    /// Its end, as long as neither page poisoning nor hinting is offered.
    pub const SIZE: usize = 8;
}

/// A page of the balloon is 4 KiB, whatever the guest's own pages are (section 5.5.6).
pub const PAGE_SHIFT: u32 = 12;
/// Its size in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// Bytes of a page's number in a request.
pub const PFN_SIZE: usize = 4;

/// Tags of the statistics (section 5.5.6.4).
pub mod tag {
    /// Bytes swapped in.
    pub const SWAP_IN: u16 = 0;
    /// Bytes swapped out.
    pub const SWAP_OUT: u16 = 1;
    /// Major page faults.
    pub const MAJFLT: u16 = 2;
    /// Minor page faults.
    pub const MINFLT: u16 = 3;
    /// Bytes that are free.
    pub const MEMFREE: u16 = 4;
    /// Bytes in all.
    pub const MEMTOT: u16 = 5;
    /// Bytes available without swapping.
    pub const AVAIL: u16 = 6;
    /// Bytes of file caches.
    pub const CACHES: u16 = 7;
    /// Huge pages allocated.
    pub const HTLB_PGALLOC: u16 = 8;
    /// Huge pages that could not be allocated.
    pub const HTLB_PGFAIL: u16 = 9;
}

/// Bytes of one statistic: a tag of 16 bits, a value of 64.
pub const STAT_SIZE: usize = 10;
