//! Devices as data: what a guest is told of one, whoever emulates it.

use acpi_tables::aml::{
    self, AddressSpaceCacheable, EISAName, IO, Interrupt, Memory32Fixed, Name, PackageBuilder, Path,
    ResourceTemplate,
};
use acpi_tables::{Aml, AmlSink};

use super::AcpiError;
use crate::layout;

/// The longest hardware id or string object.
const TEXT_MAX: usize = 63;
/// Elements of a package are counted by one byte (20.2.5.4).
const PACKAGE_MAX: usize = 255;
/// I/O ports have 16-bit addresses.
const PORTS: u32 = 1 << 16;

/// How an interrupt line is driven. Both are active-high, as KVM's IOAPIC wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// By pulses.
    Edge,
    /// By holding the line.
    Level,
}

/// One thing that a device occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// I/O ports.
    Io {
        /// The first port.
        base: u16,
        /// How many.
        size: u8,
    },
    /// Physical addresses that are no RAM, or RAM that the device shares.
    Mmio {
        /// The first address.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// An interrupt line.
    Irq {
        /// Its number, below the IOAPIC's 24.
        gsi: u32,
        /// How it is driven.
        trigger: Trigger,
        /// Whether other devices have the same line.
        shared: bool,
    },
}

impl Resource {
    fn is_possible(&self) -> bool {
        match *self {
            Self::Io { base, size } => size > 0 && u32::from(base) + u32::from(size) <= PORTS,
            Self::Mmio { base, size } => {
                size > 0 && base.checked_add(size).is_some_and(|end| end <= layout::PHYSICAL_LIMIT)
            }
            Self::Irq { gsi, .. } => gsi < layout::IOAPIC_PINS,
        }
    }
}

impl Aml for Resource {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        match *self {
            Self::Io { base, size } => IO::new(base, base, 1, size).to_aml_bytes(sink),
            Self::Mmio { base, size } => match (u32::try_from(base), u32::try_from(size)) {
                // The end may be 4 GiB itself: base and length are what the descriptor holds.
                (Ok(base), Ok(size)) if base.checked_add(size - 1).is_some() => {
                    Memory32Fixed::new(true, base, size).to_aml_bytes(sink);
                }
                _ => {
                    let last = base + (size - 1);
                    aml::AddressSpace::new_memory(
                        AddressSpaceCacheable::NotCacheable,
                        true,
                        base,
                        last,
                        None,
                    )
                    .to_aml_bytes(sink);
                }
            },
            Self::Irq { gsi, trigger, shared } => {
                Interrupt::new(true, trigger == Trigger::Edge, false, shared, gsi).to_aml_bytes(sink);
            }
        }
    }
}

/// The value of a named object in a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A number.
    Integer(u64),
    /// A text: 1 to 63 printable ASCII characters.
    Text(String),
    /// Numbers, at most 255.
    Package(Vec<u64>),
}

impl Aml for Object {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        match self {
            Self::Integer(value) => value.to_aml_bytes(sink),
            Self::Text(text) => text.to_aml_bytes(sink),
            Self::Package(values) => {
                let mut package = PackageBuilder::new();
                for value in values {
                    package.add_element(value);
                }
                package.to_aml_bytes(sink);
            }
        }
    }
}

/// One device below `\_SB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Its name there: four characters of A-Z, 0-9 and _, the first a letter.
    pub name: String,
    /// `_HID`, by which drivers are found. One like `PNP0501` is stored as an EISA id, others as text.
    pub hid: String,
    /// `_CID`, where drivers look for another id than `_HID`.
    pub cid: Option<String>,
    /// `_UID`, where there are several with one `_HID`.
    pub uid: Option<u32>,
    /// `_CRS`.
    pub resources: Vec<Resource>,
    /// Other named objects, such as VMGENID's `ADDR`.
    pub objects: Vec<(String, Object)>,
    /// The GSI with which the machine notifies the device (value 0x80), through the generic event device.
    pub notified_by: Option<u32>,
}

impl DeviceNode {
    /// A device without anything but its name and hardware id; set the other fields as needed.
    pub fn new(name: impl Into<String>, hid: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            hid: hid.into(),
            cid: None,
            uid: None,
            resources: Vec::new(),
            objects: Vec::new(),
            notified_by: None,
        }
    }

    /// Refuses what AML cannot say, so that writing it cannot fail.
    pub(super) fn check(&self) -> Result<(), AcpiError> {
        check_name(&self.name)?;
        for text in [&self.hid].into_iter().chain(&self.cid) {
            self.check_text(text)?;
        }
        let event = self.notified_by.map(|gsi| Resource::Irq { gsi, trigger: Trigger::Edge, shared: false });
        for resource in self.resources.iter().copied().chain(event) {
            if !resource.is_possible() {
                return Err(AcpiError::Resource { name: self.name.clone(), resource });
            }
        }
        for (name, object) in &self.objects {
            check_name(name)?;
            match object {
                Object::Text(text) => self.check_text(text)?,
                Object::Package(values) if values.len() > PACKAGE_MAX => {
                    return Err(AcpiError::Package { name: self.name.clone(), count: values.len() });
                }
                Object::Integer(_) | Object::Package(_) => {}
            }
        }
        Ok(())
    }

    fn check_text(&self, text: &str) -> Result<(), AcpiError> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if printable && (1..=TEXT_MAX).contains(&text.len()) {
            Ok(())
        } else {
            Err(AcpiError::Text { name: self.name.clone(), text: text.to_owned() })
        }
    }
}

fn check_name(name: &str) -> Result<(), AcpiError> {
    let possible = name.len() == 4
        && name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    if possible { Ok(()) } else { Err(AcpiError::Name(name.to_owned())) }
}

impl Aml for DeviceNode {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let mut children = vec![Name::new(Path::new("_HID"), &HardwareId(&self.hid))];
        if let Some(cid) = &self.cid {
            children.push(Name::new(Path::new("_CID"), &HardwareId(cid)));
        }
        if let Some(uid) = &self.uid {
            children.push(Name::new(Path::new("_UID"), uid));
        }
        if !self.resources.is_empty() {
            let resources = self.resources.iter().map(|resource| resource as &dyn Aml).collect();
            children.push(Name::new(Path::new("_CRS"), &ResourceTemplate::new(resources)));
        }
        for (name, object) in &self.objects {
            children.push(Name::new(Path::new(name), object));
        }
        let children = children.iter().map(|child| child as &dyn Aml).collect();
        aml::Device::new(Path::new(&self.name), children).to_aml_bytes(sink);
    }
}

/// `_HID` and `_CID` hold either form (6.1.5).
struct HardwareId<'a>(&'a str);

impl Aml for HardwareId<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let bytes = self.0.as_bytes();
        let is_eisa = bytes.len() == 7
            && bytes[..3].iter().all(u8::is_ascii_uppercase)
            && bytes[3..].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        if is_eisa {
            EISAName::new(self.0).to_aml_bytes(sink);
        } else {
            self.0.to_owned().to_aml_bytes(sink);
        }
    }
}

#[cfg(test)]
mod tests;
