//! The numbers of virtio 1.2, section 5.2.

/// Feature bits (section 5.2.3).
pub mod feature {
    /// `size_max` is valid.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// `seg_max` is valid.
    pub const SEG_MAX: u64 = 1 << 2;
    /// The disk cannot be written.
    pub const RO: u64 = 1 << 5;
    /// `blk_size` is valid.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// There is a write cache, and a command that flushes it.
    pub const FLUSH: u64 = 1 << 9;
    /// There is more than one queue.
    pub const MQ: u64 = 1 << 12;
    /// Sectors can be discarded.
    pub const DISCARD: u64 = 1 << 13;
    /// Sectors can be zeroed without being sent.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offsets in the configuration space (section 5.2.4). What is not named here is 0: it belongs to features that are not offered.
pub mod config {
    /// 64 bits, read-only: the size in sectors.
    pub const CAPACITY: usize = 0;
    /// 32 bits, read-only: the longest segment, in bytes.
    pub const SIZE_MAX: usize = 8;
    /// 32 bits, read-only: the most data segments of a request.
    pub const SEG_MAX: usize = 12;
    /// 32 bits, read-only: the block size that is best used, in bytes.
    pub const BLK_SIZE: usize = 20;
    /// 16 bits, read-only.
    pub const NUM_QUEUES: usize = 34;
    /// 32 bits, read-only: the most sectors in a range to discard.
    pub const MAX_DISCARD_SECTORS: usize = 36;
    /// 32 bits, read-only: the most ranges in a request.
    pub const MAX_DISCARD_SEG: usize = 40;
    /// 32 bits, read-only: what ranges to discard are best aligned to, in sectors.
    pub const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    /// 32 bits, read-only: the most sectors in a range to zero.
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    /// 32 bits, read-only: the most ranges in a request.
    pub const MAX_WRITE_ZEROES_SEG: usize = 52;
    /// 8 bits, read-only: whether zeroing may deallocate.
    pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
    /// Bytes in all; what follows is for features that are not offered.
    pub const LENGTH: usize = 60;
}

/// Request types (section 5.2.6).
pub mod request {
    /// Read.
    pub const IN: u32 = 0;
    /// Write.
    pub const OUT: u32 = 1;
    /// Make what was written stable.
    pub const FLUSH: u32 = 4;
    /// Ask for the disk's name.
    pub const GET_ID: u32 = 8;
    /// Forget the content of a range.
    pub const DISCARD: u32 = 11;
    /// Zero a range.
    pub const WRITE_ZEROES: u32 = 13;
}

/// Status bytes (section 5.2.6).
pub mod status {
    /// It was done.
    pub const OK: u8 = 0;
    /// It failed.
    pub const IOERR: u8 = 1;
    /// It is not supported.
    pub const UNSUPP: u8 = 2;
}

/// What every size and place is counted in, whatever the block size (section 5.2.4).
pub const SECTOR: u64 = 512;

/// Bytes of a request's header: type and reserved, 32 bits each, then the first sector, 64 bits.
pub const HEADER: usize = 16;

/// Bytes of a range to discard or zero: first sector, 64 bits; number of sectors and flags, 32 bits each.
pub const RANGE: usize = 16;

/// The only flag of such a range: the sectors may be deallocated.
pub const UNMAP: u32 = 1;

/// Bytes of a disk's name; a shorter one is padded with zeros.
pub const ID: usize = 20;
