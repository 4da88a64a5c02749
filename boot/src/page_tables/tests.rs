use proptest::prelude::*;
use vm_memory::GuestMemoryMmap;

use super::*;
use crate::testkit::machine;

fn entry(mem: &GuestMemoryMmap, table: u64, index: u64) -> u64 {
    mem.read_obj(GuestAddress(table + index * 8)).unwrap()
}

/// What the processor does (Intel SDM volume 3A, 5.5.4, figure 5-9: 2 MiB pages), or none where it would fault.
fn translate(mem: &GuestMemoryMmap, cr3: u64, linear: u64) -> Option<u64> {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let mut table = cr3;
    for shift in [39, 30] {
        let entry = entry(mem, table, linear >> shift & 511);
        (entry & PRESENT != 0 && entry & WRITABLE != 0 && entry & LARGE_PAGE == 0).then_some(())?;
        table = entry & ADDRESS;
    }
    let page = entry(mem, table, linear >> 21 & 511);
    (page & PRESENT != 0 && page & WRITABLE != 0 && page & LARGE_PAGE != 0).then_some(())?;
    Some((page & ADDRESS & !(LARGE_PAGE_SIZE - 1)) | (linear & (LARGE_PAGE_SIZE - 1)))
}

#[test]
fn a_small_kernel_takes_one_entry_per_table() {
    let (mem, _) = machine(16 << 20);
    let cr3 = write(&mem, (1 << 20) + 1).unwrap();
    assert_eq!(cr3, layout::PML4);
    assert_eq!(entry(&mem, layout::PML4, 0), layout::PDPT | 3);
    assert_eq!(entry(&mem, layout::PDPT, 0), layout::PAGE_DIRECTORIES | 3);
    assert_eq!(entry(&mem, layout::PAGE_DIRECTORIES, 0), 0x83);
    for (table, index) in [(layout::PML4, 1), (layout::PDPT, 1), (layout::PAGE_DIRECTORIES, 1)] {
        assert_eq!(entry(&mem, table, index), 0);
    }
}

proptest! {
    /// Every address below the end is mapped to itself; behind its 2 MiB page, nothing is.
    #[test]
    fn the_map_is_the_identity_and_ends(end in 1..=layout::MMIO_GAP_START, at in any::<prop::sample::Index>()) {
        let (mem, _) = machine(16 << 20);
        let cr3 = write(&mem, end).unwrap();
        let within = at.index(end as usize) as u64;
        for linear in [0, within, end - 1] {
            prop_assert_eq!(translate(&mem, cr3, linear), Some(linear));
        }
        let behind = end.next_multiple_of(LARGE_PAGE_SIZE);
        prop_assert_eq!(translate(&mem, cr3, behind), None);
        prop_assert_eq!(translate(&mem, cr3, behind | 1 << 39), None);
    }
}
