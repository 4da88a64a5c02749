//! Bringing a kernel to guest RAM, most of it by copying, but for the holes of its file.
//!
//! A distribution's kernel unpacks to a file of which two fifths are zeros. Guest RAM is zero already, so copying
//! them costs twice: the host has to provide a fresh page first, and pages are what a small machine is made of.
//!
//! The file's pages are mapped instead of copied for a few large tables of a kernel in the [`cache`](super::cache) only.
//! Elsewhere, measured in instructions, the faults of a guest that patches its code page by page cost as much as the
//! copy; and whoever truncates a file of the user's would take the pages away again.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::Range;

use boot::{ImageError, Kernel, Segment};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::memory::GuestRam;

/// Maps the parts of segments in `tables`, if it can be, and copies what else the file has data for.
pub(super) fn load(
    plan: &Kernel,
    ram: &GuestRam,
    file: &mut File,
    tables: &[Segment],
) -> Result<(), ImageError> {
    plan.check(ram.memory())?;
    let mapped: Vec<&Segment> = tables.iter().filter(|table| ram.map_file(table, file)).collect();
    for segment in plan.segments() {
        let mut from = segment.file_offset;
        let inside = mapped
            .iter()
            .filter(|table| segment.guest_address <= table.guest_address && table.end() <= segment.end());
        for table in inside {
            copy_data(ram.memory(), file, segment, from..table.file_offset)?;
            from = table.file_offset + table.file_size;
        }
        copy_data(ram.memory(), file, segment, from..segment.file_offset + segment.file_size)?;
    }
    Ok(())
}

/// Copies what the file has data for in `range`, which is in the segment.
fn copy_data(
    memory: &GuestMemoryMmap,
    file: &mut File,
    segment: &Segment,
    range: Range<u64>,
) -> Result<(), ImageError> {
    let mut from = range.start;
    while let Some(data) = next_data(file, from..range.end)? {
        from = data.end;
        copy(memory, file, segment, data)?;
    }
    Ok(())
}

/// The first part of `range` that is not a hole.
fn next_data(file: &File, range: Range<u64>) -> Result<Option<Range<u64>>, ImageError> {
    let read = |error: rustix::io::Errno| ImageError::Read(error.into());
    if range.is_empty() {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(range.start)) {
        Ok(start) if start < range.end => start,
        // The rest of the range, or of the file, is a hole.
        Ok(_) | Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).map_err(read)?;
    Ok(Some(start..end.min(range.end)))
}

fn copy(
    memory: &GuestMemoryMmap,
    file: &mut File,
    segment: &Segment,
    data: Range<u64>,
) -> Result<(), ImageError> {
    let size = data.end - data.start;
    file.seek(SeekFrom::Start(data.start))?;
    let address = GuestAddress(segment.guest_address + (data.start - segment.file_offset));
    boot::read_exact(memory, address, size, file).map_err(|source| ImageError::Load {
        offset: data.start,
        size,
        source,
    })
}

#[cfg(test)]
mod tests;
