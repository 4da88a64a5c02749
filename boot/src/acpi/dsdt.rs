//! The DSDT's contents: the devices that every machine has, those that the caller adds, and the event device.

use std::collections::{BTreeMap, BTreeSet};

use acpi_tables::Aml;
use acpi_tables::aml::{
    Arg, Device, Equal, If, Interrupt, Method, Name, Notify, Package, Path, ResourceTemplate, Scope,
};

use super::{AcpiError, DeviceNode, Resource, Trigger};
use crate::layout;

/// The event device's name, which no other device may have.
const EVENT_DEVICE: &str = "GED0";
/// Its hardware id (5.6.9).
const EVENT_DEVICE_HID: &str = "ACPI0013";

/// "Status changed": for a power button, that it was pressed (table 5.187); for other devices, theirs to define.
const NOTIFY_VALUE: u8 = 0x80;

/// Definition blocks of the DSDT, without its header.
pub(super) fn aml(extra: &[DeviceNode]) -> Result<Vec<u8>, AcpiError> {
    let fixed = fixed_nodes();
    let nodes: Vec<&DeviceNode> = fixed.iter().chain(extra).collect();
    let mut names = BTreeSet::from([EVENT_DEVICE]);
    for node in &nodes {
        node.check()?;
        if !names.insert(&node.name) {
            return Err(AcpiError::DuplicateName(node.name.clone()));
        }
    }

    let mut events: BTreeMap<u32, Vec<Path>> = BTreeMap::new();
    for node in &nodes {
        if let Some(gsi) = node.notified_by {
            events.entry(gsi).or_default().push(Path::new(&node.name));
        }
    }
    let events = EventDevice(events);
    let mut devices: Vec<&dyn Aml> = nodes.iter().map(|node| *node as &dyn Aml).collect();
    devices.push(&events);

    let mut bytes = Vec::with_capacity(1024);
    Scope::new(Path::new("\\_SB_"), devices).to_aml_bytes(&mut bytes);
    // Hardware-reduced machines read the first element only, and have no second register for another.
    let soft_off = Package::new(vec![&layout::ACPI_SLEEP_TYPE_S5]);
    Name::new(Path::new("\\_S5_"), &soft_off).to_aml_bytes(&mut bytes);
    Ok(bytes)
}

/// The serial port, the panic port and the power button. The clock, the keyboard controller and the debug port are not
/// described: no driver needs to find them.
fn fixed_nodes() -> [DeviceNode; 3] {
    let serial = DeviceNode {
        uid: Some(0),
        resources: vec![
            Resource::Io { base: layout::COM1_PORT, size: layout::COM1_PORT_COUNT as u8 },
            Resource::Irq { gsi: layout::COM1_GSI, trigger: Trigger::Edge, shared: false },
        ],
        ..DeviceNode::new("COM1", "PNP0501")
    };
    let panic = DeviceNode {
        resources: vec![Resource::Io { base: layout::PVPANIC_PORT, size: layout::PVPANIC_PORT_COUNT as u8 }],
        ..DeviceNode::new("PEVT", "QEMU0001")
    };
    let button = DeviceNode { notified_by: Some(layout::GED_GSI), ..DeviceNode::new("PWRB", "PNP0C0C") };
    [serial, panic, button]
}

/// The generic event device: its `_EVT` method is called with the GSI, and notifies who asked for that.
struct EventDevice(BTreeMap<u32, Vec<Path>>);

impl Aml for EventDevice {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let lines: Vec<Interrupt> =
            self.0.keys().map(|gsi| Interrupt::new(true, true, false, false, *gsi)).collect();
        let lines = ResourceTemplate::new(lines.iter().map(|line| line as &dyn Aml).collect());

        // Every part refers to the one before, so each kind has its own list.
        let tests: Vec<Equal<'_>> = self.0.keys().map(|gsi| Equal::new(&Arg(0), gsi)).collect();
        let notices: Vec<Vec<Notify<'_>>> = self
            .0
            .values()
            .map(|paths| paths.iter().map(|path| Notify::new(path, &NOTIFY_VALUE)).collect())
            .collect();
        let branches: Vec<If<'_>> = tests
            .iter()
            .zip(&notices)
            .map(|(test, notices)| If::new(test, notices.iter().map(|notice| notice as &dyn Aml).collect()))
            .collect();
        let branches = branches.iter().map(|branch| branch as &dyn Aml).collect();

        let parts: [&dyn Aml; 4] = [
            &Name::new(Path::new("_HID"), &EVENT_DEVICE_HID),
            &Name::new(Path::new("_UID"), &0u8),
            &Name::new(Path::new("_CRS"), &lines),
            &Method::new(Path::new("_EVT"), 1, true, branches),
        ];
        Device::new(Path::new(EVENT_DEVICE), parts.to_vec()).to_aml_bytes(sink);
    }
}
