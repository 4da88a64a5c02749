use proptest::prelude::*;
use vm_memory::GuestMemoryMmap;

use super::*;
use crate::testkit::{MIB, bytes_at, machine};

/// The tables of a machine as a guest finds them: by following addresses from the RSDP, and checking every sum.
struct Found {
    rsdp: Vec<u8>,
    tables: Vec<(String, Vec<u8>)>,
}

impl Found {
    fn table(&self, signature: &str) -> &[u8] {
        &self.tables.iter().find(|(name, _)| name == signature).expect("the machine has this table").1
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn table_at(mem: &GuestMemoryMmap, address: u64) -> (String, Vec<u8>) {
    let length = u32_at(&bytes_at(mem, address, 8), 4) as usize;
    assert!(address + length as u64 <= layout::ACPI_END);
    let bytes = bytes_at(mem, address, length);
    // "The entire table, including the checksum field, must add to zero to be considered valid" (5.2.6).
    assert_eq!(sum(&bytes), 0);
    assert_eq!(bytes[10..16], OEM_ID);
    (String::from_utf8(bytes[..4].to_vec()).unwrap(), bytes)
}

fn found(cpus: u8, nodes: &[DeviceNode]) -> Found {
    let (mem, _) = machine(16 * MIB);
    let start = write(&mem, cpus, nodes).unwrap();
    let rsdp = bytes_at(&mem, start.0, 36);
    // 5.2.5.3: both checksums, and the signature on a 16-byte boundary.
    assert_eq!(rsdp[..8], *b"RSD PTR ");
    assert_eq!((start.0 % 16, sum(&rsdp[..20]), sum(&rsdp)), (0, 0, 0));
    let xsdt = table_at(&mem, u64_at(&rsdp, 24));
    let mut tables: Vec<_> =
        xsdt.1[36..].chunks_exact(8).map(|entry| table_at(&mem, u64_at(entry, 0))).collect();
    let fadt = tables.iter().find(|(name, _)| name == "FACP").expect("a FADT").1.clone();
    tables.push(table_at(&mem, u64_at(&fadt, 140)));
    tables.push(xsdt);
    Found { rsdp, tables }
}

#[test]
fn a_guest_finds_every_table_from_the_rsdp() {
    let found = found(1, &[]);
    assert_eq!(found.rsdp[9..15], *b"MOTE  ");
    assert_eq!(found.rsdp[15], 2);
    let mut names: Vec<_> = found.tables.iter().map(|(name, _)| &name[..]).collect();
    names.sort_unstable();
    assert_eq!(names, ["APIC", "DSDT", "FACP", "XSDT"]);
}

/// 5.2.9, table 5.9.
#[test]
fn the_fadt_is_hardware_reduced() {
    let found = found(1, &[]);
    let fadt = found.table("FACP");
    assert!(fadt[8] >= 5, "revision {}", fadt[8]);
    assert_eq!(fadt.len(), 276);
    let flags = u32_at(fadt, 112);
    assert_ne!(flags & 1 << 20, 0, "HW_REDUCED_ACPI");
    assert_ne!(flags & 1 << 10, 0, "RESET_REG_SUP");
    assert_eq!(fadt[109..111], [0b10_0100, 0]); // IAPC_BOOT_ARCH: no VGA, no CMOS clock
    let register = |at: usize| (fadt[at], fadt[at + 1], fadt[at + 3], u64_at(fadt, at + 4));
    assert_eq!(register(116), (1, 8, 1, 0x602)); // RESET_REG
    assert_eq!(fadt[128], 1); // RESET_VALUE
    assert_eq!(register(244), (1, 8, 1, 0x600)); // SLEEP_CONTROL_REG
    assert_eq!(register(256), (1, 8, 1, 0x601)); // SLEEP_STATUS_REG
}

/// 5.2.12: processors, then the IOAPIC.
#[test]
fn the_madt_has_every_processor() {
    for cpus in [1, 2, 32] {
        let found = found(cpus, &[]);
        let madt = found.table("APIC");
        assert_eq!(u32_at(madt, 36), 0xfee0_0000);
        let (lapics, ioapic) = madt[44..].split_at(usize::from(cpus) * 8);
        for (id, lapic) in lapics.chunks_exact(8).enumerate() {
            assert_eq!(lapic, [0, 8, id as u8, id as u8, 1, 0, 0, 0]);
        }
        assert_eq!(ioapic, [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    }
}

#[test]
fn machines_that_cannot_be_described_are_refused_by_name() {
    let (mem, _) = machine(16 * MIB);
    let refusal = |cpus, nodes: &[DeviceNode]| write(&mem, cpus, nodes).unwrap_err().to_string();
    assert_eq!(refusal(0, &[]), "a machine cannot have 0 vCPUs: 1 to 32 are possible");
    assert_eq!(refusal(33, &[]), "a machine cannot have 33 vCPUs: 1 to 32 are possible");
    assert_eq!(
        refusal(1, &[DeviceNode::new("COM1", "PNP0501")]),
        "two devices have the ACPI name COM1: give each its own"
    );
    assert!(refusal(1, &[DeviceNode::new("GED0", "X")]).starts_with("two devices have the ACPI name GED0"));
    let uid = Some(u32::MAX);
    let many: Vec<_> =
        (0..4096).map(|n| DeviceNode { uid, ..DeviceNode::new(format!("V{n:03X}"), "LNRO0005") }).collect();
    let room = layout::ACPI_END - layout::ACPI_START;
    assert!(refusal(1, &many).contains(&format!("{room} are there, describe fewer devices")));
}

/// `contains` for bytes.
fn has(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn the_dsdt_has_the_fixed_devices_and_the_soft_off_state() {
    let found = found(1, &[]);
    let dsdt = found.table("DSDT");
    for name in ["COM1", "PEVT", "PWRB", "GED0", "QEMU0001", "ACPI0013"] {
        assert!(has(dsdt, name.as_bytes()), "{name}");
    }
    // IO (Decode16, 0x3f8, 0x3f8, 1, 8) and Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {4}.
    assert!(has(dsdt, &[0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x89, 6, 0, 3, 1, 4, 0, 0, 0]));
    assert!(has(dsdt, &[0x47, 1, 5, 5, 5, 5, 1, 1]));
    // If (Arg0 == 9) { Notify (PWRB, 0x80) }
    assert!(has(dsdt, b"\xa0\x0c\x93\x68\x0a\x09\x86PWRB\x0a\x80"));
    // Name (\_S5, Package (1) {5})
    assert!(has(dsdt, b"\x08\\_S5_\x12\x04\x01\x0a\x05"));
}

#[test]
fn devices_that_come_later_are_data() {
    let disk = DeviceNode {
        uid: Some(3),
        resources: vec![
            Resource::Mmio { base: layout::VIRTIO_MMIO_START, size: layout::VIRTIO_MMIO_SIZE },
            Resource::Irq { gsi: 16, trigger: Trigger::Level, shared: false },
        ],
        ..DeviceNode::new("V000", "LNRO0005")
    };
    let generation = DeviceNode {
        cid: Some("VM_Gen_Counter".to_owned()),
        objects: vec![("ADDR".to_owned(), Object::Package(vec![0x1234_5000, 0]))],
        notified_by: Some(layout::GED_GSI),
        ..DeviceNode::new("VGEN", "VMGENCTR")
    };
    let found = found(1, &[disk, generation]);
    let dsdt = found.table("DSDT");
    // Memory32Fixed (ReadWrite, 0xd0000000, 0x1000), Interrupt (.., Level, ..) {16}.
    assert!(has(dsdt, &[0x86, 9, 0, 1, 0, 0, 0, 0xd0, 0, 0x10, 0, 0, 0x89, 6, 0, 1, 1, 16, 0, 0, 0]));
    assert!(has(dsdt, b"\x08_UID\x0a\x03"));
    assert!(has(dsdt, b"\x08_CID\x0dVM_Gen_Counter\0"));
    assert!(has(dsdt, b"\x08ADDR\x12\x08\x02\x0c\x00\x50\x34\x12\x00"));
    // One line, two devices to notify.
    assert!(has(dsdt, b"\x93\x68\x0a\x09\x86PWRB\x0a\x80\x86VGEN\x0a\x80"));
}

prop_compose! {
    fn node()(
        name in "[A-Z][A-Z0-9_]{3}",
        hid in "[A-Z]{3}[0-9A-F]{4}|[A-Z]{4}[0-9]{4}",
        uid in any::<Option<u32>>(),
        io in prop::collection::vec((0u16..0xff00, 1u8..), 0..3),
        mmio in prop::collection::vec((0u64..1 << 38, 1u64..1 << 34), 0..3),
        notified_by in prop::option::of(0u32..24),
        values in prop::collection::vec(any::<u64>(), 0..20),
    ) -> DeviceNode {
        let io = io.into_iter().map(|(base, size)| Resource::Io { base, size });
        let mmio = mmio.into_iter().map(|(base, size)| Resource::Mmio { base, size });
        let resources = io.chain(mmio).collect();
        let objects = vec![("OBJ0".to_owned(), Object::Package(values))];
        DeviceNode { uid, resources, objects, notified_by, ..DeviceNode::new(name, hid) }
    }
}

proptest! {
    /// Whatever the devices are, a guest finds tables whose lengths and sums are right.
    #[test]
    fn every_machine_has_valid_tables(cpus in 1u8..=32, mut nodes in prop::collection::vec(node(), 0..20)) {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        nodes.retain(|node| !["COM1", "PEVT", "PWRB", "GED0"].contains(&&node.name[..]));
        let found = found(cpus, &nodes);
        for node in &nodes {
            prop_assert!(has(found.table("DSDT"), node.name.as_bytes()));
        }
    }
}

/// SDM vol. 3, 10.1.4: after a reset, the first instruction is 16 bytes below the top of the firmware; real mode sees it
/// 16 bytes below 1 MiB. What a jump there does is decoded here by hand (SDM vol. 2: B8+rw, B0+rb, EE, F4).
#[test]
fn a_jump_to_the_firmware_resets_the_machine() {
    let (mem, _) = machine(16 * MIB);
    write(&mem, 1, &[]).unwrap();
    let mut code = [0; 7];
    mem.read_slice(&mut code, GuestAddress((1 << 20) - 16)).unwrap();
    let [mov_dx, low, high, mov_al, value, out_dx_al, hlt] = code;
    assert_eq!((mov_dx, mov_al, out_dx_al, hlt), (0xba, 0xb0, 0xee, 0xf4));
    assert_eq!(u16::from_le_bytes([low, high]), layout::ACPI_RESET_PORT);
    assert_eq!(value, layout::ACPI_RESET_VALUE);
}
