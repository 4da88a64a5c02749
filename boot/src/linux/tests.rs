use std::io::Cursor;

use super::*;
use crate::testkit::{MIB, bytes_at, bzimage, machine};
use crate::{Cmdline, Initrd, Kernel, Protocol, RamRegions};

fn written(ram: u64, initrd: Option<Initrd>, header: Option<&SetupHeader>) -> Vec<u8> {
    let (mem, ram) = machine(ram);
    let cmdline = Cmdline::default();
    write_boot_params(&mem, header, &request(&cmdline, &ram, initrd)).unwrap();
    bytes_at(&mem, layout::BOOT_PARAMS, 4096)
}

fn request<'a>(cmdline: &'a Cmdline, ram: &'a RamRegions, initrd: Option<Initrd>) -> BootRequest<'a> {
    BootRequest { cmdline, initrd, ram, protocol: Protocol::Linux64, rsdp: GuestAddress(0xe_0000) }
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
}

fn u64_at(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
}

/// zero-page.rst: offsets of the fields that a 64-bit kernel reads.
#[test]
fn fields_are_where_the_kernel_looks() {
    let initrd = Initrd { address: GuestAddress(0x1_2345_6000), size: 0x2_0000_0001 };
    let page = written(128 * MIB, Some(initrd), None);
    assert_eq!(u64_at(&page, 0x070), 0xe_0000); // acpi_rsdp_addr
    assert_eq!(u32_at(&page, 0x0c0), 1); // ext_ramdisk_image
    assert_eq!(u32_at(&page, 0x0c4), 2); // ext_ramdisk_size
    assert_eq!(page[0x1e8], 3); // e820_entries
    assert_eq!(page[0x1ef], 0); // sentinel: the page is clean
    assert_eq!(page[0x1fe..0x200], [0x55, 0xaa]); // boot_flag
    assert_eq!(page[0x202..0x206], *b"HdrS");
    assert_eq!(page[0x206..0x208], [0x0c, 0x02]); // version
    assert_eq!(page[0x210], 0xff); // type_of_loader
    assert_eq!(page[0x211], 1); // loadflags: LOADED_HIGH
    assert_eq!(u32_at(&page, 0x218), 0x2345_6000); // ramdisk_image
    assert_eq!(u32_at(&page, 0x21c), 1); // ramdisk_size
    assert_eq!(u64::from(u32_at(&page, 0x228)), layout::CMDLINE_START); // cmd_line_ptr
    assert_eq!(u32_at(&page, 0x238), 2047); // cmdline_size
    assert_eq!(u64_at(&page, 0x250), 0); // setup_data: none
}

/// zero-page.rst, 0x2d0: "The E820 memory map table", entries of address, size, type.
#[test]
fn the_memory_map_is_in_the_page() {
    let page = written(4096 * MIB, None, None);
    let entries: Vec<_> = (0..usize::from(page[0x1e8]))
        .map(|n| 0x2d0 + n * 20)
        .map(|at| (u64_at(&page, at), u64_at(&page, at + 8), u32_at(&page, at + 16)))
        .collect();
    assert_eq!(
        entries,
        [
            (0, 0x9_fc00, 1),
            (0x9_fc00, 0x6_0400, 2),
            (0x10_0000, 0xbff0_0000, 1),
            (0x1_0000_0000, 0x4000_0000, 1),
        ]
    );
    assert_eq!((u32_at(&page, 0x218), u32_at(&page, 0x21c)), (0, 0));
}

/// boot.rst, "64-bit BOOT PROTOCOL": "the setup header at offset 0x01f1 of kernel image should be loaded into struct
/// boot_params and examined."
#[test]
fn a_bzimage_brings_its_own_header() {
    let image = bzimage(b"");
    let kernel = Kernel::parse(&mut Cursor::new(&image)).unwrap();
    let page = written(16 * MIB, None, kernel.setup_header());
    // Everything but what the loader fills in.
    for range in [0x1f1..0x210, 0x212..0x218, 0x22c..0x26c] {
        assert_eq!(page[range.clone()], image[range]);
    }
    assert_eq!(page[0x210], 0xff);
    assert!(page[0x26c..0x290].iter().all(|byte| *byte == 0));
}
