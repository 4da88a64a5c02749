//! The machine's processors and interrupts for kernels that read no ACPI: Intel's MultiProcessor Specification 1.4.
//!
//! Only they need it, so it is written only when it is asked for. Without it such a kernel finds no IOAPIC, and no interrupt
//! line beyond the sixteen of a PC's two 8259s.

use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};

use crate::layout;

/// Version 1.4 (4.1).
const SPEC_REVISION: u8 = 4;
/// An integrated local APIC (4.3.1), and the first IOAPIC with 24 inputs.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x11;
const HEADER_SIZE: usize = 44;
/// The bus that all interrupts come from: edges, active high.
const ISA_BUS: u8 = 0;
/// Every local APIC.
const ALL: u8 = 0xff;

/// Entry types (4.3, table 4-3).
mod entry {
    pub(super) const PROCESSOR: u8 = 0;
    pub(super) const BUS: u8 = 1;
    pub(super) const IOAPIC: u8 = 2;
    pub(super) const IO_INTERRUPT: u8 = 3;
    pub(super) const LOCAL_INTERRUPT: u8 = 4;
}

/// Interrupt types (4.3.4, table 4-11).
mod interrupt {
    pub(super) const VECTORED: u8 = 0;
    pub(super) const NMI: u8 = 1;
    pub(super) const EXTERNAL: u8 = 3;
}

/// Writes the floating pointer and the configuration table of a machine with `cpus` processors, whose APIC ids count from 0.
///
/// # Errors
/// When memory ends below 1 MiB.
pub fn write<M: GuestMemory>(memory: &M, cpus: u8) -> Result<(), GuestMemoryError> {
    let table = layout::MP_TABLE + 16;
    // Below 4 GiB by the layout.
    let pointer = floating_pointer(table as u32);
    memory.write_slice(&pointer, GuestAddress(layout::MP_TABLE))?;
    memory.write_slice(&configuration(cpus), GuestAddress(table))
}

/// 4.1: what a kernel searches for.
fn floating_pointer(table: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(b"_MP_");
    bytes[4..8].copy_from_slice(&table.to_le_bytes());
    // Its length in units of 16 bytes.
    bytes[8] = 1;
    bytes[9] = SPEC_REVISION;
    bytes[10] = checksum(&bytes);
    bytes
}

/// 4.2 and 4.3.
fn configuration(cpus: u8) -> Vec<u8> {
    let entries = entries(cpus);
    let count = entries.len() as u16;
    let entries = entries.concat();
    let mut table = Vec::with_capacity(HEADER_SIZE + entries.len());
    table.extend(b"PCMP");
    // At most some 900 bytes.
    table.extend(((HEADER_SIZE + entries.len()) as u16).to_le_bytes());
    table.extend([SPEC_REVISION, 0]);
    table.extend(b"MOTE    MOTEVM      ");
    // No OEM table.
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend((layout::LAPIC_START as u32).to_le_bytes());
    // No extended table.
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = checksum(&table);
    table
}

fn entries(cpus: u8) -> Vec<Vec<u8>> {
    // The ids of processors and IOAPICs are of one kind.
    let ioapic = cpus;
    let processor = |id: u8| {
        let boots = if id == 0 { 3 } else { 1 };
        let mut bytes = vec![entry::PROCESSOR, id, LOCAL_APIC_VERSION, boots];
        // Family 6; a floating-point unit and an APIC.
        bytes.extend([0, 6, 0, 0, 1, 2, 0, 0]);
        bytes.extend([0; 8]);
        bytes
    };
    let mut bus = vec![entry::BUS, ISA_BUS];
    bus.extend(b"ISA   ");
    let mut controller = vec![entry::IOAPIC, ioapic, IOAPIC_VERSION, 1];
    controller.extend((layout::IOAPIC_START as u32).to_le_bytes());
    let line = |gsi: u8| vec![entry::IO_INTERRUPT, interrupt::VECTORED, 0, 0, ISA_BUS, gsi, ioapic, gsi];
    let local = |kind, apic, input| vec![entry::LOCAL_INTERRUPT, kind, 0, 0, ISA_BUS, 0, apic, input];

    let mut entries: Vec<Vec<u8>> = (0..cpus).map(processor).collect();
    entries.extend([bus, controller]);
    entries.extend((0..layout::IOAPIC_PINS as u8).map(line));
    entries.extend([local(interrupt::EXTERNAL, 0, 0), local(interrupt::NMI, ALL, 1)]);
    entries
}

/// What makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestMemoryMmap;

    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn a_kernel_finds_processors_lines_and_controller() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        for cpus in [1, 4, 32] {
            write(&memory, cpus).unwrap();
            let mut pointer = [0; 16];
            memory.read_slice(&mut pointer, GuestAddress(layout::MP_TABLE)).unwrap();
            assert_eq!((&pointer[..4], sum(&pointer)), (&b"_MP_"[..], 0));
            let table = u32::from_le_bytes(pointer[4..8].try_into().unwrap());
            let mut length = [0; 2];
            memory.read_slice(&mut length, GuestAddress(u64::from(table) + 4)).unwrap();
            let mut bytes = vec![0; usize::from(u16::from_le_bytes(length))];
            memory.read_slice(&mut bytes, GuestAddress(table.into())).unwrap();
            assert_eq!((&bytes[..4], sum(&bytes)), (&b"PCMP"[..], 0));

            // As a kernel walks it: processors are 20 bytes long, all others 8.
            let (mut kinds, mut at) = ([0; 5], HEADER_SIZE);
            while at < bytes.len() {
                kinds[usize::from(bytes[at])] += 1;
                at += if bytes[at] == entry::PROCESSOR { 20 } else { 8 };
            }
            assert_eq!(at, bytes.len());
            assert_eq!(kinds, [cpus.into(), 1, 1, 24, 2]);
            let count = u16::from_le_bytes(bytes[34..36].try_into().unwrap());
            assert_eq!(i32::from(count), kinds.iter().sum::<i32>());
        }
    }
}
