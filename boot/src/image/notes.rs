//! ELF notes: the one that says where the PVH protocol enters.

use super::ElfError;

/// More than the notes of any kernel (Linux: less than 1 KiB).
pub(super) const SIZE_MAX: u64 = 64 << 10;

/// Owner and type of the note (Xen, public/elfnote.h, `XEN_ELFNOTE_PHYS32_ENTRY`).
const XEN_OWNER: &[u8] = b"Xen\0";
const PHYS32_ENTRY: u32 = 18;

/// n_namesz, n_descsz, n_type (System V ABI, chapter 5, "Note Section").
const HEADER_SIZE: usize = 12;

/// Finds the PVH note among the notes in `bytes`, which are at `file_offset` and padded as `align` says.
pub(super) fn pvh_entry(bytes: &[u8], file_offset: u64, align: u64) -> Result<Option<u32>, ElfError> {
    // The ABI says 8 for ELF64, Linux and every tool write 4 unless p_align is 8.
    let align = if align == 8 { 8 } else { 4 };
    let mut at = 0;
    // What is left at the end and shorter than a header is padding.
    while let Some(header) = bytes.get(at..at + HEADER_SIZE) {
        let word = |n: usize| u32::from_le_bytes([header[n], header[n + 1], header[n + 2], header[n + 3]]);
        let (name_size, value_size, kind) = (word(0), word(4), word(8));
        // 32-bit sizes cannot overflow these sums, and every round advances by a header at least.
        let name_start = at + HEADER_SIZE;
        let value_start = (name_start + name_size as usize).next_multiple_of(align);
        let value_end = value_start + value_size as usize;
        let bad = ElfError::BadNote { offset: file_offset + at as u64 };
        let name = bytes.get(name_start..name_start + name_size as usize).ok_or_else(|| bad.clone())?;
        let value = bytes.get(value_start..value_end).ok_or(bad)?;
        if kind == PHYS32_ENTRY && name == XEN_OWNER {
            return address(value).map(Some);
        }
        at = value_end.next_multiple_of(align);
    }
    Ok(None)
}

/// The note's value: 4 bytes, or 8 as Linux has it, but always an address below 4 GiB.
fn address(value: &[u8]) -> Result<u32, ElfError> {
    let size = value.len() as u32;
    let number = match *value {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return Err(ElfError::BadPvhNote { size, value: 0 }),
    };
    u32::try_from(number).map_err(|_| ElfError::BadPvhNote { size, value: number })
}
