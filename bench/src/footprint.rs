//! What a VMM's process holds, as the kernel sees it.
//!
//! Memory is what no other process shares: Private_Clean and Private_Dirty in `/proc/PID/smaps` (pages of a binary that only one
//! process maps count as its own), without the mappings that are the guest's RAM, known by their size. Threads are those that
//! the program started: KVM adds a worker of the kernel's, the same for everyone.

use std::ffi::OsString;
use std::path::PathBuf;
use std::{fs, io};

use thiserror::Error;

/// Why a process was not measured.
#[derive(Debug, Error)]
pub enum FootprintError {
    /// What the kernel says of it could not be read.
    #[error("{path} could not be read")]
    Read {
        /// The file or directory.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// No mapping is large enough to be the guest's RAM.
    #[error("no mapping of {0} KiB is in the process: what is the guest's cannot be told")]
    NoGuestMemory(u64),
}

/// What one process holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footprint {
    /// Private memory outside the guest's, in KiB.
    pub private_kib: u64,
    /// The proportional set size outside the guest's, in KiB: each page by the number of processes that map it.
    pub pss_kib: u64,
    /// The process's page tables, in KiB: VmPTE. Those that KVM keeps for the guest are not in it.
    pub page_tables_kib: u64,
    /// Threads that the program started.
    pub threads: usize,
    /// Descriptors that it opened or was given.
    pub descriptors: usize,
}

impl Footprint {
    /// Looks at a VMM's process whose guest has `guest_kib` of memory.
    ///
    /// # Errors
    /// When the process is gone, or is no such VMM.
    pub fn of(process: u32, guest_kib: u64) -> Result<Self, FootprintError> {
        let smaps = read(&format!("/proc/{process}/smaps"), |path| fs::read_to_string(path))?;
        let status = read(&format!("/proc/{process}/status"), |path| fs::read_to_string(path))?;
        let tasks = read(&format!("/proc/{process}/task"), |path| {
            fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()
        })?;
        let opened = read(&format!("/proc/{process}/fd"), descriptors)?;
        let ours = read("/proc/self/fd", descriptors)?;
        // A thread that is gone by now was none of an idle machine's.
        let stats = tasks.iter().filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        let outside = outside(&smaps, guest_kib).ok_or(FootprintError::NoGuestMemory(guest_kib))?;
        let page_tables = status.lines().filter_map(field).find(|(key, _)| *key == "VmPTE");
        Ok(Self {
            private_kib: outside.private_kib,
            pss_kib: outside.pss_kib,
            page_tables_kib: page_tables.map_or(0, |(_, kib)| kib),
            threads: stats.filter(|stat| !is_kernel_worker(stat)).count(),
            descriptors: own_descriptors(&opened, &ours),
        })
    }
}

/// The descriptors in a directory of procfs: number, and what is behind it.
fn descriptors(path: &str) -> io::Result<Vec<(OsString, PathBuf)>> {
    let link = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name(), fs::read_link(entry.path()).unwrap_or_default()))
    };
    fs::read_dir(path)?.map(link).collect()
}

/// How many of `descriptors` a machine opened itself, or was given on purpose: the first three. Others that are `ours`,
/// too, were handed down to this process by a careless parent, and on from here.
fn own_descriptors(descriptors: &[(OsString, PathBuf)], ours: &[(OsString, PathBuf)]) -> usize {
    let is_standard = |number: &OsString| ["0", "1", "2"].iter().any(|standard| number == standard);
    descriptors.iter().filter(|one| is_standard(&one.0) || !ours.contains(one)).count()
}

fn read<T>(path: &str, read: impl FnOnce(&str) -> io::Result<T>) -> Result<T, FootprintError> {
    read(path).map_err(|source| FootprintError::Read { path: path.to_owned(), source })
}

/// Whether a task's `stat` line is a thread that the kernel runs in the process's name (kvm-nx-lpage-recovery).
pub(crate) fn is_kernel_worker(stat: &str) -> bool {
    /// PF_USER_WORKER in Linux's include/linux/sched.h.
    const USER_WORKER: u64 = 0x4000;
    // After the name, which may hold anything: state, ppid, pgrp, session, tty_nr, tpgid, flags.
    let flags =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & USER_WORKER != 0)
}

/// One mapping of a process.
#[derive(Default)]
struct Mapping {
    start: u64,
    end: u64,
    held: Held,
}

/// What is held in mappings, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Held {
    private_kib: u64,
    pss_kib: u64,
}

/// What is held outside the guest's memory. That is the mapping that is as large as it, or else larger, or the neighbours that are
/// as large together (advice to the kernel about a part of a mapping makes two of it), or two of either that are (a guest's memory
/// has a hole below 4 GiB). `None` if there are none.
fn outside(smaps: &str, guest_kib: u64) -> Option<Held> {
    let mappings = mappings(smaps);
    let runs = runs(&mappings);
    let exact = runs.iter().find(|run| run.kib == guest_kib);
    let larger = || runs.iter().find(|run| run.first == run.last && run.kib > guest_kib);
    let guest = match exact.or_else(larger) {
        Some(run) => vec![run],
        None => {
            let large = || runs.iter().filter(|run| run.kib >= guest_kib / 16);
            let two = |low: &Run, high: &Run| low.last < high.first && low.kib + high.kib == guest_kib;
            large().find_map(|low| Some(vec![low, large().find(|high| two(low, high))?]))?
        }
    };
    let is_guest = |index: usize| guest.iter().any(|run| (run.first..=run.last).contains(&index));
    let outside = mappings.iter().enumerate().filter(|(index, _)| !is_guest(*index));
    Some(outside.fold(Held::default(), |sum, (_, Mapping { held, .. })| Held {
        private_kib: sum.private_kib + held.private_kib,
        pss_kib: sum.pss_kib + held.pss_kib,
    }))
}

/// Mappings that touch, by their numbers, and their size together.
struct Run {
    first: usize,
    last: usize,
    kib: u64,
}

/// All there are, the shorter first where they begin with the same.
fn runs(mappings: &[Mapping]) -> Vec<Run> {
    let from = |first: usize| {
        let neighbours = mappings[first..].windows(2).take_while(|pair| pair[0].end == pair[1].start);
        let last = first + neighbours.count();
        (first..=last).map(move |last| {
            let kib = (mappings[last].end - mappings[first].start) / 1024;
            Run { first, last, kib }
        })
    };
    (0..mappings.len()).flat_map(from).collect()
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some((start, end)) = range(line) {
            mappings.push(Mapping { start, end, held: Held::default() });
        } else if let (Some((key, kib)), Some(Mapping { held, .. })) = (field(line), mappings.last_mut()) {
            match key {
                "Private_Clean" | "Private_Dirty" => held.private_kib += kib,
                "Pss" => held.pss_kib += kib,
                _ => {}
            }
        }
    }
    mappings
}

/// `start-end permissions ...`, the first line of a mapping.
fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?)).filter(|(start, end)| start < end)
}

/// `Key:   123 kB`
fn field(line: &str) -> Option<(&str, u64)> {
    let (key, value) = line.split_once(':')?;
    Some((key, value.trim().strip_suffix(" kB")?.parse().ok()?))
}

/// Whether an ELF64 file names no interpreter: the kernel runs it without a dynamic linker.
#[must_use]
pub fn is_static(elf: &[u8]) -> bool {
    const INTERPRETER: u64 = 3;
    let number = |offset: usize, size: usize| {
        let bytes = elf.get(offset..offset.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
    };
    let types = || {
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        (0..count)
            .map(|index| number(usize::try_from(start.checked_add(index * size)?).ok()?, 4))
            .collect::<Option<Vec<_>>>()
    };
    elf.starts_with(b"\x7fELF\x02") && types().is_some_and(|types| !types.contains(&INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 08:01 42 /bin/vmm
Size:               1024 kB
Rss:                 100 kB
Private_Clean:        20 kB
Private_Dirty:         3 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Size:             131072 kB
Private_Clean:         0 kB
Private_Dirty:     50000 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
Size:                132 kB
Private_Clean:         0 kB
Private_Dirty:        12 kB
";

    fn private_kib(smaps: &str, guest_kib: u64) -> Option<u64> {
        outside(smaps, guest_kib).map(|held| held.private_kib)
    }

    #[test]
    fn guest_memory_is_not_counted() {
        assert_eq!(private_kib(SMAPS, 128 * 1024), Some(35));
    }

    #[test]
    fn guest_memory_may_be_two_mappings_that_touch() {
        let whole = "7f0000000000-7f0008000000 rw-p 00000000 00:00 0\n";
        let parts = "7f0000000000-7f0000200000 rw-p 00000000 00:00 0\nPrivate_Dirty: 7 kB\n\
            7f0000200000-7f0008000000 rw-p 00200000 00:00 0\n";
        assert_eq!(private_kib(&SMAPS.replace(whole, parts), 128 * 1024), Some(35));
        let apart = parts.replace("0000-7f0008000000", "1000-7f0008001000");
        assert_eq!(private_kib(&SMAPS.replace(whole, &apart), 128 * 1024), None);
    }

    #[test]
    fn guest_memory_may_be_on_both_sides_of_a_hole() {
        let high = "7f1000000000-7f1010000000 rw-p 00000000 00:00 0\nPrivate_Dirty: 5 kB\nPss: 9 kB\n";
        let smaps = format!("{SMAPS}{high}");
        assert_eq!(private_kib(&smaps, 384 * 1024), Some(35));
        assert_eq!(private_kib(&smaps, 385 * 1024), None);
        let small = outside(&smaps, 128 * 1024).unwrap();
        assert_eq!(small, Held { private_kib: 40, pss_kib: 9 });
    }

    #[test]
    fn a_process_without_guest_memory_is_no_machine() {
        assert_eq!(private_kib(SMAPS, 128 * 1024 + 1), None);
        assert_eq!(private_kib("", 1), None);
    }

    #[test]
    fn kernel_workers_are_told_from_threads() {
        assert!(is_kernel_worker("18035 (kvm-nx-lpage-re) S 18030 18030 10047 0 -1 4210752 0 0 0"));
        assert!(!is_kernel_worker("18032 (a) b (c) S 18030 18030 10047 0 -1 4194304 0 0 0"));
        assert!(!is_kernel_worker(""));
    }

    #[test]
    fn what_we_inherited_is_no_machines_own() {
        let descriptor = |number: &str, target: &str| (OsString::from(number), PathBuf::from(target));
        let ours = [descriptor("0", "/dev/null"), descriptor("3", "pipe:[7]"), descriptor("10", "/dev/null")];
        let machine =
            [descriptor("0", "/dev/null"), descriptor("3", "/dev/kvm"), descriptor("10", "/dev/null")];
        assert_eq!(own_descriptors(&machine, &ours), 2);
    }

    #[test]
    fn this_process_has_a_footprint_but_no_guest() {
        assert!(matches!(Footprint::of(std::process::id(), 1 << 40), Err(FootprintError::NoGuestMemory(_))));
        let missing = Footprint::of(u32::MAX, 1).unwrap_err().to_string();
        assert_eq!(missing, "/proc/4294967295/smaps could not be read");
    }

    #[test]
    fn a_static_binary_names_no_interpreter() {
        let elf = |kind: u8| {
            let mut elf = vec![0; 64 + 2 * 56];
            elf[..5].copy_from_slice(b"\x7fELF\x02");
            (elf[0x20], elf[0x36], elf[0x38]) = (64, 56, 2);
            (elf[64], elf[64 + 56]) = (1, kind);
            elf
        };
        assert!(is_static(&elf(1)));
        assert!(!is_static(&elf(3)));
        assert!(!is_static(&elf(1)[..100]), "a file that is cut off proves nothing");
        assert!(!is_static(b"#!/bin/sh\n"));
    }
}
