//! `mode=tick`: one line for each timer interrupt, to see a machine stand still and go on.

use crate::apic::LocalApic;
use crate::machine::Machine;
use crate::options::Options;
use crate::serial::Line;
use crate::{cpu, report, ring0};

const DEFAULT_COUNT: u64 = 10;
/// The timer's start value: 100 ms, where its clock is KVM's 1 GHz.
const PERIOD: u32 = 100_000_000;

/// Prints `n` lines, each after another interrupt.
pub(super) fn run(machine: Machine, options: &Options<'_>) {
    let Some(apic) = LocalApic::enable() else {
        report::fail(machine, report::STATUS_FAILED, b"no-local-apic", b"version-register");
    };
    machine.ready();
    super::header();
    let mut seen = ring0::interrupt_count();
    apic.start_timer(PERIOD);
    for tick in 1..=options.n.unwrap_or(DEFAULT_COUNT) {
        // The count never goes back, so this ends with the next interrupt.
        while ring0::interrupt_count() == seen {
            ring0::wait(seen);
        }
        seen = ring0::interrupt_count();
        Line::new().text(b"tick=").decimal(tick).text(b" tsc=").decimal(cpu::timestamp()).send();
    }
}
