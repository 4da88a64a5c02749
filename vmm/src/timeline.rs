//! When each phase of a start was reached: `--timeline`.
//!
//! Marks are relaxed atomics, so that any thread may set one and nobody pays for a lock. Each phase keeps its first
//! mark. Nothing is written before the end, because writing would be measured.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// A milestone of a machine's life, in the order in which a start reaches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// `main` runs: the process image is loaded.
    Exec,
    /// Flags and files are parsed.
    Args,
    /// `/dev/kvm` is open.
    KvmOpen,
    /// Guest RAM is reserved.
    Memory,
    /// The VM exists, with its memory slots and interrupt controller.
    VmCreated,
    /// The kernel is in guest RAM, with its tables and command line.
    KernelLoaded,
    /// All devices are on the bus.
    Devices,
    /// The boot CPU exists.
    VcpuCreated,
    /// The boot CPU is about to enter the guest for the first time.
    FirstRun,
    /// The guest needed the VMM for the first time.
    FirstExit,
    /// The guest's first byte on the serial port.
    FirstSerialByte,
    /// The guest said that it is ready (debug port).
    GuestReady,
    /// The machine has ended.
    Exit,
}

const NAMES: [&str; 13] = [
    "exec",
    "args",
    "kvm_open",
    "memory",
    "vm_created",
    "kernel_loaded",
    "devices",
    "vcpu_created",
    "first_run",
    "first_exit",
    "first_serial_byte",
    "guest_ready",
    "exit",
];

/// The marks of one machine.
#[derive(Debug, Default)]
pub struct Timeline {
    /// CLOCK_MONOTONIC in ns; 0: not reached.
    marks: [AtomicU64; NAMES.len()],
}

#[derive(Serialize)]
struct Line {
    phase: &'static str,
    ns: u64,
}

impl Timeline {
    /// Marks a phase, unless it was reached before.
    pub fn mark(&self, phase: Phase) {
        let mark = &self.marks[phase as usize];
        if mark.load(Ordering::Relaxed) == 0 {
            mark.store(monotonic_ns(), Ordering::Relaxed);
        }
    }

    /// When a phase was reached, in ns of CLOCK_MONOTONIC.
    pub fn reached(&self, phase: Phase) -> Option<u64> {
        match self.marks[phase as usize].load(Ordering::Relaxed) {
            0 => None,
            ns => Some(ns),
        }
    }

    /// Writes one JSON object a line for each phase reached, in order of time, relative to `start`.
    pub fn write(&self, start: u64, out: &mut impl Write) -> io::Result<()> {
        let mut reached: Vec<(u64, &'static str)> = NAMES
            .iter()
            .zip(&self.marks)
            .map(|(&name, mark)| (mark.load(Ordering::Relaxed), name))
            .filter(|&(ns, _)| ns != 0)
            .collect();
        reached.sort_unstable();
        for (ns, phase) in reached {
            serde_json::to_writer(&mut *out, &Line { phase, ns: ns.saturating_sub(start) })?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Now, in ns of CLOCK_MONOTONIC.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// When the kernel started this process, in ns of CLOCK_MONOTONIC. To be called first thing in `main`.
///
/// The start time of /proc/self/stat counts in steps of 10 ms, which is longer than a whole start. But a process that
/// has only one thread and has not slept yet has spent its life either running (its CPU clock) or waiting for a CPU
/// (second field of /proc/self/schedstat), both in ns; the kernel's own start time is the check: where the two differ
/// by more than its step, the coarse one is taken.
pub fn process_start_ns() -> u64 {
    let now = monotonic_ns();
    let ran = nanoseconds(ClockId::ProcessCPUTime);
    let waited = std::fs::read_to_string("/proc/self/schedstat")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0);
    let fine = now.saturating_sub(ran).saturating_sub(waited);
    match coarse_start_ns(now) {
        Some(coarse) if fine.abs_diff(coarse) > 2 * TICK_NS => coarse,
        _ => fine,
    }
}

/// USER_HZ is 100 on x86-64: one tick of /proc/self/stat.
const TICK_NS: u64 = 10_000_000;

/// Field 22 of /proc/self/stat (proc_pid_stat(5)), from ticks of CLOCK_BOOTTIME to CLOCK_MONOTONIC.
fn coarse_start_ns(now: u64) -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name, field 2, may hold anything but ends at the last ')'.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let suspended = nanoseconds(ClockId::Boottime).saturating_sub(now);
    (ticks * TICK_NS).checked_sub(suspended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_keep_their_first_mark_and_come_out_in_order_of_time() {
        let timeline = Timeline::default();
        timeline.mark(Phase::Args);
        let first = timeline.reached(Phase::Args).unwrap();
        timeline.mark(Phase::Exit);
        timeline.mark(Phase::Args);
        assert_eq!(timeline.reached(Phase::Args), Some(first));
        assert_eq!(timeline.reached(Phase::KvmOpen), None);
        let mut text = Vec::new();
        timeline.write(first, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], r#"{"phase":"args","ns":0}"#);
        assert!(lines[1].starts_with(r#"{"phase":"exit","ns":"#));
    }

    #[test]
    fn the_process_started_before_now_and_after_the_machine() {
        let start = process_start_ns();
        assert!(start > 0 && start < monotonic_ns());
    }

    #[test]
    fn every_phase_has_its_name() {
        assert_eq!(NAMES[Phase::Exec as usize], "exec");
        assert_eq!(NAMES[Phase::Exit as usize], "exit");
    }
}
