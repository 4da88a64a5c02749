use proptest::prelude::*;

use super::*;
use crate::ram_regions;

#[test]
fn a_small_machine_has_the_legacy_hole_and_nothing_above_its_ram() {
    let ram = ram_regions(128 << 20).unwrap();
    let map: Vec<_> = entries(&ram).map(|e| (e.start, e.size, e.kind)).collect();
    assert_eq!(
        map,
        [(0, 0x9_fc00, Kind::Ram), (0x9_fc00, 0x6_0400, Kind::Reserved), (0x10_0000, 127 << 20, Kind::Ram),]
    );
}

#[test]
fn a_large_machine_continues_at_4_gib() {
    let ram = ram_regions(6 << 30).unwrap();
    let map: Vec<_> = entries(&ram).skip(2).map(|e| (e.start, e.size, e.kind)).collect();
    assert_eq!(map, [(0x10_0000, (3 << 30) - (1 << 20), Kind::Ram), (4 << 30, 3 << 30, Kind::Ram)]);
}

proptest! {
    /// "The e820 map ... sorted, non-overlapping" (Linux, Documentation/arch/x86/boot.rst and zero-page.rst leave the
    /// order free; guests are kindest to this one): every byte of RAM is in exactly one entry, and no other byte is.
    #[test]
    fn every_byte_of_ram_is_in_the_map_once(pages in layout::RAM_MIN / 4096..=layout::RAM_MAX / 4096) {
        let ram = ram_regions(pages * 4096).unwrap();
        let map: Vec<_> = entries(&ram).collect();
        prop_assert_eq!(map.iter().map(|e| e.size).sum::<u64>(), ram.total());
        for pair in map.windows(2) {
            prop_assert!(pair[0].start + pair[0].size <= pair[1].start);
        }
        for entry in &map {
            prop_assert!(entry.size > 0);
            prop_assert!(ram.contains(entry.start, entry.size));
        }
        // The start-of-day tables have room for this many.
        prop_assert!(map.len() as u64 * 24 <= layout::CMDLINE_START - layout::PVH_MEMORY_MAP);
    }
}
