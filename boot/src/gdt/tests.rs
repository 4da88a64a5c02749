use super::*;
use crate::testkit::{MIB, bytes_at, machine};

/// The values that every operating system has in its first GDT (Intel SDM volume 3A, figure 3-8).
#[test]
fn entries_are_the_well_known_ones() {
    assert_eq!(Segments::LONG.code.encode(), 0x00af_9b00_0000_ffff);
    assert_eq!(Segments::PROTECTED.code.encode(), 0x00cf_9b00_0000_ffff);
    assert_eq!(Segments::LONG.data.encode(), 0x00cf_9300_0000_ffff);
    assert_eq!(Segments::LONG.task.encode(), 0x0000_8b00_0000_0067);
}

#[test]
fn base_and_limit_are_split_over_the_entry() {
    let segment = SegmentDescriptor {
        base: 0x1234_5678,
        limit: 0x000a_bcde,
        granularity: false,
        dpl: 3,
        ..Segments::PROTECTED.data
    };
    assert_eq!(segment.encode(), 0x124a_f334_5678_bcde);
}

/// "The 64-bit entry: CS must be __BOOT_CS (0x10) ... DS, ES and SS must be __BOOT_DS (0x18)" (boot.rst).
#[test]
fn selectors_index_their_entries() {
    let (mem, _) = machine(16 * MIB);
    for segments in [Segments::LONG, Segments::PROTECTED] {
        let table = write(&mem, &segments).unwrap();
        assert_eq!((table.base, table.limit), (layout::GDT_START, 47));
        let bytes = bytes_at(&mem, table.base, usize::from(table.limit) + 1);
        let entry = |selector: u16| {
            let at = usize::from(selector);
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        assert_eq!((segments.code.selector, segments.data.selector), (0x10, 0x18));
        for segment in [segments.code, segments.data, segments.task] {
            assert_eq!(entry(segment.selector), segment.encode());
        }
        // Null, unused, and the upper half of the task's base.
        assert_eq!([entry(0), entry(8), entry(0x28)], [0; 3]);
    }
}
