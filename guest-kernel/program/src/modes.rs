//! The jobs. READY comes first in each that gets so far; the jobs that print results open them with [`header`].

mod blk;
mod echo;
mod exits;
mod faults;
mod frames;
mod inform;
mod net;
mod samples;
mod tally;
mod tick;
mod touch;
mod vsock;

use crate::apic::{LocalApic, Pin};
use crate::boot_info::BootInfo;
use crate::machine::Machine;
use crate::options::{Mode, Options};
use crate::serial::Line;
use crate::{cpu, report, ring0};

/// Does what the command line asks for, and ends the machine.
pub(crate) fn run(machine: Machine, boot: BootInfo, options: &Options<'_>) -> ! {
    if let Some(word) = options.invalid {
        report::fail(machine, report::STATUS_USAGE, b"invalid-option", word);
    }
    match options.mode() {
        Mode::Ready => machine.ready(),
        Mode::Idle => idle(machine),
        Mode::Spin => spin(machine),
        Mode::Echo => echo::run(machine, options),
        Mode::Exits => exits::run(machine, options),
        Mode::Touch => touch::run(machine, boot, options),
        Mode::Cpus => inform::cpus(machine),
        Mode::Memory => inform::memory(machine, boot),
        Mode::Tick => tick::run(machine, options),
        Mode::Flood => faults::flood(machine, options),
        Mode::Block => blk::run(machine, options),
        Mode::Net => net::run(machine, options),
        Mode::Vsock => vsock::run(machine, options),
        Mode::Panic => faults::panic(),
        Mode::Triple => ring0::triple_fault(),
        Mode::Bad => ring0::breakpoint(),
        Mode::Fault => cpu::undefined_instruction(),
        Mode::Unknown(name) => report::fail(machine, report::STATUS_USAGE, b"unknown-mode", name),
    }
    machine.end(options.status)
}

/// The first line of results: what they are and by which version of this form.
fn header() {
    Line::new().text(b"mote-guest proto=1").send();
}

/// READY, then nothing, until on mote the power button is pressed: no timer runs, so the processor sleeps.
fn idle(machine: Machine) {
    let button = LocalApic::enable().is_some_and(|apic| machine.is_mote && apic.route(Pin::POWER_BUTTON));
    let before = ring0::interrupt_count();
    machine.ready();
    loop {
        let seen = ring0::interrupt_count();
        // No other interrupt is let through.
        if button && seen != before {
            return;
        }
        ring0::wait(seen);
    }
}

/// READY, then a busy processor for ever.
fn spin(machine: Machine) -> ! {
    machine.ready();
    loop {
        cpu::relax();
    }
}
