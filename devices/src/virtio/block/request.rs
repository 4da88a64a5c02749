//! What a driver asks for (virtio 1.2, section 5.2.6), checked: everything in a [`Request`] is inside the disk.

use vm_memory::GuestMemoryMmap;

use super::spec::{HEADER, RANGE, SECTOR, UNMAP, request, status};
use crate::virtio::{Chain, Segment, cut};

#[cfg(test)]
mod tests;

/// The longest segment a driver may use; with [`MAX_SEGMENTS`] it makes the longest transfer.
pub(super) const MAX_SEGMENT: u32 = 64 << 10;

/// The most data segments of a request.
pub(super) const MAX_SEGMENTS: u32 = 254;

/// The longest transfer in bytes. It bounds how long one request can take.
const MAX_TRANSFER: usize = MAX_SEGMENT as usize * MAX_SEGMENTS as usize;

/// The most sectors of a range to discard or zero: 64 MiB.
pub(super) const MAX_RANGE_SECTORS: u32 = 1 << 17;

/// What the disk allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Size in sectors.
    pub(super) sectors: u64,
    pub(super) read_only: bool,
}

/// A sound request. Places and lengths are bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Request {
    Read { offset: u64, length: u32 },
    Write { offset: u64, length: u32 },
    Flush,
    Discard { offset: u64, length: u32 },
    WriteZeroes { offset: u64, length: u32, unmap: bool },
    GetId,
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// It is answered with this status.
    Status(u8),
    /// There is no room for an answer.
    Unanswerable,
}

const IOERR: Refused = Refused::Status(status::IOERR);
const UNSUPP: Refused = Refused::Status(status::UNSUPP);

impl Request {
    /// What `chain` asks for. Where its descriptors begin and end makes no difference (section 2.7.4.1).
    pub(super) fn parse(chain: &Chain, memory: &GuestMemoryMmap, bounds: Bounds) -> Result<Self, Refused> {
        let room = room(chain).ok_or(Refused::Unanswerable)?;
        let [kind, _reserved, low, high] = words(chain.read(memory, 0).ok_or(IOERR)?);
        let sector = u64::from(high) << 32 | u64::from(low);
        let sent = chain.readable_length() - HEADER;
        match kind {
            request::IN => {
                let (offset, length) = bounds.transfer(sector, room)?;
                if sent == 0 { Ok(Self::Read { offset, length }) } else { Err(IOERR) }
            }
            // Section 5.2.6.2: VIRTIO_BLK_S_IOERR for a write request if VIRTIO_BLK_F_RO is offered, and no data is written.
            request::OUT | request::DISCARD | request::WRITE_ZEROES if bounds.read_only || room > 0 => {
                Err(IOERR)
            }
            request::OUT => {
                let (offset, length) = bounds.transfer(sector, sent)?;
                Ok(Self::Write { offset, length })
            }
            request::DISCARD => {
                let (offset, length, flags) = bounds.range(chain, memory, sent)?;
                // Section 5.2.6.2: VIRTIO_BLK_S_UNSUPP if any unknown flag, or the unmap flag, is set.
                if flags == 0 { Ok(Self::Discard { offset, length }) } else { Err(UNSUPP) }
            }
            request::WRITE_ZEROES => {
                let (offset, length, flags) = bounds.range(chain, memory, sent)?;
                let unmap = flags & UNMAP != 0;
                let known = flags & !UNMAP == 0;
                if known { Ok(Self::WriteZeroes { offset, length, unmap }) } else { Err(UNSUPP) }
            }
            request::FLUSH => Ok(Self::Flush),
            request::GET_ID => Ok(Self::GetId),
            _ => Err(UNSUPP),
        }
    }

    /// Puts the pieces of guest memory that its data is in into `out`.
    pub(super) fn data(&self, chain: &Chain, out: &mut Vec<Segment>) {
        out.clear();
        match *self {
            Self::Read { length, .. } => cut(chain.writable(), 0, length as usize, out),
            Self::Write { length, .. } => cut(chain.readable(), HEADER, length as usize, out),
            _ => 0,
        };
    }

    /// How many bytes go over between the guest and the host.
    pub(super) fn transfer(&self) -> u32 {
        match *self {
            Self::Read { length, .. } | Self::Write { length, .. } => length,
            _ => 0,
        }
    }

    /// The length of what it reads, writes or changes.
    pub(super) fn length(&self) -> u32 {
        match *self {
            Self::Read { length, .. }
            | Self::Write { length, .. }
            | Self::Discard { length, .. }
            | Self::WriteZeroes { length, .. } => length,
            Self::Flush | Self::GetId => 0,
        }
    }
}

/// How much of the writable part is for data; its last byte is for the status. None if there is not even that.
pub(super) fn room(chain: &Chain) -> Option<usize> {
    chain.writable_length().checked_sub(1)
}

impl Bounds {
    /// Offset and length in bytes, of a transfer of whole sectors inside the disk.
    fn transfer(self, sector: u64, bytes: usize) -> Result<(u64, u32), Refused> {
        let whole = (bytes as u64).is_multiple_of(SECTOR);
        if !whole || bytes > MAX_TRANSFER || !self.hold(sector, bytes as u64 / SECTOR) {
            return Err(IOERR);
        }
        // Inside the disk, whose size in bytes fits; at most MAX_TRANSFER.
        Ok((sector * SECTOR, bytes as u32))
    }

    /// Offset and length in bytes of the one range that a request may have, and its flags.
    fn range(self, chain: &Chain, memory: &GuestMemoryMmap, sent: usize) -> Result<(u64, u32, u32), Refused> {
        let range = chain.read(memory, HEADER).filter(|_| sent == RANGE).ok_or(IOERR)?;
        let [low, high, sectors, flags] = words(range);
        let sector = u64::from(high) << 32 | u64::from(low);
        if sectors > MAX_RANGE_SECTORS || !self.hold(sector, sectors.into()) {
            return Err(IOERR);
        }
        // Inside the disk, whose size in bytes fits; at most 64 MiB.
        Ok((sector * SECTOR, sectors * SECTOR as u32, flags))
    }

    fn hold(self, sector: u64, sectors: u64) -> bool {
        sector.checked_add(sectors).is_some_and(|end| end <= self.sectors)
    }
}

/// The four words, little-endian, that a header or a range has.
fn words(all: u128) -> [u32; 4] {
    [0, 32, 64, 96].map(|shift| (all >> shift) as u32)
}
