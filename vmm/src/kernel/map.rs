//! A kernel whose file's pages become guest RAM, instead of being copied there.
//!
//! Copying a distribution's kernel is a tenth of its whole boot: the host zeroes fresh pages, and then fills them.
//! Mapped, a page costs nothing until it is touched, one that is only read is shared by all machines that run this
//! kernel, and one that is written is copied then. What the file has no data for stays fresh memory.

use std::fs::File;
use std::io;
use std::ops::Range;

use boot::layout::PAGE_SIZE;
use boot::{ImageError, Kernel, Segment};
use rustix::fs::SeekFrom;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestRam;

/// Maps what can be mapped of each segment, and copies the rest.
pub(super) fn load(plan: &Kernel, ram: &GuestRam, file: &mut File) -> Result<(), ImageError> {
    plan.check(ram.memory())?;
    for segment in plan.segments() {
        for data in data_ranges(file, segment)? {
            place(ram, file, segment, &data)?;
        }
    }
    Ok(())
}

/// The parts of a segment's bytes that are not holes of the file, as offsets in the file.
fn data_ranges(file: &File, segment: &Segment) -> Result<Vec<Range<u64>>, ImageError> {
    let end = segment.file_offset + segment.file_size;
    let mut ranges = Vec::new();
    let mut from = segment.file_offset;
    while from < end {
        let start = match rustix::fs::seek(file, SeekFrom::Data(from)) {
            Ok(start) => start.min(end),
            // No data behind here.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(ImageError::Read(error.into())),
        };
        let hole =
            rustix::fs::seek(file, SeekFrom::Hole(start)).map_err(|error| ImageError::Read(error.into()))?;
        from = hole.clamp(start, end);
        if start < from {
            ranges.push(start..from);
        } else {
            break;
        }
    }
    Ok(ranges)
}

/// Maps the whole pages of `data`, and copies what is left at its ends.
fn place(ram: &GuestRam, file: &mut File, segment: &Segment, data: &Range<u64>) -> Result<(), ImageError> {
    let aligned = segment.guest_address % PAGE_SIZE == segment.file_offset % PAGE_SIZE;
    let pages = data.start.next_multiple_of(PAGE_SIZE)..data.end - data.end % PAGE_SIZE;
    let guest = |offset: u64| segment.guest_address + (offset - segment.file_offset);
    let mapped = aligned
        && pages.start < pages.end
        && ram.map_file(guest(pages.start), file, pages.start, pages.end - pages.start).is_ok();
    if !mapped {
        return copy(ram, file, segment, data.clone());
    }
    copy(ram, file, segment, data.start..pages.start)?;
    copy(ram, file, segment, pages.end..data.end)
}

fn copy(ram: &GuestRam, file: &mut File, segment: &Segment, data: Range<u64>) -> Result<(), ImageError> {
    if data.is_empty() {
        return Ok(());
    }
    let size = data.end - data.start;
    io::Seek::seek(file, io::SeekFrom::Start(data.start))?;
    let address = GuestAddress(segment.guest_address + (data.start - segment.file_offset));
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    ram.memory().read_exact_volatile_from(address, file, length).map_err(|source| ImageError::Load {
        offset: data.start,
        size,
        source,
    })
}

#[cfg(test)]
mod tests;
