//! `mode=cpus` and `mode=mem`: what the VMM shows of the machine.

use core::arch::x86_64::CpuidResult;

use crate::boot_info::BootInfo;
use crate::cpu;
use crate::machine::Machine;
use crate::serial::Line;

/// The leaves that describe processors, topology and clocks, with their subleaves.
const STANDARD: [(u32, u32); 7] = [(0x1, 0), (0x7, 0), (0xb, 0), (0xb, 1), (0x15, 0), (0x16, 0), (0x1f, 0)];
/// Hypervisor: the signature, KVM's features, and the clock frequencies that spare a guest their calibration.
const HYPERVISOR_BASE: u32 = 0x4000_0000;
const HYPERVISOR: [(u32, u32); 2] = [(0x4000_0001, 0), (0x4000_0010, 0)];
/// In ECX of leaf 1.
const HYPERVISOR_BIT: u32 = 31;

/// Prints CPUID leaves as they are, and what they mean where that is short.
pub(super) fn cpus(machine: Machine) {
    machine.ready();
    super::header();
    let base = cpu::cpuid(0, 0);
    Line::new().text(b"vendor=").text(Name::new([base.ebx, base.edx, base.ecx]).text()).send();
    leaf(0, 0, base);
    for (number, subleaf) in STANDARD.into_iter().filter(|&(number, _)| number <= base.eax) {
        leaf(number, subleaf, cpu::cpuid(number, subleaf));
    }
    let features = cpu::cpuid(1, 0);
    Line::new()
        .text(b"apic_id=")
        .decimal(u64::from(features.ebx >> 24))
        .text(b" logical_cpus=")
        .decimal(u64::from(features.ebx >> 16 & 0xff))
        .send();
    // Without the bit a guest does not look for the leaves, but a VMM may have left it out by mistake.
    let base = cpu::cpuid(HYPERVISOR_BASE, 0);
    Line::new()
        .text(b"hypervisor_bit=")
        .decimal(u64::from(features.ecx >> HYPERVISOR_BIT & 1))
        .text(b" hypervisor=")
        .text(Name::new([base.ebx, base.ecx, base.edx]).text())
        .send();
    leaf(HYPERVISOR_BASE, 0, base);
    for (number, subleaf) in HYPERVISOR.into_iter().filter(|&(number, _)| number <= base.eax) {
        leaf(number, subleaf, cpu::cpuid(number, subleaf));
    }
}

/// Prints the memory map.
pub(super) fn memory(machine: Machine, boot: BootInfo) {
    machine.ready();
    super::header();
    let map = boot.memory_map();
    Line::new()
        .text(b"protocol=")
        .text(boot.protocol_name())
        .text(b" rsdp=")
        .hex(machine.rsdp)
        .text(b" ranges=")
        .decimal(map.ranges().len() as u64)
        .send();
    for range in map.ranges() {
        Line::new()
            .text(b"mem start=")
            .hex(range.start)
            .text(b" size=")
            .hex(range.size)
            .text(b" type=")
            .decimal(range.kind.into())
            .send();
    }
}

fn leaf(number: u32, subleaf: u32, registers: CpuidResult) {
    Line::new()
        .text(b"cpuid leaf=")
        .hex(number.into())
        .text(b" subleaf=")
        .decimal(subleaf.into())
        .text(b" eax=")
        .hex(registers.eax.into())
        .text(b" ebx=")
        .hex(registers.ebx.into())
        .text(b" ecx=")
        .hex(registers.ecx.into())
        .text(b" edx=")
        .hex(registers.edx.into())
        .send();
}

/// A name of up to twelve characters in three registers, padded with NUL.
struct Name([u8; 12]);

impl Name {
    fn new(registers: [u32; 3]) -> Name {
        let mut name = [0; 12];
        for (place, byte) in name.iter_mut().zip(registers.into_iter().flat_map(u32::to_le_bytes)) {
            *place = byte;
        }
        Name(name)
    }

    /// What is printable, up to the first byte that is not.
    fn text(&self) -> &[u8] {
        self.0.split(|byte| !byte.is_ascii_graphic()).next().unwrap_or_default()
    }
}
