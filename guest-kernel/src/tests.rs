//! The file is what VMMs expect of it. (System V ABI, chapters 4 and 5; Xen's PVH note.)

use super::ELF;

const LOAD_ADDRESS: u64 = 0x10_0000;
const SIZE_LIMIT: usize = 64 * 1024;

const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

fn u16_at(offset: u64) -> u16 {
    u16::from_le_bytes(bytes_at(offset))
}

fn u32_at(offset: u64) -> u32 {
    u32::from_le_bytes(bytes_at(offset))
}

fn u64_at(offset: u64) -> u64 {
    u64::from_le_bytes(bytes_at(offset))
}

fn bytes_at<const N: usize>(offset: u64) -> [u8; N] {
    let offset = usize::try_from(offset).expect("an offset of this file");
    ELF[offset..offset + N].try_into().expect("N bytes")
}

/// Offsets of the program headers of one type.
fn headers(kind: u32) -> Vec<u64> {
    let (first, size, count) = (u64_at(32), u64::from(u16_at(54)), u64::from(u16_at(56)));
    (0..count).map(|index| first + index * size).filter(|&header| u32_at(header) == kind).collect()
}

fn is_in_segment(address: u64) -> bool {
    (LOAD_ADDRESS..LOAD_ADDRESS + u64_at(headers(PT_LOAD)[0] + 32)).contains(&address)
}

#[test]
fn is_a_small_static_executable_for_x86_64() {
    assert_eq!(ELF[..7], *b"\x7fELF\x02\x01\x01", "64 bits, little-endian, version 1");
    assert_eq!(u16_at(16), ET_EXEC, "not position-independent");
    assert_eq!(u16_at(18), EM_X86_64);
    assert!(headers(PT_DYNAMIC).is_empty());
    assert!(headers(PT_INTERP).is_empty());
    assert!(ELF.len() < SIZE_LIMIT, "{} bytes", ELF.len());
}

#[test]
fn has_one_segment_that_can_be_copied_or_mapped_as_it_is() {
    let segments = headers(PT_LOAD);
    assert_eq!(segments.len(), 1);
    let segment = segments[0];
    assert_eq!(u64_at(segment + 8), 0, "offset");
    assert_eq!(u64_at(segment + 16), LOAD_ADDRESS, "virtual address");
    assert_eq!(u64_at(segment + 24), LOAD_ADDRESS, "physical address");
    assert_eq!(u64_at(segment + 32), u64_at(segment + 40), "no memory beyond the file");
    assert!(u64_at(segment + 32) <= ELF.len() as u64);
    assert!(is_in_segment(u64_at(24)), "the entry point");
}

#[test]
fn has_a_pvh_note() {
    let notes = headers(PT_NOTE);
    assert_eq!(notes.len(), 1);
    let note = u64_at(notes[0] + 8);
    assert_eq!(u32_at(note), 4, "name size");
    assert_eq!(u32_at(note + 4), 4, "value size");
    assert_eq!(u32_at(note + 8), XEN_ELFNOTE_PHYS32_ENTRY);
    assert_eq!(&bytes_at::<4>(note + 12), b"Xen\0");
    let entry = u64::from(u32_at(note + 16));
    assert!(is_in_segment(entry));
    assert_ne!(entry, u64_at(24), "the two entry points differ");
}
