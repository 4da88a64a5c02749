//! The machine's description for the guest: RSDP, XSDT, FADT, MADT and DSDT (ACPI 6.5, chapter 5).
//!
//! The machine is hardware-reduced (4.1): no fixed-feature registers, no SCI, no FACS. Power-off and reset are three
//! one-byte registers, events arrive through a generic event device, everything else is a [`DeviceNode`].

mod dsdt;
mod node;

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, sdt::Sdt};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};

use crate::layout;
pub use node::{DeviceNode, Object, Resource, Trigger};

/// The most vCPUs that a machine's tables can describe.
pub const CPUS_MAX: u8 = 32;

/// Guests that want to know recognise a mote machine by this in the RSDP.
pub const OEM_ID: [u8; 6] = *b"MOTE  ";
const OEM_TABLE_ID: [u8; 8] = *b"MOTEVM  ";
const OEM_REVISION: u32 = 1;

/// With revision 2, integers in the DSDT are 64 bits wide (19.2.5).
const DSDT_REVISION: u8 = 2;
const SDT_HEADER_SIZE: u32 = 36;

/// FADT IAPC_BOOT_ARCH (table 5.11). 8042 and LEGACY_DEVICES stay 0: nothing to probe for.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;

/// Linux does not use the reset register of a hardware-reduced machine: it takes such a machine for an EFI one, finds no
/// EFI, and jumps to the firmware's reset vector in real mode. This is what it finds there:
/// `mov dx, port; mov al, value; out dx, al; hlt`.
const RESET_CODE: [u8; 7] = {
    let [low, high] = layout::ACPI_RESET_PORT.to_le_bytes();
    [0xba, low, high, 0xb0, layout::ACPI_RESET_VALUE, 0xee, 0xf4]
};

/// Tables start on these boundaries; the RSDP must (5.2.5.1).
const ALIGNMENT: usize = 16;

/// Why a machine cannot be described.
#[derive(Debug, Error)]
pub enum AcpiError {
    /// 0, or more than [`CPUS_MAX`].
    #[error("a machine cannot have {0} vCPUs: 1 to {CPUS_MAX} are possible")]
    Cpus(u8),
    /// Not an ACPI name.
    #[error("{0:?} is not an ACPI name: it takes four characters of A-Z, 0-9 and _, the first a letter")]
    Name(String),
    /// Two devices with one name.
    #[error("two devices have the ACPI name {0}: give each its own")]
    DuplicateName(String),
    /// A text that AML cannot hold.
    #[error("the ACPI device {name} has the text {text:?}: 1 to 63 printable ASCII characters are possible")]
    Text {
        /// The device.
        name: String,
        /// The text.
        text: String,
    },
    /// A resource that does not exist.
    #[error("the ACPI device {name} has the impossible resource {resource:?}")]
    Resource {
        /// The device.
        name: String,
        /// The resource.
        resource: Resource,
    },
    /// Longer than AML's element count.
    #[error("the ACPI device {name} has a package of {count} elements: 255 are the most")]
    Package {
        /// The device.
        name: String,
        /// How many elements.
        count: usize,
    },
    /// More devices than there is room for.
    #[error("the ACPI tables take {size} bytes: {room} are there, describe fewer devices")]
    TooLarge {
        /// Their size in bytes.
        size: usize,
        /// Room in bytes.
        room: usize,
    },
    /// Guest memory has no RAM there.
    #[error("the ACPI tables could not be written to guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// Writes the tables of a machine with `cpus` vCPUs (APIC ids from 0), the devices that every machine has, and `nodes`.
/// Returns the address of the RSDP.
///
/// # Errors
/// [`AcpiError`] names the device, or the number, that cannot be described.
pub fn write<M: GuestMemory>(mem: &M, cpus: u8, nodes: &[DeviceNode]) -> Result<GuestAddress, AcpiError> {
    let start = layout::ACPI_START;
    let tables = build(start, cpus, nodes)?;
    let room = (layout::ACPI_END - start) as usize;
    if tables.len() > room {
        return Err(AcpiError::TooLarge { size: tables.len(), room });
    }
    mem.write_slice(&tables, GuestAddress(start))?;
    mem.write_slice(&RESET_CODE, GuestAddress(layout::RESET_VECTOR))?;
    Ok(GuestAddress(start))
}

/// All tables as they lie in memory from `start` on.
fn build(start: u64, cpus: u8, nodes: &[DeviceNode]) -> Result<Vec<u8>, AcpiError> {
    if !(1..=CPUS_MAX).contains(&cpus) {
        return Err(AcpiError::Cpus(cpus));
    }
    let mut tables = Tables { start, bytes: Vec::with_capacity(layout::PAGE_SIZE as usize) };
    // The RSDP comes first, and is filled in when it is known where the XSDT is.
    tables.bytes.resize(Rsdp::len(), 0);
    let dsdt = tables.add(&dsdt(nodes)?);
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(tables.add(&fadt(dsdt)));
    xsdt.add_entry(tables.add(&madt(cpus)));
    let rsdp = Rsdp::new(OEM_ID, tables.add(&xsdt));

    let mut bytes = Vec::with_capacity(Rsdp::len());
    rsdp.to_aml_bytes(&mut bytes);
    tables.bytes[..bytes.len()].copy_from_slice(&bytes);
    Ok(tables.bytes)
}

/// Tables one behind the other.
struct Tables {
    start: u64,
    bytes: Vec<u8>,
}

impl Tables {
    /// Appends a table and returns its address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let address = self.start + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn dsdt(nodes: &[DeviceNode]) -> Result<Sdt, AcpiError> {
    let mut table = Sdt::new(*b"DSDT", SDT_HEADER_SIZE, DSDT_REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&dsdt::aml(nodes)?);
    Ok(table)
}

fn fadt(dsdt: u64) -> FADT {
    let register =
        |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port));
    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::Wbinvd)
        // Set: there are no fixed-feature buttons, and no RTC wake status; the power button is a device.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc);
    table.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    table.reset_reg = register(layout::ACPI_RESET_PORT);
    table.reset_value = layout::ACPI_RESET_VALUE;
    table.sleep_control_reg = register(layout::ACPI_SLEEP_CONTROL_PORT);
    table.sleep_status_reg = register(layout::ACPI_SLEEP_STATUS_PORT);
    table.finalize()
}

/// No interrupt source overrides: without a PIT, GSIs are where ISA has them, and the DSDT says edge or level.
fn madt(cpus: u8) -> MADT {
    let lapic = LocalInterruptController::Address(layout::LAPIC_START as u32);
    let mut table = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, lapic);
    for id in 0..cpus {
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, layout::IOAPIC_START as u32, 0));
    table
}

#[cfg(test)]
mod tests;
