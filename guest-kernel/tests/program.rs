//! The guest program's parsers, compiled for the host over a memory of the test's own.

#![expect(dead_code, reason = "the tests use a part of each module")]

#[path = "../program/src/acpi.rs"]
mod acpi;
#[path = "../program/src/boot_info.rs"]
mod boot_info;
#[path = "../program/src/options.rs"]
mod options;
#[path = "../program/src/serial.rs"]
mod serial;

/// Stands in for guest memory: bytes by address, 0 where nothing is.
mod memory {
    use std::cell::RefCell;
    use std::collections::HashMap;

    thread_local! {
        static BYTES: RefCell<HashMap<u64, u8>> = RefCell::default();
    }

    pub(crate) fn place(address: u64, bytes: &[u8]) {
        BYTES.with_borrow_mut(|memory| memory.extend((address..).zip(bytes.iter().copied())));
    }

    pub(crate) fn read_u8(address: u64) -> u8 {
        BYTES.with_borrow(|memory| memory.get(&address).copied().unwrap_or_default())
    }

    pub(crate) fn read_u32(address: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|at| read_u8(address.wrapping_add(at))))
    }

    pub(crate) fn read_u64(address: u64) -> u64 {
        u64::from(read_u32(address.wrapping_add(4))) << 32 | u64::from(read_u32(address))
    }

    pub(crate) fn write_byte(address: u64, value: u8) -> bool {
        place(address, &[value]);
        true
    }
}

/// Stands in for the ports: keeps what is written.
mod ring0 {
    use std::cell::RefCell;

    thread_local! {
        pub(crate) static OUTPUT: RefCell<Vec<u8>> = RefCell::default();
    }

    pub(crate) fn write(_port: u16, bytes: &[u8]) {
        OUTPUT.with_borrow_mut(|output| output.extend(bytes));
    }

    pub(crate) fn write_polled(bytes: &[u8]) {
        write(0, bytes);
    }

    pub(crate) fn read(_port: u16) -> u8 {
        u8::MAX
    }
}

mod command_line {
    use super::options::{Mode, Options, Window};

    #[test]
    fn empty_means_ready() {
        let options = Options::parse(b"");
        assert_eq!(options.mode(), Mode::Ready);
        assert!(options.invalid.is_none());
    }

    #[test]
    fn takes_its_words_from_among_others() {
        let line = b"console=ttyS0  mode=blk n=10\tsize=0x1000 quiet root=/dev/vda\n";
        let options = Options::parse(line);
        assert_eq!(options.mode(), Mode::Block);
        assert_eq!(options.n, Some(10));
        assert_eq!(options.size, Some(0x1000));
        assert!(options.invalid.is_none());
    }

    #[test]
    fn first_of_two_counts() {
        let options = Options::parse(b"mode=ready mode=spin n=1 n=2");
        assert_eq!(options.mode(), Mode::Ready);
        assert_eq!(options.n, Some(1));
    }

    #[test]
    fn names_the_word_that_is_wrong() {
        for word in [
            &b"n="[..],
            b"n=1x",
            b"n=-1",
            b"n=0x",
            b"mb=18446744073709551616",
            b"status=256",
            b"poll=2",
            b"verify=2",
            b"port=4294967296",
        ] {
            let line = [b"mode=idle ", word, b" kb=x"].concat();
            assert_eq!(Options::parse(&line).invalid, Some(word));
        }
    }

    #[test]
    fn windows_are_named_in_the_words_of_linux() {
        let line = b"virtio_mmio.device=4K@0xc0001000:5 mode=blk virtio_mmio.device=512@0xFEB00000:12:1 \
                     virtio_mmio.device=4K virtio_mmio.device=4K@x:1 virtio_mmio.device=4K@4096 \
                     virtio_mmio.device=4K@8192:256";
        let options = Options::parse(line);
        assert!(options.invalid.is_none(), "what others write is not for us to refuse");
        let windows = [(0xc000_1000, Some(5)), (0xfeb0_0000, Some(12)), (4096, None), (8192, None)];
        assert_eq!(options.windows().collect::<Vec<_>>(), windows.map(|(base, gsi)| Window { base, gsi }));
        assert_eq!(Options::parse(b"mode=blk").windows().count(), 0);
    }

    #[test]
    fn keeps_the_name_of_an_unknown_mode() {
        assert_eq!(Options::parse(b"mode=dance").mode(), Mode::Unknown(b"dance"));
    }
}

mod boot_parameters {
    use super::boot_info::{BootInfo, COMMAND_LINE_LIMIT, Protocol};
    use super::memory;

    const PARAMETERS: u64 = 0x7000;

    fn info(protocol: Protocol) -> BootInfo {
        BootInfo { protocol, parameters: PARAMETERS, command_line: 0x2_0000, rsdp: 0, said_ready: false }
    }

    #[test]
    fn command_line_ends_at_nul_or_at_the_limit() {
        let mut buffer = [0; COMMAND_LINE_LIMIT];
        memory::place(0x2_0000, b"mode=idle\0rest");
        assert_eq!(info(Protocol::Linux).command_line(&mut buffer), b"mode=idle");
        memory::place(0x2_0000, &[b'x'; 4096]);
        assert_eq!(info(Protocol::Pvh).command_line(&mut buffer).len(), COMMAND_LINE_LIMIT);
        let none = BootInfo { command_line: 0, ..info(Protocol::Linux) };
        assert_eq!(none.command_line(&mut buffer), b"");
    }

    #[test]
    fn e820_has_entries_of_20_bytes() {
        memory::place(PARAMETERS + 0x1e8, &[2]);
        for (index, (start, size, kind)) in
            [(0u64, 0x9_fc00u64, 1u32), (0x10_0000, 0x700_0000, 2)].iter().enumerate()
        {
            let entry = PARAMETERS + 0x2d0 + 20 * index as u64;
            memory::place(entry, &start.to_le_bytes());
            memory::place(entry + 8, &size.to_le_bytes());
            memory::place(entry + 16, &kind.to_le_bytes());
        }
        let map = info(Protocol::Linux).memory_map();
        let ranges: Vec<_> = map.ranges().iter().map(|range| (range.start, range.size, range.kind)).collect();
        assert_eq!(ranges, [(0, 0x9_fc00, 1), (0x10_0000, 0x700_0000, 2)]);
    }

    #[test]
    fn a_map_that_is_too_long_is_cut() {
        memory::place(PARAMETERS + 0x1e8, &[255]);
        assert_eq!(info(Protocol::Linux).memory_map().ranges().len(), 16);
        memory::place(PARAMETERS + 4, &1u32.to_le_bytes());
        memory::place(PARAMETERS + 48, &u32::MAX.to_le_bytes());
        assert_eq!(info(Protocol::Pvh).memory_map().ranges().len(), 16);
    }

    #[test]
    fn start_info_of_version_0_has_no_map() {
        memory::place(PARAMETERS + 48, &3u32.to_le_bytes());
        assert!(info(Protocol::Pvh).memory_map().ranges().is_empty());
    }
}

mod tables {
    use super::acpi::{SleepControl, is_mote};
    use super::{memory, ring0};

    const RSDP: u64 = 0xe_0000;
    const XSDT: u64 = 0xe_0100;
    const FADT: u64 = 0xe_0200;
    const OTHER: u64 = 0xe_0400;

    fn with_checksum(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
        bytes[at] = 0;
        bytes[at] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
        bytes
    }

    fn rsdp() -> Vec<u8> {
        let mut rsdp = b"RSD PTR \0MOTE  \x02\0\0\0\0\x24\0\0\0".to_vec();
        rsdp.extend(XSDT.to_le_bytes());
        rsdp.resize(36, 0);
        with_checksum(rsdp, 32)
    }

    fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = signature.to_vec();
        table.extend((36 + body.len() as u32).to_le_bytes());
        table.resize(36, 0);
        table.extend(body);
        with_checksum(table, 9)
    }

    fn fadt(space: u8, address: u64) -> Vec<u8> {
        let mut body = vec![0; 276 - 36];
        body[112 - 36 + 2] = 1 << 4;
        body[244 - 36] = space;
        body[248 - 36..256 - 36].copy_from_slice(&address.to_le_bytes());
        table(b"FACP", &body)
    }

    fn place(rsdp: &[u8], fadt: &[u8]) {
        memory::place(RSDP, rsdp);
        memory::place(XSDT, &table(b"XSDT", &[OTHER.to_le_bytes(), FADT.to_le_bytes()].concat()));
        memory::place(OTHER, &table(b"APIC", &[]));
        memory::place(FADT, fadt);
    }

    #[test]
    fn mote_is_known_by_its_name() {
        memory::place(RSDP, &rsdp());
        assert!(is_mote(RSDP));
        assert!(!is_mote(0));
        memory::place(RSDP + 9, b"MOTE 2");
        assert!(!is_mote(RSDP));
    }

    #[test]
    fn sleep_control_is_a_port_or_memory() {
        place(&rsdp(), &fadt(1, 0x600));
        let found = SleepControl::find(RSDP);
        assert!(matches!(found, Some(SleepControl::Port(0x600))));
        found.expect("as matched").power_off();
        assert_eq!(ring0::OUTPUT.take(), [0x34]);

        place(&rsdp(), &fadt(0, 0xfea0_0000));
        let found = SleepControl::find(RSDP);
        assert!(matches!(found, Some(SleepControl::Memory(0xfea0_0000))));
        found.expect("as matched").power_off();
        assert_eq!(memory::read_u8(0xfea0_0000), 0x34);
    }

    #[test]
    fn the_root_is_searched_where_it_is_not_given() {
        place(&rsdp(), &fadt(1, 0x600));
        assert!(SleepControl::find(0).is_some());
    }

    #[test]
    fn nothing_is_believed_without_its_checksum() {
        for (address, length) in [(RSDP, 36), (XSDT, 52), (FADT, 276)] {
            for at in address..address + length {
                place(&rsdp(), &fadt(1, 0x600));
                memory::place(at, &[memory::read_u8(at) ^ 0x10]);
                assert!(SleepControl::find(RSDP).is_none(), "{at:#x}");
            }
        }
    }

    #[test]
    fn a_machine_without_the_register_has_none() {
        place(&rsdp(), &fadt(1, 0));
        assert!(SleepControl::find(RSDP).is_none(), "address 0");
        place(&rsdp(), &fadt(1, 0x1_0000));
        assert!(SleepControl::find(RSDP).is_none(), "no such port");
        place(&rsdp(), &fadt(2, 0x600));
        assert!(SleepControl::find(RSDP).is_none(), "PCI configuration space");
        place(&rsdp(), &table(b"FACP", &[0; 116 - 36]));
        assert!(SleepControl::find(RSDP).is_none(), "a FADT of ACPI 1.0");
    }

    #[test]
    fn lengths_are_bounded() {
        for length in [0u32, 35, 4097, u32::MAX] {
            place(&rsdp(), &fadt(1, 0x600));
            memory::place(XSDT + 4, &length.to_le_bytes());
            assert!(SleepControl::find(RSDP).is_none(), "{length}");
        }
    }
}

mod lines {
    use super::ring0;
    use super::serial::Line;

    fn sent(fill: fn(&mut Line) -> &mut Line) -> String {
        fill(&mut Line::new()).send();
        String::from_utf8(ring0::OUTPUT.take()).expect("text")
    }

    #[test]
    fn numbers() {
        assert_eq!(sent(|line| line.decimal(0).text(b" ").decimal(u64::MAX)), "0 18446744073709551615\n");
        assert_eq!(sent(|line| line.hex(0).text(b" ").hex(0xdead_beef)), "0x0 0xdeadbeef\n");
    }

    #[test]
    fn a_line_that_is_too_long_still_ends() {
        let line = sent(|line| line.text(&[b'x'; 1000]));
        assert_eq!(line, "x".repeat(255) + "\n");
    }
}
