//! Two things of ACPI: whether the VMM is mote, and the register that powers the machine off. (ACPI 6.5, 5.2.5 RSDP,
//! 5.2.6 table header, 5.2.8 XSDT, 5.2.9 FADT, 4.8.3.7 sleep control register.)

use crate::{memory, ring0};

const RSDP_SIGNATURE: u64 = u64::from_le_bytes(*b"RSD PTR ");
const RSDP_OEM_ID: u64 = 9;
const RSDP_REVISION: u64 = 15;
const RSDP_XSDT: u64 = 24;
const RSDP_SIZE: u64 = 36;
/// Where firmware puts the RSDP if no boot protocol says: on a 16-byte boundary of the read-only BIOS area.
const RSDP_AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;

const TABLE_LENGTH: u64 = 4;
const TABLE_HEADER_SIZE: u64 = 36;
/// A table is no longer than this here: the limit of every loop over one.
const TABLE_LIMIT: u64 = 4096;

const FADT_FLAGS: u64 = 112;
const FADT_HARDWARE_REDUCED: u32 = 1 << 20;
const FADT_SLEEP_CONTROL: u64 = 244;
const FADT_SLEEP_CONTROL_END: u64 = 256;

const ADDRESS_SPACE_MEMORY: u8 = 0;
const ADDRESS_SPACE_IO: u8 = 1;

/// SLP_EN with the sleep type 5, which VMMs of hardware-reduced machines give for S5. The type stands in the DSDT, in a
/// language that this program does not speak; where it is another one, the next way to power off does it.
const SLEEP_S5: u8 = 1 << 5 | 5 << 2;

/// Whether the RSDP at `rsdp` carries mote's name.
pub(crate) fn is_mote(rsdp: u64) -> bool {
    rsdp != 0
        && memory::read_u64(rsdp) == RSDP_SIGNATURE
        && memory::read_u32(rsdp + RSDP_OEM_ID) == u32::from_le_bytes(*b"MOTE")
        && memory::read_u8(rsdp + RSDP_OEM_ID + 4) == b' '
        && memory::read_u8(rsdp + RSDP_OEM_ID + 5) == b' '
}

/// The register that powers a hardware-reduced machine off.
#[derive(Clone, Copy)]
pub(crate) enum SleepControl {
    Port(u16),
    Memory(u64),
}

impl SleepControl {
    /// Finds it through the tables, each checked before it is believed. `rsdp` is 0 where the VMM has not given it.
    pub(crate) fn find(rsdp: u64) -> Option<SleepControl> {
        let rsdp = if rsdp == 0 { search_rsdp()? } else { rsdp };
        if memory::read_u64(rsdp) != RSDP_SIGNATURE
            || memory::read_u8(rsdp + RSDP_REVISION) < 2
            || !sums_to_zero(rsdp, RSDP_SIZE)
        {
            return None;
        }
        let xsdt = Table::at(memory::read_u64(rsdp + RSDP_XSDT), *b"XSDT")?;
        let count = (xsdt.length - TABLE_HEADER_SIZE) / 8;
        let fadt = (0..count)
            .map(|index| memory::read_u64(xsdt.address + TABLE_HEADER_SIZE + index * 8))
            .find_map(|address| Table::at(address, *b"FACP"))?;
        fadt.sleep_control()
    }

    /// Asks for power-off.
    pub(crate) fn power_off(self) {
        match self {
            SleepControl::Port(port) => ring0::write(port, &[SLEEP_S5]),
            SleepControl::Memory(address) => {
                memory::write_byte(address, SLEEP_S5);
            }
        }
    }
}

fn search_rsdp() -> Option<u64> {
    RSDP_AREA.step_by(16).find(|&address| memory::read_u64(address) == RSDP_SIGNATURE)
}

fn sums_to_zero(address: u64, length: u64) -> bool {
    (address..address + length).fold(0u8, |sum, at| sum.wrapping_add(memory::read_u8(at))) == 0
}

/// A table whose signature, length and checksum are right.
struct Table {
    address: u64,
    length: u64,
}

impl Table {
    fn at(address: u64, signature: [u8; 4]) -> Option<Table> {
        if address == 0 || memory::read_u32(address) != u32::from_le_bytes(signature) {
            return None;
        }
        let length = u64::from(memory::read_u32(address + TABLE_LENGTH));
        let fits =
            (TABLE_HEADER_SIZE..=TABLE_LIMIT).contains(&length) && address.checked_add(length).is_some();
        (fits && sums_to_zero(address, length)).then_some(Table { address, length })
    }

    /// Of a FADT: a generic address structure (5.2.3.2) whose address is 0 where there is no such register.
    fn sleep_control(&self) -> Option<SleepControl> {
        if self.length < FADT_SLEEP_CONTROL_END
            || memory::read_u32(self.address + FADT_FLAGS) & FADT_HARDWARE_REDUCED == 0
        {
            return None;
        }
        let space = memory::read_u8(self.address + FADT_SLEEP_CONTROL);
        let address = memory::read_u64(self.address + FADT_SLEEP_CONTROL + 4);
        match (space, address) {
            (_, 0) => None,
            (ADDRESS_SPACE_IO, port) => u16::try_from(port).ok().map(SleepControl::Port),
            (ADDRESS_SPACE_MEMORY, address) => Some(SleepControl::Memory(address)),
            _ => None,
        }
    }
}
