//! The large tables of a Linux kernel that it never writes and seldom reads, by their section headers.
//!
//! Field names and rules: System V ABI, chapter 4, "Sections".

use std::io::{Read, Seek, SeekFrom};

use linux_loader::elf::Elf64_Ehdr;
use vm_memory::ByteValued;

use super::Segment;
use crate::layout::PAGE_SIZE;

/// Type information, and what a stack is unwound by: Linux sorts both when it is built.
///
/// Read-only data at large is not among them. Memory that machines share tells each of them what the others read, by the
/// time it takes (Flush+Reload), and .rodata has the tables of ciphers.
const NAMES: [&[u8]; 3] = [b".BTF", b".orc_unwind", b".orc_unwind_ip"];

const EHDR_SIZE: usize = size_of::<Elf64_Ehdr>();
const SHDR_SIZE: usize = 64;
/// More than any kernel has (Linux: 40).
const SHDR_COUNT_MAX: u16 = 128;
/// More than the names of so many sections take.
const NAMES_SIZE_MAX: u64 = 8 << 10;
/// What a mapping must save, in bytes, to be worth its system call, or the huge page that it breaks.
const SIZE_MIN: u64 = 256 << 10;
/// What the host backs guest memory with where it can.
const HUGE_PAGE: u64 = 2 << 20;

/// What counts of a section header (Elf64_Shdr).
struct Section {
    name: usize,
    offset: u64,
    size: u64,
}

impl Section {
    fn read(header: &[u8; SHDR_SIZE]) -> Self {
        let field = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        Self { name: (field(0) & u64::from(u32::MAX)) as usize, offset: field(24), size: field(32) }
    }
}

/// Whole pages of the tables, as parts of `segments`, lowest first; none if the file has no such sections, or describes
/// them in a way that makes no sense.
pub(super) fn find<I: Read + Seek>(image: &mut I, segments: &[Segment]) -> Vec<Segment> {
    let sections = sections(image).unwrap_or_default();
    segments.iter().flat_map(|segment| in_segment(segment, &sections)).collect()
}

/// What of the sections is in `segment`. A table never reaches into the next one: between them may be what must be zero.
fn in_segment(segment: &Segment, sections: &[Section]) -> Vec<Segment> {
    let mut tables: Vec<Segment> =
        sections.iter().filter_map(|section| part(segment, section.offset, section.size)).collect();
    tables.sort_unstable_by_key(|table| table.guest_address);
    // Neighbours are one; those that overlap are one mistake.
    tables.dedup_by(|next, table| {
        let gap = next.guest_address.checked_sub(table.end());
        let adjoins = gap.is_some_and(|gap| {
            gap < PAGE_SIZE && next.file_offset.checked_sub(table.file_offset + table.file_size) == Some(gap)
        });
        if adjoins {
            table.file_size += gap.unwrap_or_default() + next.file_size;
            table.memory_size = table.file_size;
        }
        adjoins || gap.is_none()
    });
    tables.iter().filter_map(whole_pages).filter(|table| table.file_size >= SIZE_MIN).collect()
}

/// The headers of the sections with those names.
fn sections<I: Read + Seek>(image: &mut I) -> Option<Vec<Section>> {
    let header = Elf64_Ehdr::read_exact_from(&read(image, 0, EHDR_SIZE as u64)?[..]).ok()?;
    if usize::from(header.e_shentsize) != SHDR_SIZE || header.e_shnum > SHDR_COUNT_MAX {
        return None;
    }
    let table = read(image, header.e_shoff, u64::from(header.e_shnum) * SHDR_SIZE as u64)?;
    let mut sections: Vec<Section> = table.as_chunks().0.iter().map(Section::read).collect();
    let names = sections.get(usize::from(header.e_shstrndx))?;
    let names = read(image, names.offset, names.size.min(NAMES_SIZE_MAX))?;
    sections.retain(|section| {
        let name = names.get(section.name..).and_then(|rest| rest.split(|&byte| byte == 0).next());
        name.is_some_and(|name| NAMES.contains(&name))
    });
    Some(sections)
}

fn read<I: Read + Seek>(image: &mut I, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    image.seek(SeekFrom::Start(offset)).ok()?;
    image.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// `size` bytes at `offset` of the file, if `segment` has all of them.
fn part(segment: &Segment, offset: u64, size: u64) -> Option<Segment> {
    let into = offset.checked_sub(segment.file_offset)?;
    (into.checked_add(size)? <= segment.file_size).then(|| Segment {
        file_offset: offset,
        file_size: size,
        guest_address: segment.guest_address + into,
        memory_size: size,
    })
}

/// The pages that are all in `table`, if a page of the file is one of memory, but for a few at its end that would break a
/// huge page.
fn whole_pages(table: &Segment) -> Option<Segment> {
    let head = table.guest_address.checked_next_multiple_of(PAGE_SIZE)? - table.guest_address;
    let mut size = table.file_size.checked_sub(head)? / PAGE_SIZE * PAGE_SIZE;
    let tail = (table.guest_address + head + size) % HUGE_PAGE;
    if tail < SIZE_MIN.min(size) {
        size -= tail;
    }
    let pages = part(table, table.file_offset + head, size)?;
    pages.file_offset.is_multiple_of(PAGE_SIZE).then_some(pages)
}

#[cfg(test)]
mod tests;
