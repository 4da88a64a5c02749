use super::*;

fn aml(part: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    part.to_aml_bytes(&mut bytes);
    bytes
}

fn refusal(node: &DeviceNode) -> String {
    node.check().unwrap_err().to_string()
}

#[test]
fn names_are_four_characters() {
    for name in ["", "V00", "V0000", "0ABC", "_ABC", "v000", "V-00", "V00ü"] {
        assert!(matches!(DeviceNode::new(name, "X").check(), Err(AcpiError::Name(n)) if n == name), "{name}");
    }
    for name in ["V000", "VGEN", "A___"] {
        assert!(DeviceNode::new(name, "X").check().is_ok(), "{name}");
    }
}

#[test]
fn texts_are_printable() {
    for text in ["", "a\0b", "größe", &"x".repeat(64)] {
        assert!(matches!(DeviceNode::new("V000", text).check(), Err(AcpiError::Text { .. })), "{text}");
        let node = DeviceNode { cid: Some(text.to_owned()), ..DeviceNode::new("V000", "X") };
        assert!(matches!(node.check(), Err(AcpiError::Text { .. })), "{text}");
        let objects = vec![("OBJ0".to_owned(), Object::Text(text.to_owned()))];
        let node = DeviceNode { objects, ..DeviceNode::new("V000", "X") };
        assert!(matches!(node.check(), Err(AcpiError::Text { .. })), "{text}");
    }
}

#[test]
fn resources_exist() {
    let impossible = [
        Resource::Io { base: 0xffff, size: 2 },
        Resource::Io { base: 0x100, size: 0 },
        Resource::Mmio { base: 0, size: 0 },
        Resource::Mmio { base: u64::MAX, size: 2 },
        Resource::Mmio { base: layout::PHYSICAL_LIMIT - 1, size: 2 },
        Resource::Irq { gsi: 24, trigger: Trigger::Edge, shared: false },
    ];
    for resource in impossible {
        let node = DeviceNode { resources: vec![resource], ..DeviceNode::new("V000", "X") };
        assert!(matches!(node.check(), Err(AcpiError::Resource { resource: r, .. }) if r == resource));
    }
    let node = DeviceNode { notified_by: Some(24), ..DeviceNode::new("V000", "X") };
    assert!(refusal(&node).starts_with("the ACPI device V000 has the impossible resource Irq { gsi: 24"));
    let possible = [
        Resource::Io { base: 0xffff, size: 1 },
        Resource::Irq { gsi: 23, trigger: Trigger::Level, shared: true },
    ];
    let node = DeviceNode { resources: possible.to_vec(), ..DeviceNode::new("V000", "X") };
    assert!(node.check().is_ok());
}

#[test]
fn packages_and_object_names_are_checked() {
    let with = |name: &str, object| {
        let objects = vec![(name.to_owned(), object)];
        DeviceNode { objects, ..DeviceNode::new("V000", "X") }
    };
    assert!(with("ADDR", Object::Package(vec![0; 255])).check().is_ok());
    let refused = refusal(&with("ADDR", Object::Package(vec![0; 256])));
    assert_eq!(refused, "the ACPI device V000 has a package of 256 elements: 255 are the most");
    assert!(matches!(with("ADR", Object::Integer(1)).check(), Err(AcpiError::Name(_))));
}

/// 6.1.5: "a 32-bit compressed EISA type ID" for `PNP0501`, text for the four-letter form.
#[test]
fn hardware_ids_take_their_form() {
    assert_eq!(aml(&HardwareId("PNP0501")), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
    assert_eq!(aml(&HardwareId("QEMU0001")), b"\x0dQEMU0001\0");
    assert_eq!(aml(&HardwareId("FCVMGID")), b"\x0dFCVMGID\0");
    assert_eq!(aml(&HardwareId("PNP05G1")), b"\x0dPNP05G1\0");
}

/// 6.4.3.4 and 6.4.3.5: 32-bit descriptors where the range allows, 64-bit ones elsewhere.
#[test]
fn memory_descriptors_fit_the_range() {
    let kind = |base, size| aml(&Resource::Mmio { base, size })[0];
    assert_eq!(kind(0xd000_0000, 0x1000), 0x86);
    assert_eq!(kind(0xffff_f000, 0x1000), 0x86);
    assert_eq!(kind(0xffff_f000, 0x1001), 0x8a);
    assert_eq!(kind(1 << 32, 0x1000), 0x8a);
    assert_eq!(kind(0, 1 << 32), 0x8a);
    let wide = aml(&Resource::Mmio { base: 1 << 32, size: 0x1000 });
    assert_eq!(wide[14..22], (1u64 << 32).to_le_bytes());
    assert_eq!(wide[22..30], (0x1_0000_0fffu64).to_le_bytes());
    assert_eq!(wide[38..46], 0x1000u64.to_le_bytes());
}
