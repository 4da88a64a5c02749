use super::*;
use crate::testkit::{MIB, bytes_at, machine};
use crate::{Cmdline, Initrd, Protocol};

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

/// start_info.h: the layout of `struct hvm_start_info`, `hvm_modlist_entry` and `hvm_memmap_table_entry`.
#[test]
fn structures_are_laid_out_as_xen_has_them() {
    let (mem, ram) = machine(3 * 1024 * MIB + MIB);
    let cmdline = Cmdline::new("x").unwrap();
    let initrd = Some(Initrd { address: GuestAddress(32 * MIB), size: 1234 });
    let request = BootRequest {
        cmdline: &cmdline,
        initrd,
        ram: &ram,
        protocol: Protocol::Pvh,
        rsdp: GuestAddress(0xe_0000),
    };
    write_start_info(&mem, &request).unwrap();

    let info = words(&bytes_at(&mem, layout::PVH_START_INFO, 56));
    assert_eq!(
        info,
        [
            0x1_336e_c578, // magic, version
            0x1_0000_0000, // flags, nr_modules
            layout::PVH_MODULES,
            layout::CMDLINE_START,
            0xe_0000, // rsdp_paddr
            layout::PVH_MEMORY_MAP,
            4, // memmap_entries, reserved
        ]
    );
    assert_eq!(words(&bytes_at(&mem, layout::PVH_MODULES, 32)), [32 * MIB, 1234, 0, 0]);
    assert_eq!(
        words(&bytes_at(&mem, layout::PVH_MEMORY_MAP, 96)),
        [[0, 0x9_fc00, 1], [0x9_fc00, 0x6_0400, 2], [0x10_0000, 0xbff0_0000, 1], [0x1_0000_0000, MIB, 1],]
            .concat()
    );
}

#[test]
fn no_initrd_no_module() {
    let (mem, ram) = machine(16 * MIB);
    let cmdline = Cmdline::default();
    let request = BootRequest {
        cmdline: &cmdline,
        initrd: None,
        ram: &ram,
        protocol: Protocol::Pvh,
        rsdp: GuestAddress(0),
    };
    write_start_info(&mem, &request).unwrap();
    let info = words(&bytes_at(&mem, layout::PVH_START_INFO, 56));
    assert_eq!(info[1..3], [0, 0]);
    assert_eq!(info[6], 3);
}
