//! What the host has left, and how the bench keeps out of its way.

use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for each machine: what it is told and what it says; and for all else.
const DESCRIPTORS: usize = 2;
const OTHERS: usize = 64;

/// MemAvailable, in KiB: what new programs could have without swapping.
pub(super) fn available_kib() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    parse_available(&meminfo).ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// If memory runs out all the same, the kernel takes it from this process and its machines first.
pub(super) fn prefer_as_victim() {
    // Where it cannot be said, the margin must do.
    let _unsaid = fs::write("/proc/self/oom_score_adj", "1000");
}

/// Allows this process as many descriptors as it may have, and returns for how many machines they are enough.
pub(super) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Who may not raise it keeps what there is.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = if raised.is_ok() { limit.maximum } else { limit.current };
    let descriptors = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    descriptors.saturating_sub(OTHERS) / DESCRIPTORS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read() {
        let meminfo = "MemTotal:       24684160 kB\nMemFree:        1 kB\nMemAvailable:   12000 kB\n";
        assert_eq!(parse_available(meminfo), Some(12_000));
        assert_eq!(parse_available("MemFree: 1 kB\n"), None);
        assert!(available_kib().unwrap() > 0);
    }

    #[test]
    fn descriptors_limit_machines() {
        assert!(raise_descriptor_limit() > 100);
    }
}
