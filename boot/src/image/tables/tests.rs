use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::Kernel;
use crate::testkit::{MIB, elf, load, put};

/// Where the tests' segment is in the file.
const SEGMENT: u64 = 2 * PAGE_SIZE;
const SEGMENT_SIZE: u64 = 4 * MIB;
/// e_shoff, and the three fields from e_shentsize on.
const SHOFF: usize = 40;
const SHENTSIZE: usize = 58;

/// A section by its name, and where it is in the segment.
type Given<'a> = (&'a str, u64, u64);

/// A kernel of one segment at 2 MiB, with those sections.
fn image(sections: &[Given]) -> Vec<u8> {
    let mut names = vec![0];
    let mut headers = vec![0; SHDR_SIZE];
    let mut add = |name: &str, offset: u64, size: u64| {
        let mut header = [0; SHDR_SIZE];
        put(&mut header, 0, &(names.len() as u32).to_le_bytes());
        put(&mut header, 24, &offset.to_le_bytes());
        put(&mut header, 32, &size.to_le_bytes());
        names.extend(name.bytes().chain([0]));
        headers.extend(header);
    };
    for &(name, offset, size) in sections {
        add(name, SEGMENT + offset, size);
    }
    let end = SEGMENT + SEGMENT_SIZE;
    add(".shstrtab", end, NAMES_SIZE_MAX);

    let mut image = elf(2 * MIB, &[load(SEGMENT, 2 * MIB, SEGMENT_SIZE, SEGMENT_SIZE)], &[]);
    image.resize(end as usize, 0);
    names.resize(NAMES_SIZE_MAX as usize, 0);
    image.extend(names);
    let (table, count) = (image.len() as u64, headers.len() / SHDR_SIZE);
    image.extend(headers);
    put(&mut image, SHOFF, &table.to_le_bytes());
    for (index, field) in [SHDR_SIZE, count, count - 1].into_iter().enumerate() {
        put(&mut image, SHENTSIZE + 2 * index, &(field as u16).to_le_bytes());
    }
    image
}

/// Start in the segment, and size, of each table that is found.
fn found(image: &[u8]) -> Vec<(u64, u64)> {
    let mut image = Cursor::new(image);
    let kernel = Kernel::parse(&mut image).unwrap();
    let tables = kernel.constant_tables(&mut image);
    for table in &tables {
        assert_eq!(table.memory_size, table.file_size);
        assert_eq!(table.guest_address - 2 * MIB, table.file_offset - SEGMENT);
    }
    tables.iter().map(|table| (table.file_offset - SEGMENT, table.file_size)).collect()
}

#[test]
fn whole_pages_of_the_named_sections_are_found() {
    let image = image(&[
        (".text", 0, MIB),
        (".rodata", MIB, MIB),
        (".BTF", 2 * MIB + 0x60, MIB),
        (".BTF_ids", 3 * MIB + 0x60, MIB / 2),
    ]);
    assert_eq!(found(&image), [(2 * MIB + PAGE_SIZE, MIB - PAGE_SIZE)]);
}

#[test]
fn neighbours_are_one() {
    let image = image(&[(".orc_unwind", MIB + 0x10, MIB), (".orc_unwind_ip", MIB / 2, MIB / 2 + 8)]);
    assert_eq!(found(&image), [(MIB / 2, 3 * MIB / 2)]);
}

#[test]
fn neighbours_in_two_segments_stay_two() {
    // Between them is the end of the first one's memory, which is zero, but not in the file.
    let image = image(&[(".orc_unwind_ip", MIB, MIB - 16), (".orc_unwind", 2 * MIB, MIB)]);
    let cut = |start: u64, size: u64, memory_size: u64| Segment {
        file_offset: SEGMENT + start,
        file_size: size,
        guest_address: 2 * MIB + start,
        memory_size,
    };
    let segments = [cut(0, 2 * MIB - 16, 2 * MIB), cut(2 * MIB, MIB, MIB)];
    let found = find(&mut Cursor::new(image), &segments);
    assert_eq!(found, [cut(MIB, MIB - PAGE_SIZE, MIB - PAGE_SIZE), cut(2 * MIB, MIB, MIB)]);
}

#[test]
fn small_tables_are_copied() {
    let image = image(&[(".BTF", MIB, SIZE_MIN - 1), (".orc_unwind", 2 * MIB, SIZE_MIN)]);
    assert_eq!(found(&image), [(2 * MIB, SIZE_MIN)]);
}

#[test]
fn a_few_pages_do_not_break_a_huge_page() {
    let image = image(&[(".BTF", MIB, MIB + SIZE_MIN - PAGE_SIZE), (".orc_unwind", 3 * MIB, MIB)]);
    assert_eq!(found(&image), [(MIB, MIB), (3 * MIB, MIB)]);
    let image = self::image(&[(".BTF", MIB, MIB + SIZE_MIN)]);
    assert_eq!(found(&image), [(MIB, MIB + SIZE_MIN)]);
}

#[test]
fn sections_that_overlap_count_once() {
    let image = image(&[(".BTF", MIB, 2 * MIB), (".orc_unwind", 2 * MIB, 2 * MIB)]);
    assert_eq!(found(&image), [(MIB, 2 * MIB)]);
}

#[test]
fn a_page_of_the_file_must_be_one_of_memory() {
    // The segment's bytes lie in the file 16 bytes behind where their pages would.
    let mut moved = image(&[(".BTF", MIB, MIB)]);
    let p_paddr = 64 + 24;
    put(&mut moved, p_paddr, &(2 * MIB + 16).to_le_bytes());
    let mut cursor = Cursor::new(&moved);
    let segment = Segment {
        file_offset: SEGMENT,
        file_size: SEGMENT_SIZE,
        guest_address: 2 * MIB + 16,
        memory_size: SEGMENT_SIZE,
    };
    assert_eq!(find(&mut cursor, &[segment]), []);
}

#[test]
fn what_makes_no_sense_is_copied() {
    let good = image(&[(".BTF", MIB, MIB)]);
    assert_eq!(found(&good).len(), 1);
    let without = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        put(&mut bad, at, bytes);
        assert_eq!(found(&bad), [], "with {bytes:?} at {at}");
    };
    without(SHOFF, &u64::MAX.to_le_bytes());
    without(SHOFF, &0u64.to_le_bytes());
    without(SHENTSIZE, &[40]);
    without(SHENTSIZE + 2, &[0, 0]);
    without(SHENTSIZE + 2, &[0xff, 0xff]);
    without(SHENTSIZE + 4, &[0xff, 0xff]);
    // Its offset, its size, the offset of its name.
    let header = good.len() - 2 * SHDR_SIZE;
    without(header + 24, &u64::MAX.to_le_bytes());
    without(header + 32, &u64::MAX.to_le_bytes());
    without(header, &u32::MAX.to_le_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever the headers say, what is found is in the segment, in whole pages, in order and apart.
    #[test]
    fn what_is_found_is_in_the_segment(
        sections in prop::collection::vec((0..3usize, 0..5 * MIB, prop_oneof![0..5 * MIB, any::<u64>()]), 0..6)
    ) {
        let names = [".BTF", ".orc_unwind", ".orc_unwind_ip"];
        let given: Vec<Given> = sections.iter().map(|&(name, offset, size)| (names[name], offset, size)).collect();
        let found = found(&image(&given));
        for &(start, size) in &found {
            prop_assert!(start % PAGE_SIZE == 0 && size % PAGE_SIZE == 0 && size >= SIZE_MIN);
            prop_assert!(start + size <= SEGMENT_SIZE);
        }
        prop_assert!(found.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    }
}
