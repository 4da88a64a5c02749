use proptest::prelude::*;

use super::*;

#[test]
fn sizes_outside_what_a_machine_can_have_are_refused_by_name() {
    assert_eq!(ram_regions(0), Err(LayoutError::TooSmall { size: 0 }));
    assert_eq!(ram_regions(MIB), Err(LayoutError::TooSmall { size: MIB }));
    assert_eq!(ram_regions(RAM_MIN - PAGE_SIZE), Err(LayoutError::TooSmall { size: RAM_MIN - PAGE_SIZE }));
    assert_eq!(ram_regions(RAM_MAX + PAGE_SIZE), Err(LayoutError::TooLarge { size: RAM_MAX + PAGE_SIZE }));
    assert_eq!(ram_regions(u64::MAX), Err(LayoutError::TooLarge { size: u64::MAX }));
    assert_eq!(ram_regions(RAM_MIN + 1), Err(LayoutError::Unaligned { size: RAM_MIN + 1 }));
    let text = ram_regions(MIB).unwrap_err().to_string();
    assert_eq!(text, "a machine cannot have 1048576 bytes of RAM: give it at least 16 MiB");
}

#[test]
fn ram_is_one_range_up_to_3_gib_and_two_beyond() {
    let ranges = |size| ram_regions(size).unwrap().iter().map(|r| (r.start, r.size)).collect::<Vec<_>>();
    assert_eq!(ranges(RAM_MIN), [(0, 16 * MIB)]);
    assert_eq!(ranges(3 * GIB), [(0, 3 * GIB)]);
    assert_eq!(ranges(3 * GIB + PAGE_SIZE), [(0, 3 * GIB), (4 * GIB, PAGE_SIZE)]);
    assert_eq!(ranges(64 * GIB), [(0, 3 * GIB), (4 * GIB, 61 * GIB)]);
    assert_eq!(ranges(RAM_MAX), [(0, 3 * GIB), (4 * GIB, PHYSICAL_LIMIT - 4 * GIB)]);
}

#[test]
fn contains_knows_the_gap_and_does_not_wrap() {
    let ram = ram_regions(4 * GIB).unwrap();
    assert!(ram.contains(0, 3 * GIB));
    assert!(ram.contains(4 * GIB, GIB));
    assert!(!ram.contains(3 * GIB - 1, 2));
    assert!(!ram.contains(MMIO_GAP_START, 1));
    assert!(!ram.contains(5 * GIB, 1));
    assert!(!ram.contains(u64::MAX, 2));
    assert!(!ram.contains(1, u64::MAX));
}

/// Nothing on the map lies over anything else.
#[test]
fn structures_do_not_overlap() {
    let below_1_mib = [
        (GDT_START, 48),
        (PVH_START_INFO, 56),
        (PVH_MODULES, 32),
        (PVH_MEMORY_MAP, 4 * 24),
        (CMDLINE_START, CMDLINE_ROOM),
        (BOOT_PARAMS, PAGE_SIZE),
        (STACK_TOP & !(PAGE_SIZE - 1), STACK_TOP % PAGE_SIZE),
        (PML4, PAGE_SIZE),
        (PDPT, PAGE_SIZE),
        (PAGE_DIRECTORIES, PAGE_DIRECTORY_COUNT * PAGE_SIZE),
        (LOW_RESERVED_START, ACPI_START - LOW_RESERVED_START),
        (ACPI_START, ACPI_END - ACPI_START),
        (MP_TABLE, PAGE_SIZE),
        (RESET_VECTOR, 16),
    ];
    let in_gap = [
        (MMIO_GAP_START, 0),
        (VIRTIO_MMIO_START, VIRTIO_MMIO_SIZE * VIRTIO_MMIO_COUNT),
        (IOAPIC_START, PAGE_SIZE),
        (LAPIC_START, PAGE_SIZE),
        (KVM_IDENTITY_MAP, PAGE_SIZE),
        (KVM_TSS, 3 * PAGE_SIZE),
    ];
    for (map, end) in [(&below_1_mib[..], KERNEL_START), (&in_gap, HIGH_RAM_START)] {
        for pair in map.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{:x?} overlaps {:x?}", pair[0], pair[1]);
        }
        assert!(map.last().is_some_and(|(start, size)| start + size <= end));
    }
}

proptest! {
    /// The ranges hold exactly the RAM that was asked for, in page units, outside the gap.
    #[test]
    fn ranges_hold_the_size(pages in RAM_MIN / PAGE_SIZE..=RAM_MAX / PAGE_SIZE) {
        let size = pages * PAGE_SIZE;
        let ram = ram_regions(size).unwrap();
        prop_assert_eq!(ram.total(), size);
        prop_assert_eq!(ram.iter().map(|r| r.size).sum::<u64>(), size);
        for region in ram.iter() {
            prop_assert!(region.size > 0);
            prop_assert!(region.end() <= MMIO_GAP_START || region.start >= HIGH_RAM_START);
            prop_assert!(region.end() <= PHYSICAL_LIMIT);
        }
    }
}
