//! What a figure was measured on.

use std::fs;

use serde::Serialize;

/// A host's fingerprint. What could not be found out is empty or 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    /// The processor's name.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// The module that runs KVM's guests.
    pub kvm: String,
    /// How many processors are online.
    pub cpus: usize,
    /// By what the processor's frequency is chosen: performance, schedutil, ...; empty where the host does not say, as in a VM.
    pub governor: String,
    /// The flaws that the processor has, and what the kernel does about each.
    pub mitigations: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Transparent huge pages: always, madvise or never.
    pub thp: String,
    /// The load average of the last minute, when the run began.
    pub load: f64,
    /// The policy by which the runner, and all that it starts, is scheduled: other, fifo, rr, or a number.
    pub scheduling: String,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let module = ["kvm_intel", "kvm_amd", "kvm_pvm"]
            .into_iter()
            .find(|module| fs::exists(format!("/sys/module/{module}")).unwrap_or(false));
        Self::parse(&Sources {
            cpuinfo: &read("/proc/cpuinfo"),
            meminfo: &read("/proc/meminfo"),
            osrelease: &read("/proc/sys/kernel/osrelease"),
            thp: &read("/sys/kernel/mm/transparent_hugepage/enabled"),
            loadavg: &read("/proc/loadavg"),
            stat: &read("/proc/self/stat"),
            governor: &read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            vulnerabilities: &vulnerabilities(),
            kvm: module.unwrap_or_default(),
        })
    }

    fn parse(sources: &Sources<'_>) -> Self {
        let after_colon = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib: Option<u64> =
            after_colon(sources.meminfo, "MemTotal").and_then(|size| size.split(' ').next()?.parse().ok());
        let thp = sources.thp.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        Self {
            cpu: after_colon(sources.cpuinfo, "model name").unwrap_or_default(),
            kernel: sources.osrelease.trim().to_owned(),
            kvm: sources.kvm.to_owned(),
            cpus: sources.cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            governor: sources.governor.trim().to_owned(),
            mitigations: sources.vulnerabilities.trim_end().replace('\n', ", "),
            memory_mib: kib.unwrap_or_default() / 1024,
            thp: thp.map(|(chosen, _)| chosen.to_owned()).unwrap_or_default(),
            load: sources.loadavg.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
            scheduling: scheduling(sources.stat).unwrap_or_default(),
        }
    }
}

/// A line for each flaw that the kernel knows of and this processor has: `spectre_v2: Retpolines`, without details.
fn vulnerabilities() -> String {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let mut lines: Vec<String> = entries
        .filter_map(|entry| {
            let said = fs::read_to_string(entry.path()).ok()?;
            about(entry.file_name().to_str()?, &said)
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// What the kernel says about a flaw, without details; nothing where the processor does not have it.
fn about(flaw: &str, said: &str) -> Option<String> {
    let words = said.trim().trim_start_matches("Mitigation: ").split(';').next()?;
    (!words.is_empty() && words != "Not affected").then(|| format!("{flaw}: {words}\n"))
}

/// The policy in a process's `stat` line: field 41, where the name, which may hold anything, is the second.
fn scheduling(stat: &str) -> Option<String> {
    let policy = stat.rsplit_once(')')?.1.split_whitespace().nth(41 - 3)?;
    Some(match policy {
        "0" => "other".to_owned(),
        "1" => "fifo".to_owned(),
        "2" => "rr".to_owned(),
        number => number.to_owned(),
    })
}

/// The files that a fingerprint is read from.
#[derive(Default)]
struct Sources<'a> {
    cpuinfo: &'a str,
    meminfo: &'a str,
    osrelease: &'a str,
    thp: &'a str,
    loadavg: &'a str,
    stat: &'a str,
    governor: &'a str,
    vulnerabilities: &'a str,
    kvm: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_from_procfs() {
        let host = Host::parse(&Sources {
            cpuinfo: "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\n\nprocessor\t: 1\nmodel name\t: A CPU @ 3 GHz\n",
            meminfo: "MemTotal:       24684160 kB\nMemFree:         1 kB\n",
            osrelease: "6.18.0\n",
            thp: "always [madvise] never\n",
            loadavg: "0.52 0.58 0.59 1/467 12345\n",
            stat: "7 (a) b) R 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12 13 14 15 16 17 0 0 0 0 0 0 0 17 1 10 1 0 0 0",
            governor: "performance\n",
            vulnerabilities: "retbleed: Vulnerable\nspectre_v2: Retpolines\n",
            kvm: "kvm_amd",
        });
        let expected = Host {
            cpu: "A CPU @ 3 GHz".into(),
            kernel: "6.18.0".into(),
            kvm: "kvm_amd".into(),
            cpus: 2,
            governor: "performance".into(),
            mitigations: "retbleed: Vulnerable, spectre_v2: Retpolines".into(),
            memory_mib: 24105,
            thp: "madvise".into(),
            load: 0.52,
            scheduling: "fifo".into(),
        };
        assert_eq!(host, expected);
    }

    #[test]
    fn a_flaw_that_the_processor_has_is_named_without_details() {
        let said = "Mitigation: Retpolines; STIBP: disabled; RSB filling\n";
        assert_eq!(about("spectre_v2", said).as_deref(), Some("spectre_v2: Retpolines\n"));
        assert_eq!(
            about("spec_store_bypass", "Vulnerable\n").as_deref(),
            Some("spec_store_bypass: Vulnerable\n")
        );
        assert_eq!(about("meltdown", "Not affected\n"), None);
        assert_eq!(about("new", ""), None);
    }

    #[test]
    fn what_is_not_there_is_empty() {
        let nothing = Sources::default();
        assert_eq!(Host::parse(&nothing), Host::default());
    }
}
