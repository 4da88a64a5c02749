//! `mode=exits`: what one exit to KVM or to the VMM costs, in TSC cycles, seen from ring 3.

use super::samples::{self, quantile};
use crate::machine::Machine;
use crate::memory::{self, Ram};
use crate::options::Options;
use crate::serial::Line;
use crate::{cpu, report};

const DEFAULT_COUNT: u64 = 1000;
/// The port that PCs leave free for delays, like 0x80, but that no VMM has a device at.
const PORT: u16 = 0xed;
/// Above the local APIC's area and below the firmware's: no VMM has RAM or a device here.
const UNCLAIMED: u64 = 0xfef0_0000;

const CPUID_VENDOR: u32 = 0;
const CPUID_HYPERVISOR: u32 = 0x4000_0000;
/// KVM_HC_FEATURES does not exist; any number is refused from ring 3 before it is looked at.
const HYPERCALL_NUMBER: u64 = 0;

/// Measures each kind `n` times and prints a line for each.
pub(super) fn run(machine: Machine, options: &Options<'_>) {
    let Some(ram) = Ram::take() else {
        report::fail(machine, report::STATUS_FAILED, b"no-ram", b"scratch");
    };
    let (scratch, _) = ram.scratch().split_at_mut(samples::LIMIT);
    let count = usize::try_from(options.n.unwrap_or(DEFAULT_COUNT)).unwrap_or(usize::MAX);
    let Some(samples) = scratch.get_mut(..count).filter(|samples| !samples.is_empty()) else {
        report::fail(machine, report::STATUS_USAGE, b"invalid-option", b"n-is-1-to-65536");
    };

    machine.ready();
    super::header();
    // What the two time stamps cost by themselves.
    measure(b"none", samples, || {});
    measure(b"pio_write", samples, || cpu::out(PORT, 0));
    measure(b"mmio_read", samples, || {
        memory::read_register(UNCLAIMED);
    });
    match options.ioeventfd {
        Some(address) if memory::write_register(address, 0) => measure(b"ioeventfd", samples, || {
            memory::write_register(address, 0);
        }),
        Some(_) => skip(b"ioeventfd", b"address"),
        None => skip(b"ioeventfd", b"not-given"),
    }
    measure(b"cpuid", samples, || {
        cpu::cpuid(CPUID_VENDOR, 0);
    });
    // Elsewhere the instruction may not exist, and would end this program.
    if cpu::cpuid(CPUID_HYPERVISOR, 0).ebx == u32::from_le_bytes(*b"KVMK") {
        let amd = is_amd();
        measure(b"hypercall", samples, || {
            cpu::hypercall(amd, HYPERCALL_NUMBER);
        });
    } else {
        skip(b"hypercall", b"not-kvm");
    }
}

fn is_amd() -> bool {
    let vendor = cpu::cpuid(CPUID_VENDOR, 0).ebx;
    vendor == u32::from_le_bytes(*b"Auth") || vendor == u32::from_le_bytes(*b"Hygo")
}

fn measure(kind: &[u8], samples: &mut [u64], exit: impl Fn()) {
    for sample in samples.iter_mut() {
        let start = cpu::timestamp();
        exit();
        *sample = cpu::timestamp().wrapping_sub(start);
    }
    samples::sort(samples);
    let sum: u64 = samples.iter().sum();
    let count = samples.len() as u64;
    Line::new()
        .text(b"exit=")
        .text(kind)
        .text(b" n=")
        .decimal(count)
        .text(b" min=")
        .decimal(quantile(samples, 0))
        .text(b" p50=")
        .decimal(quantile(samples, 50))
        .text(b" mean=")
        .decimal(sum.checked_div(count).unwrap_or_default())
        .text(b" unit=tsc_cycles")
        .send();
}

fn skip(kind: &[u8], reason: &[u8]) {
    Line::new().text(b"skipped=").text(kind).text(b" reason=").text(reason).send();
}
