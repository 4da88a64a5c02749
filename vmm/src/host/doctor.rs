//! The checks of `mote doctor`.

use std::fs;
use std::path::Path;

use kvm_ioctls::{Cap, Kvm};

use super::kvm_backend;
use crate::config::MAX_CPUS;
use crate::kvm;

/// The oldest kernel that has every call mote makes (MADV_POPULATE_WRITE, for --prefault).
const OLDEST_KERNEL: (u32, u32) = (5, 14);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub fact: String,
}

/// Whether mote can work with what was found; with the cure where it cannot, or not fully.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works, with a limit.
    Limited(String),
    /// mote cannot run without it.
    Missing(String),
}

impl Check {
    fn good(name: &'static str, fact: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, fact: fact.into() }
    }

    fn limited(name: &'static str, fact: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Limited(cure.into()), fact: fact.into() }
    }

    fn missing(name: &'static str, fact: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Missing(cure.into()), fact: fact.into() }
    }
}

/// All checks, in the order of what a machine needs first.
pub fn examine() -> Vec<Check> {
    let mut checks = vec![kernel_version()];
    match kvm::open() {
        Ok(kvm) => {
            checks.push(Check::good("/dev/kvm", "opens, API version 12"));
            checks.push(backend());
            checks.extend(capabilities(&kvm));
            checks.push(vcpus(&kvm));
        }
        Err(error) => checks.push(Check::missing("/dev/kvm", "cannot be used", crate::error_line(&error))),
    }
    checks.extend([huge_pages(), transparent_huge_pages(), cgroups(), tap(), seccomp()]);
    checks
}

fn kernel_version() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let fact = format!("Linux {release}");
    if version >= OLDEST_KERNEL {
        Check::good("kernel", fact)
    } else {
        let (major, minor) = OLDEST_KERNEL;
        Check::limited(
            "kernel",
            fact,
            format!("mote is made for Linux {major}.{minor} or newer: --prefault will fail"),
        )
    }
}

fn backend() -> Check {
    match kvm_backend() {
        Some(name) if name == "kvm_intel" => Check::good("KVM back end", "kvm_intel (VT-x)"),
        Some(name) if name == "kvm_amd" => Check::good("KVM back end", "kvm_amd (AMD-V)"),
        Some(name) => Check::limited(
            "KVM back end",
            format!(
                "{name}: no hardware virtualisation; user code (ring 3) runs natively, kernel code (ring 0) is emulated at some million instructions a second, without SYSCALL, int3, xsave and cmpxchg16b"
            ),
            "the embedded guest runs at full speed; Linux does not boot here: use a host with VT-x or AMD-V, or ci/testbed",
        ),
        None => Check::limited(
            "KVM back end",
            "built into the kernel, of unknown kind",
            "nothing to do; messages about crashes cannot name it",
        ),
    }
}

fn capabilities(kvm: &Kvm) -> Vec<Check> {
    let needed = [
        (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    ];
    let useful = [
        (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER", "guests calibrate their timer"),
        (Cap::GetTscKhz, "KVM_CAP_GET_TSC_KHZ", "guests calibrate their clock"),
        (Cap::KvmclockCtrl, "KVM_CAP_KVMCLOCK_CTRL", "a guest that was paused may warn of a stuck CPU"),
    ];
    let absent: Vec<&str> =
        needed.into_iter().filter(|(cap, _)| !kvm.check_extension(*cap)).map(|(_, name)| name).collect();
    let mut checks = vec![if absent.is_empty() {
        Check::good("KVM capabilities", "all that mote needs")
    } else {
        Check::missing("KVM capabilities", format!("without {}", absent.join(", ")), "use a newer kernel")
    }];
    for (cap, name, without) in useful {
        if !kvm.check_extension(cap) {
            checks.push(Check::limited("KVM capabilities", format!("without {name}"), without));
        }
    }
    checks
}

fn vcpus(kvm: &Kvm) -> Check {
    let (most, advised) = (kvm.get_max_vcpus(), kvm.get_nr_vcpus());
    let fact =
        format!("KVM allows {most} a machine and advises at most {advised}; mote gives at most {MAX_CPUS}");
    if advised >= MAX_CPUS.into() {
        Check::good("vCPUs", fact)
    } else {
        Check::limited("vCPUs", fact, format!("more than {advised} vCPUs share the host's CPUs"))
    }
}

fn huge_pages() -> Check {
    let free =
        read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").and_then(|text| text.parse().ok());
    match free {
        Some(0u64) => Check::limited(
            "2 MiB pages",
            "none reserved",
            "for --hugepages 2m: echo NUMBER > /proc/sys/vm/nr_hugepages",
        ),
        Some(free) => Check::good("2 MiB pages", format!("{free} free, for --hugepages 2m")),
        None => Check::limited("2 MiB pages", "not in this kernel", "use --hugepages thp or none"),
    }
}

fn transparent_huge_pages() -> Check {
    let policy = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let chosen = policy.as_deref().and_then(|text| text.split(['[', ']']).nth(1));
    match chosen {
        Some("never") => Check::limited(
            "transparent pages",
            "never",
            "for --hugepages thp: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some("always") => Check::limited(
            "transparent pages",
            "always: guests start faster, small guests hold more memory",
            "for the smallest machines: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some(policy) => Check::good("transparent pages", format!("{policy}, for --hugepages thp")),
        None => Check::limited("transparent pages", "not in this kernel", "use --hugepages none or 2m"),
    }
}

fn cgroups() -> Check {
    let v2 = read("/sys/fs/cgroup/cgroup.controllers");
    match v2 {
        Some(controllers) => Check::good("cgroups", format!("version 2: {controllers}")),
        None if Path::new("/sys/fs/cgroup/memory").exists() => Check::limited(
            "cgroups",
            "version 1",
            "moving a process into a group costs milliseconds here: version 2 is faster",
        ),
        None => Check::limited(
            "cgroups",
            "not mounted",
            "machines cannot be limited: mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

fn seccomp() -> Check {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_ascii_whitespace().any(|action| action == "trap") {
        Check::good("seccomp", "filters can be installed")
    } else {
        Check::limited(
            "seccomp",
            "not in this kernel",
            "a kernel with CONFIG_SECCOMP_FILTER; --no-seccomp starts machines without that wall",
        )
    }
}

fn tap() -> Check {
    match fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Check::good("/dev/net/tun", "opens, for network devices"),
        Err(error) => Check::limited(
            "/dev/net/tun",
            format!("cannot be opened: {error}"),
            "for network devices: modprobe tun, and permission to open it",
        ),
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_that_is_not_good_has_a_cure() {
        let checks = examine();
        assert!(checks.len() >= 6);
        for Check { name, verdict, fact } in checks {
            assert!(!fact.is_empty(), "{name}");
            if let Verdict::Limited(cure) | Verdict::Missing(cure) = verdict {
                assert!(!cure.is_empty(), "{name}");
            }
        }
    }
}
