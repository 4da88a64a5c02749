//! The system calls of the host that a thread's seccomp filters leave it: what code that has taken over the thread could call.
//!
//! The filters are read from the kernel by ptrace and followed for every number, by all ways through them: where a filter
//! looks at a call's arguments, it is assumed that they are such as pass. So a call that is counted may be allowed for few
//! arguments only; one that is not counted is never allowed.

#![expect(unsafe_code, reason = "ptrace has no safe interface")]

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::{fs, io, ptr};

use crate::footprint::is_kernel_worker;

/// The numbers that x86-64 has calls for, as of Linux 6.18. (The x32 ones are another architecture's to filters.)
const NUMBERS: [RangeInclusive<u32>; 2] = [0..=334, 424..=469];

/// How many there are.
#[must_use]
pub fn all() -> usize {
    NUMBERS.into_iter().flatten().count()
}

/// How many a process's threads may make: what any of them may. Of several processes it is the last that this process
/// may trace, and the innermost should be it.
///
/// # Errors
/// When none can be looked at.
pub fn reachable(processes: &[u32]) -> io::Result<usize> {
    let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
    for &process in processes.iter().rev() {
        result = of_process(process);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn of_process(process: u32) -> io::Result<usize> {
    let mut reachable = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        // It never returns to user space, whoever has taken over the others.
        if fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| is_kernel_worker(&stat)) {
            continue;
        }
        let status = fs::read_to_string(entry.path().join("status"))?;
        let thread = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let filters = match (is_filtered(&status), thread) {
            (true, Some(thread)) => read_filters(thread)?,
            _ => Vec::new(),
        };
        let allowed = |number: &u32| filters.iter().all(|filter| may_pass(filter, *number));
        reachable.extend(NUMBERS.into_iter().flatten().filter(allowed));
    }
    Ok(reachable.len())
}

/// Whether a thread's `status` names filters, mode 2.
fn is_filtered(status: &str) -> bool {
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// One instruction of a filter: `struct sock_filter`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

/// PTRACE_SECCOMP_GET_FILTER, which libc does not have.
const GET_FILTER: libc::c_uint = 0x420c;

/// All filters of a thread, which is stopped for that.
fn read_filters(thread: libc::pid_t) -> io::Result<Vec<Vec<Instruction>>> {
    trace(libc::PTRACE_SEIZE, thread, 0, ptr::null_mut())?;
    trace(libc::PTRACE_INTERRUPT, thread, 0, ptr::null_mut())?;
    // SAFETY: no status is asked for.
    if unsafe { libc::waitpid(thread, ptr::null_mut(), libc::__WALL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut filters = Vec::new();
    let result = loop {
        match read_filter(thread, filters.len()) {
            Ok(filter) => filters.push(filter),
            // There is none of this number, so all have been read.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break Ok(filters),
            Err(error) => break Err(error),
        }
    };
    trace(libc::PTRACE_DETACH, thread, 0, ptr::null_mut())?;
    result
}

fn read_filter(thread: libc::pid_t, index: usize) -> io::Result<Vec<Instruction>> {
    let length = trace(GET_FILTER, thread, index, ptr::null_mut())?;
    let mut filter = vec![Instruction::default(); length];
    trace(GET_FILTER, thread, index, filter.as_mut_ptr().cast())?;
    Ok(filter)
}

/// `data` must have room for what `request` writes.
fn trace(
    request: libc::c_uint,
    thread: libc::pid_t,
    address: usize,
    data: *mut libc::c_void,
) -> io::Result<usize> {
    let address = ptr::without_provenance_mut::<libc::c_void>(address);
    // SAFETY: SEIZE, INTERRUPT and DETACH write nothing; GET_FILTER writes nothing to null, and else as many
    // instructions as it has told before, to a vector of that length; a thread's filters never change, they only become more.
    let result = unsafe { libc::ptrace(request, thread, address, data) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

// Classic BPF, as in Linux's include/uapi/linux/bpf_common.h and filter.h.
const CLASS: u16 = 0x07;
const LOAD: u16 = 0x00;
const LOAD_ABSOLUTE: u16 = 0x20;
const LOAD_X: u16 = 0x01;
const STORE: u16 = 0x02;
const STORE_X: u16 = 0x03;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const MISC_TXA: u16 = 0x87;
const ALU: u16 = 0x04;
const OPERATION: u16 = 0xf0;
const JUMP_ALWAYS: u16 = 0x00;
const JUMP_EQUAL: u16 = 0x10;
const JUMP_GREATER: u16 = 0x20;
const JUMP_GREATER_EQUAL: u16 = 0x30;
const JUMP_SET: u16 = 0x40;
const SOURCE_X: u16 = 0x08;
const RETURN_A: u16 = 0x10;

// `struct seccomp_data`, and what a filter returns.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
const ARCHITECTURE: u32 = 0xc000_003e;
const ACTION: u32 = 0xffff_0000;
const ACTION_ALLOW: u32 = 0x7fff_0000;
const ACTION_LOG: u32 = 0x7ffc_0000;

/// Whether there is a way through `filter` on which the call `number` is allowed.
///
/// The accumulator is known where it comes from the number or the architecture. What it holds else, and what X and the memory hold,
/// is unknown, so that a comparison with it goes both ways.
fn may_pass(filter: &[Instruction], number: u32) -> bool {
    let mut ways = vec![(0_usize, None::<u32>)];
    let mut seen = HashSet::new();
    while let Some((at, accumulator)) = ways.pop() {
        let Some(&instruction) = filter.get(at) else { continue };
        if !seen.insert((at, accumulator)) {
            continue;
        }
        let Instruction { code, k, .. } = instruction;
        match code & CLASS {
            RETURN if code & RETURN_A != 0 => return true,
            RETURN => {
                if [ACTION_ALLOW, ACTION_LOG].contains(&(k & ACTION)) {
                    return true;
                }
            }
            JUMP => {
                let jumps = jumps(instruction, accumulator);
                ways.extend(jumps.into_iter().map(|by| (at + 1 + by, accumulator)));
            }
            LOAD if code == LOAD_ABSOLUTE => ways.push((at + 1, loaded(k, number))),
            LOAD | ALU => ways.push((at + 1, None)),
            LOAD_X | STORE | STORE_X => ways.push((at + 1, accumulator)),
            _ => ways.push((at + 1, accumulator.filter(|_| code != MISC_TXA))),
        }
    }
    false
}

fn loaded(offset: u32, number: u32) -> Option<u32> {
    match offset {
        NUMBER_OFFSET => Some(number),
        ARCHITECTURE_OFFSET => Some(ARCHITECTURE),
        _ => None,
    }
}

/// How many instructions a jump may pass over.
fn jumps(
    Instruction { code, jump_true, jump_false, k }: Instruction,
    accumulator: Option<u32>,
) -> Vec<usize> {
    let [when_true, when_false] = [jump_true, jump_false].map(usize::from);
    let holds = match (code & OPERATION, accumulator.filter(|_| code & SOURCE_X == 0)) {
        (JUMP_ALWAYS, _) => return vec![k as usize],
        (JUMP_EQUAL, Some(value)) => value == k,
        (JUMP_GREATER, Some(value)) => value > k,
        (JUMP_GREATER_EQUAL, Some(value)) => value >= k,
        (JUMP_SET, Some(value)) => value & k != 0,
        _ => return vec![when_true, when_false],
    };
    vec![if holds { when_true } else { when_false }]
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> Instruction {
        Instruction { code, jump_true, jump_false, k }
    }

    const KILL: u32 = 0x8000_0000;

    /// Of x86-64: `write` always, `ioctl` with a certain request, and nothing else.
    const FILTER: [Instruction; 9] = [
        instruction(0x20, 0, 0, ARCHITECTURE_OFFSET),
        instruction(0x15, 0, 5, ARCHITECTURE),
        instruction(0x20, 0, 0, NUMBER_OFFSET),
        instruction(0x15, 4, 0, 1),
        instruction(0x15, 0, 2, 16),
        instruction(0x20, 0, 0, 24),
        instruction(0x15, 1, 0, 0xae80),
        instruction(0x06, 0, 0, KILL),
        instruction(0x06, 0, 0, ACTION_ALLOW),
    ];

    #[test]
    fn a_filter_is_followed_by_every_way() {
        let passing: Vec<u32> = (0..400).filter(|&number| may_pass(&FILTER, number)).collect();
        assert_eq!(passing, [1, 16]);
    }

    #[test]
    fn arithmetic_and_x_are_unknown() {
        let masked = [
            instruction(0x20, 0, 0, NUMBER_OFFSET),
            instruction(0x54, 0, 0, 0xff),
            instruction(0x15, 0, 1, 7),
            instruction(0x06, 0, 0, ACTION_ALLOW),
            instruction(0x06, 0, 0, KILL),
        ];
        assert!(may_pass(&masked, 1) && may_pass(&masked, 7));
        let never = [instruction(0x06, 0, 0, KILL)];
        assert!(!may_pass(&never, 1));
        assert!(!may_pass(&[], 1), "what runs off the end allows nothing");
    }

    #[test]
    fn this_process_may_call_what_its_filters_say() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        if is_filtered(&status) {
            println!("SKIPPED: this process has filters, and cannot trace itself");
            return;
        }
        assert_eq!(reachable(&[std::process::id()]).unwrap(), all());
        assert!(reachable(&[u32::MAX]).is_err());
        assert!(reachable(&[]).is_err());
    }
}
