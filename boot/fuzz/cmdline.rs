//! Any text at all as a kernel command line: what is accepted arrives whole in both protocols' structures.

use std::io::Cursor;

use boot::{BootRequest, CMDLINE_MAX, Cmdline, Kernel, Protocol, layout, ram_regions};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const KERNEL: &[u8] = include_bytes!("../fixtures/kernel.elf");
const RAM: u64 = 16 << 20;

/// Runs one input.
pub(crate) fn check(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    let Ok(cmdline) = Cmdline::new(line) else {
        assert!(line.len() > CMDLINE_MAX || line.contains(char::is_control));
        return;
    };
    assert_eq!(cmdline.as_str(), line);

    let kernel = Kernel::parse(&mut Cursor::new(KERNEL)).expect("a good kernel");
    let ram = ram_regions(RAM).expect("16 MiB are a machine");
    for protocol in [Protocol::Linux64, Protocol::Pvh] {
        let mem: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("16 MiB are there");
        let request = BootRequest {
            cmdline: &cmdline,
            initrd: None,
            ram: &ram,
            protocol,
            rsdp: GuestAddress(layout::ACPI_START),
        };
        boot::enter(&mem, &kernel, &request).expect("everything is in order");
        let mut room = vec![0xff; layout::CMDLINE_ROOM as usize];
        mem.read_slice(&mut room, GuestAddress(layout::CMDLINE_START)).expect("it is RAM");
        assert_eq!(room[..line.len()], *line.as_bytes());
        assert!(room[line.len()..].iter().all(|byte| *byte == 0));
    }
}
