//! Any file at all as a kernel image: what is accepted is loaded and entered, and keeps its promises.

use std::io::Cursor;

use boot::{BootRequest, Cmdline, Initrd, Kernel, Protocol, ram_regions};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 16 << 20;

/// Runs one input.
pub(crate) fn check(data: &[u8]) {
    let mut image = Cursor::new(data);
    let Ok(kernel) = Kernel::parse(&mut image) else { return };
    assert!(!kernel.segments().is_empty());
    assert!(kernel.entry64().is_some() || kernel.pvh_entry().is_some());
    for segment in kernel.segments() {
        assert!(segment.file_size <= segment.memory_size);
        assert!(segment.file_offset + segment.file_size <= data.len() as u64);
    }
    for pair in kernel.segments().windows(2) {
        assert!(pair[0].end() <= pair[1].guest_address);
    }

    let tables = kernel.constant_tables(&mut image);
    for table in &tables {
        assert!(
            table.guest_address % 4096 == 0 && table.file_offset % 4096 == 0 && table.file_size % 4096 == 0
        );
        assert!(kernel.segments().iter().any(|s| {
            let into = table.guest_address.wrapping_sub(s.guest_address);
            table.file_offset.checked_sub(s.file_offset) == Some(into)
                && into + table.file_size <= s.file_size
        }));
    }
    for pair in tables.windows(2) {
        assert!(pair[0].end() <= pair[1].guest_address);
    }

    let ram = ram_regions(RAM).expect("16 MiB are a machine");
    let mem: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("16 MiB are there");
    let initrd = Initrd::place(5000, &kernel, &ram).ok();
    if let Some(initrd) = initrd {
        let (start, end) = (initrd.address.0, initrd.address.0 + initrd.size);
        assert!(ram.contains(start, initrd.size));
        assert!(kernel.segments().iter().all(|s| s.end() <= start || s.guest_address >= end));
    }
    if kernel.load(&mem, &mut image).is_err() {
        return;
    }
    for segment in kernel.segments() {
        let mut bytes = vec![0; segment.file_size as usize];
        mem.read_slice(&mut bytes, GuestAddress(segment.guest_address)).expect("it was loaded");
        let offset = segment.file_offset as usize;
        assert_eq!(bytes, data[offset..offset + bytes.len()]);
    }
    let cmdline = Cmdline::new("quiet").expect("a good one");
    for protocol in [Protocol::Auto, Protocol::Linux64, Protocol::Pvh] {
        let request =
            BootRequest { cmdline: &cmdline, initrd, ram: &ram, protocol, rsdp: GuestAddress(0xe_0000) };
        if let Ok(state) = boot::enter(&mem, &kernel, &request) {
            let entry = state.registers.rip;
            assert!(kernel.segments().iter().any(|s| s.guest_address <= entry && entry < s.end()));
        }
    }
    boot::scrub(&mem, &kernel).expect("its segments have their place");
}
