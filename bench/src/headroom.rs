//! What the host has left, and how the bench keeps out of its way.

use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for each machine: what it is told and what it says; and for all else.
const DESCRIPTORS: usize = 2;
const OTHERS: usize = 64;

/// How often, and how long apart, [`settle`] looks, and what it takes for standing still. The kernel adds up its counters once a
/// second.
const SETTLE_LOOKS: usize = 4;
const SETTLE_PAUSE: Duration = Duration::from_millis(1100);
const STILL_KIB: u64 = 1024;

/// What new programs could have without swapping, in KiB: MemAvailable, or what this process's memory cgroup leaves, if that
/// is less.
pub(crate) fn available_kib() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let host =
        parse_available(&meminfo).ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Ok(cgroup_kib(&cgroups, Path::new("/sys/fs/cgroup")).map_or(host, |left| left.min(host)))
}

/// Waits until that stands still, as it does not while the kernel takes back the memory of those that have ended: what the next
/// ones take would be lost in it. For a few seconds at most, since others on the host may never rest.
pub(crate) fn settle() -> io::Result<()> {
    let mut last = available_kib()?;
    for _ in 0..SETTLE_LOOKS {
        thread::sleep(SETTLE_PAUSE);
        let now = available_kib()?;
        if now.abs_diff(last) <= STILL_KIB {
            break;
        }
        last = now;
    }
    Ok(())
}

/// What the memory cgroup among `cgroups` (`/proc/self/cgroup`) leaves, in KiB, with all hierarchies mounted below `mounted`; `None` without a limit. Pages
/// of files that it holds count as used, though they could be dropped.
fn cgroup_kib(cgroups: &str, mounted: &Path) -> Option<u64> {
    let number = |directory: &Path, file: &str| -> Option<u64> {
        fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
    };
    cgroups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            let (directory, limit, used) = match controllers {
                "" => (mounted.join(path), "memory.max", "memory.current"),
                "memory" => {
                    (mounted.join("memory").join(path), "memory.limit_in_bytes", "memory.usage_in_bytes")
                }
                _ => return None,
            };
            // A hierarchy that is mounted in a container begins at the container's own cgroup.
            let directory = if directory.is_dir() { directory } else { mounted.join(controllers) };
            Some(number(&directory, limit)?.saturating_sub(number(&directory, used)?) / 1024)
        })
        .min()
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// If memory runs out all the same, the kernel takes it from this process and its machines first.
pub(crate) fn prefer_as_victim() {
    // Where it cannot be said, the margin must do.
    let _unsaid = fs::write("/proc/self/oom_score_adj", "1000");
}

/// Allows this process as many descriptors as it may have, and returns for how many machines they are enough.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Who may not raise it keeps what there is.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = if raised.is_ok() { limit.maximum } else { limit.current };
    machines_for(limit)
}

fn machines_for(descriptors: Option<u64>) -> usize {
    let descriptors = descriptors.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
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
    fn a_memory_cgroup_may_leave_less() {
        let mounted = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = mounted.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("memory/a/memory.limit_in_bytes", "4194304\n");
        write("memory/a/memory.usage_in_bytes", "1048576\n");
        write("b/memory.max", "max\n");
        write("b/memory.current", "1\n");
        let left = |cgroups| cgroup_kib(cgroups, mounted.path());
        assert_eq!(left("5:cpu:/a\n4:memory:/a\n0::/b\n"), Some(3072));
        assert_eq!(left("0::/b\n"), None, "no limit");
        write("b/memory.max", "1024\n");
        write("b/memory.current", "2048\n");
        assert_eq!(left("0::/b\n4:memory:/a\n"), Some(0));
        assert_eq!(left(""), None);
    }

    #[test]
    fn descriptors_limit_machines() {
        assert!(raise_descriptor_limit() > 100);
        assert_eq!([Some(64), Some(1024), Some(20_000)].map(machines_for), [0, 480, 9968]);
        assert!(machines_for(None) > 1 << 60, "no limit");
    }
}
