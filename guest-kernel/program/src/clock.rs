//! How fast the time stamp counter runs, and what it stood at when the timer last was due.

use crate::apic::LocalApic;
use crate::cpu;

/// The hypervisor's base leaf, and the one that holds the frequency in kHz in EAX (VMware's definition; mote's VMs have it).
const HYPERVISOR_BASE: u32 = 0x4000_0000;
const HYPERVISOR_CLOCKS: u32 = 0x4000_0010;
/// The APIC's timer counts nanoseconds: KVM's bus has 1 GHz.
const MEASURED_NS: u32 = 20_000_000;
const READINGS: usize = 8;
const KHZ_PER_GHZ: u64 = 1_000_000;

/// The frequency in kHz: from CPUID, else measured against the local APIC's timer. None where neither tells.
pub(crate) fn tsc_khz() -> Option<u64> {
    let told = cpu::cpuid(HYPERVISOR_BASE, 0).eax >= HYPERVISOR_CLOCKS;
    let khz = if told { cpu::cpuid(HYPERVISOR_CLOCKS, 0).eax } else { 0 };
    if khz == 0 { measure() } else { Some(khz.into()) }
}

/// The time stamp at which the periodic timer, which `period` starts, was due the last time.
pub(crate) fn last_due(apic: LocalApic, period: u32, khz: u64) -> u64 {
    let (count, now) = read(apic);
    let ns = u64::from(period.saturating_sub(count));
    now.wrapping_sub(ns.saturating_mul(khz) / KHZ_PER_GHZ)
}

fn measure() -> Option<u64> {
    let apic = LocalApic::enable()?;
    apic.start_countdown(u32::MAX);
    let (first, start) = read(apic);
    let patience = cpu::Patience::new();
    loop {
        let (count, now) = read(apic);
        let ns = first.wrapping_sub(count);
        if ns >= MEASURED_NS {
            return now.wrapping_sub(start).checked_mul(KHZ_PER_GHZ)?.checked_div(ns.into());
        }
        if patience.is_over() {
            return None;
        }
    }
}

/// The countdown, and the time in the middle of reading it: of several readings the one that took the least, because the
/// others may have been interrupted on the host.
fn read(apic: LocalApic) -> (u32, u64) {
    let mut best = (0, 0);
    let mut least = u64::MAX;
    for _ in 0..READINGS {
        let before = cpu::timestamp();
        let count = apic.countdown();
        let took = cpu::timestamp().wrapping_sub(before);
        if took < least {
            least = took;
            best = (count, before + took / 2);
        }
    }
    best
}
