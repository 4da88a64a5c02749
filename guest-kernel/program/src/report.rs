//! The last words of a program that cannot go on: never silence.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::machine::Machine;
use crate::serial::Line;

/// Reported when the command line is wrong.
pub(crate) const STATUS_USAGE: u8 = 2;
/// Reported when the machine has not what the job needs.
pub(crate) const STATUS_FAILED: u8 = 3;
/// Reported for an exception or a panic of this program.
pub(crate) const STATUS_CRASHED: u8 = 4;

static IS_MOTE: AtomicBool = AtomicBool::new(false);
static RSDP: AtomicU64 = AtomicU64::new(0);

/// Keeps what a report needs to know about the machine.
pub(crate) fn set_machine(machine: Machine) {
    IS_MOTE.store(machine.is_mote, Ordering::Relaxed);
    RSDP.store(machine.rsdp, Ordering::Relaxed);
}

fn machine() -> Machine {
    Machine { is_mote: IS_MOTE.load(Ordering::Relaxed), rsdp: RSDP.load(Ordering::Relaxed), said_ready: true }
}

/// What the processor says about an exception.
pub(crate) struct Exception {
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) cr2: u64,
}

/// Reports an exception and ends the machine.
pub(crate) fn exception(exception: &Exception) -> ! {
    Line::new()
        .text(b"exception vector=")
        .decimal(exception.vector)
        .text(b" rip=")
        .hex(exception.rip)
        .text(b" error=")
        .hex(exception.error)
        .text(b" cs=")
        .hex(exception.cs)
        .text(b" cr2=")
        .hex(exception.cr2)
        .send();
    machine().end(Some(STATUS_CRASHED))
}

/// Ends the machine after the line `error=REASON detail=DETAIL`.
pub(crate) fn fail(machine: Machine, status: u8, reason: &[u8], detail: &[u8]) -> ! {
    Line::new().text(b"error=").text(reason).text(b" detail=").text(detail).send();
    machine.end(Some(status))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = Line::new();
    line.text(b"error=panic");
    if let Some(location) = info.location() {
        line.text(b" file=").text(location.file().as_bytes()).text(b" line=").decimal(location.line().into());
    }
    line.send();
    machine().end(Some(STATUS_CRASHED))
}
