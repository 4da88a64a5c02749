//! `mode=exits`: what one exit to KVM or to the VMM costs, and what it costs to be woken, in TSC cycles, seen from ring 3.
//!
//! Woken is this program when its first instruction after the service that halts has been reached: the handler of the
//! interrupt and the way from ring 0 are in these figures.

use super::samples::{self, quantile};
use crate::apic::{LocalApic, Pin};
use crate::dma::Arena;
use crate::machine::Machine;
use crate::memory::{self, Ram};
use crate::options::Options;
use crate::serial::Line;
use crate::virtio::blk::{Direction, Disk};
use crate::virtio::failure::Failure;
use crate::{clock, cpu, report, ring0};

const DEFAULT_COUNT: u64 = 1000;
/// The port that PCs leave free for delays, like 0x80, but that no VMM has a device at.
const PORT: u16 = 0xed;
/// Above the local APIC's area and below the firmware's: no VMM has RAM or a device here.
const UNCLAIMED: u64 = 0xfef0_0000;

/// One block of the disk.
const BLOCK: u64 = 4096;
/// The timer, in ns where its clock is KVM's 1 GHz: how often it wakes a halted processor, and how long the disk's
/// interrupt may take before it counts as one that does not come.
const PERIOD: u32 = 5_000_000;
const WATCHDOG: u32 = 4_000_000_000;
/// Each wake-up by the timer takes a whole period: so many are enough.
const WAKE_UPS: usize = 100;

const CPUID_VENDOR: u32 = 0;
const CPUID_HYPERVISOR: u32 = 0x4000_0000;
/// KVM_HC_FEATURES does not exist; any number is refused from ring 3 before it is looked at.
const HYPERCALL_NUMBER: u64 = 0;

/// Measures each kind `n` times and prints a line for each.
pub(super) fn run(machine: Machine, options: &Options<'_>) {
    let Some(ram) = Ram::take() else {
        report::fail(machine, report::STATUS_FAILED, b"no-ram", b"scratch");
    };
    let (scratch, rest) = ram.scratch().split_at_mut(samples::LIMIT);
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
    let apic = LocalApic::enable();
    match Disk::open(options.windows(), &mut Arena::new(rest), 1, BLOCK) {
        Ok(disk) => requests(disk, apic, samples),
        Err(failure) => {
            for kind in [&b"ioeventfd"[..], b"request_polled", b"request_interrupt"] {
                skip(kind, failure.reason);
            }
        }
    }
    match apic.zip(clock::tsc_khz()) {
        Some((apic, khz)) => wake_ups(apic, khz, samples),
        None => skip(b"hlt_wake_up", b"no-timer"),
    }
}

/// What a queue costs: a notification while it is empty; and reading the same block over and over, seen by looking at the
/// ring, and by an interrupt while the processor halts.
fn requests(mut disk: Disk, apic: Option<LocalApic>, samples: &mut [u64]) {
    measure(b"ioeventfd", samples, || disk.notify());
    attempt(b"request_polled", samples, || {
        disk.request(0, Direction::Read, 0);
        let start = cpu::timestamp();
        disk.publish();
        disk.wait()?;
        Ok(cpu::timestamp().wrapping_sub(start))
    });
    // The timer only ends a wait that would have no end.
    match apic.zip(disk.gsi()).filter(|&(apic, gsi)| apic.route(Pin(gsi))) {
        Some((apic, _)) => {
            attempt(b"request_interrupt", samples, || {
                apic.start_timer(WATCHDOG);
                interrupted(&mut disk)
            });
            apic.stop_timer();
        }
        None => skip(b"request_interrupt", b"no-pin"),
    }
    if let Err(failure) = disk.close() {
        skip(b"reset", failure.reason);
    }
}

/// From the notification of one read to the processor's return from the halt that its interrupt ends.
fn interrupted(disk: &mut Disk) -> Result<u64, Failure> {
    disk.request(0, Direction::Read, 0);
    disk.interrupt_once();
    let seen = ring0::interrupt_count();
    let start = cpu::timestamp();
    disk.publish();
    wait(seen);
    let cycles = cpu::timestamp().wrapping_sub(start);
    let raised = disk.acknowledge();
    match disk.poll()? {
        Some(_) if raised => Ok(cycles),
        _ => Err(Failure::new(b"no-interrupt", b"disk")),
    }
}

/// From the moment at which the local APIC's timer is due to the processor's return from the halt that it ends.
fn wake_ups(apic: LocalApic, khz: u64, samples: &mut [u64]) {
    let count = samples.len().min(WAKE_UPS);
    let mut seen = ring0::interrupt_count();
    apic.start_timer(PERIOD);
    attempt(b"hlt_wake_up", samples.get_mut(..count).unwrap_or_default(), || {
        wait(seen);
        let woken = cpu::timestamp();
        seen = ring0::interrupt_count();
        Ok(woken.saturating_sub(clock::last_due(apic, PERIOD, khz)))
    });
    apic.stop_timer();
}

/// Halts until there is an interrupt that `seen` does not count.
fn wait(seen: u32) {
    while ring0::interrupt_count() == seen {
        ring0::wait(seen);
    }
}

fn is_amd() -> bool {
    let vendor = cpu::cpuid(CPUID_VENDOR, 0).ebx;
    vendor == u32::from_le_bytes(*b"Auth") || vendor == u32::from_le_bytes(*b"Hygo")
}

fn measure(kind: &[u8], samples: &mut [u64], mut exit: impl FnMut()) {
    for sample in samples.iter_mut() {
        let start = cpu::timestamp();
        exit();
        *sample = cpu::timestamp().wrapping_sub(start);
    }
    print(kind, samples);
}

/// The same with what times itself and may fail.
fn attempt(kind: &[u8], samples: &mut [u64], mut time: impl FnMut() -> Result<u64, Failure>) {
    for sample in samples.iter_mut() {
        match time() {
            Ok(cycles) => *sample = cycles,
            Err(failure) => return skip(kind, failure.reason),
        }
    }
    print(kind, samples);
}

fn print(kind: &[u8], samples: &mut [u64]) {
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
