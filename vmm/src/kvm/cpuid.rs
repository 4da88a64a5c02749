//! What CPUID tells a guest: what KVM supports, plus this machine's topology and its clock.
//!
//! A guest that can read its TSC's and its local APIC's frequency does not calibrate them, which takes tens of
//! milliseconds and another timer that mote does not have.

use std::arch::x86_64::__cpuid;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 0: highest basic leaf, vendor.
const VENDOR: u32 = 0x0;
/// Leaf 1: features, initial APIC id, logical processor count.
const FEATURES: u32 = 0x1;
/// Leaf 4: Intel's cache topology.
const CACHES_INTEL: u32 = 0x4;
/// Leaf 0xA: architectural performance monitoring.
const PERFORMANCE_MONITORING: u32 = 0xa;
/// Leaf 0xB: extended topology.
const TOPOLOGY: u32 = 0xb;
/// Leaf 0x15: TSC against the core crystal clock.
const TSC_CRYSTAL: u32 = 0x15;
/// Leaf 0x1F: extended topology, second version; leaf 0xB says all there is to say.
const TOPOLOGY_V2: u32 = 0x1f;
/// Highest hypervisor leaf, signature "KVMKVMKVM".
const HYPERVISOR: u32 = 0x4000_0000;
/// Hypervisor leaf with the frequencies (VMware's, taken over by KVM guests and FreeBSD).
const HYPERVISOR_FREQUENCIES: u32 = 0x4000_0010;
/// AMD: extended features.
const AMD_FEATURES: u32 = 0x8000_0001;
/// AMD: number of cores in ECX.
const AMD_CORES: u32 = 0x8000_0008;
/// AMD: cache topology.
const CACHES_AMD: u32 = 0x8000_001d;
/// AMD: APIC id, core and node.
const AMD_TOPOLOGY: u32 = 0x8000_001e;
/// AMD: performance monitoring, version 2.
const AMD_PERFORMANCE_MONITORING: u32 = 0x8000_0022;

/// Leaf 1 ECX: MONITOR/MWAIT; KVM would exit on each.
const MONITOR: u32 = 1 << 3;
/// Leaf 1 ECX: perfmon and debug capability MSR, which goes with leaf 0xA.
const PDCM: u32 = 1 << 15;
/// Leaf 1 ECX: the local APIC timer has TSC-deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: a hypervisor is there.
const HYPERVISOR_PRESENT: u32 = 1 << 31;
/// Leaf 1 EDX: EBX[23:16] counts logical processors.
const HTT: u32 = 1 << 28;
/// AMD_FEATURES ECX: cores are counted the old way; to be set with more than one.
const CMP_LEGACY: u32 = 1 << 1;
/// AMD_FEATURES ECX: core and north-bridge performance counters.
const AMD_PERF_COUNTERS: u32 = 1 << 23 | 1 << 24;

/// KVM's local APIC timer counts nanoseconds: its bus runs at 1 GHz.
const APIC_BUS_HZ: u32 = 1_000_000_000;

/// Which virtual CPU of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) id: u8,
    pub(super) cpus: u8,
}

impl Position {
    /// Bits that an APIC id needs.
    fn id_bits(self) -> u32 {
        u32::from(self.cpus.max(1)).next_power_of_two().trailing_zeros()
    }
}

/// Whether the host's CPU is Intel's (or its twin's): only VT-x needs KVM_SET_TSS_ADDR.
pub(super) fn host_is_intel() -> bool {
    __cpuid(VENDOR).ebx == u32::from_le_bytes(*b"Genu")
}

/// The CPUID table of one virtual CPU.
pub(super) fn for_vcpu(supported: &CpuId, position: Position, tsc_khz: Option<u32>) -> CpuId {
    let mut entries: Vec<kvm_cpuid_entry2> = Vec::with_capacity(supported.as_slice().len() + 4);
    entries.extend(supported.as_slice().iter().filter(|entry| {
        !matches!(entry.function, TOPOLOGY | TOPOLOGY_V2 | TSC_CRYSTAL | HYPERVISOR_FREQUENCIES)
    }));
    let intel = entries.iter().any(|e| e.function == VENDOR && e.ebx == u32::from_le_bytes(*b"Genu"));
    for entry in &mut entries {
        adapt(entry, position, intel && tsc_khz.is_some());
    }
    entries.extend(topology(position));
    if let Some(khz) = tsc_khz {
        entries.push(kvm_cpuid_entry2 {
            function: HYPERVISOR_FREQUENCIES,
            eax: khz,
            ebx: APIC_BUS_HZ / 1000,
            ..Default::default()
        });
        if intel {
            // TSC frequency = crystal * EBX / EAX (SDM vol. 2, CPUID): with the APIC's bus as the crystal, which
            // Linux also takes for its timer's frequency.
            entries.push(kvm_cpuid_entry2 {
                function: TSC_CRYSTAL,
                eax: APIC_BUS_HZ / 1000,
                ebx: khz,
                ecx: APIC_BUS_HZ,
                ..Default::default()
            });
        }
    }
    // KVM sorts nothing and looks entries up by function and index, but a table in order reads better in dumps.
    entries.sort_by_key(|entry| (entry.function, entry.index));
    CpuId::from_entries(&entries).unwrap_or_else(|_| supported.clone())
}

fn adapt(entry: &mut kvm_cpuid_entry2, Position { id, cpus }: Position, crystal: bool) {
    let apic_id = u32::from(id);
    let others = u32::from(cpus) - 1;
    match entry.function {
        VENDOR => entry.eax = entry.eax.max(if crystal { TSC_CRYSTAL } else { TOPOLOGY }),
        FEATURES => {
            entry.ebx = entry.ebx & 0x0000_ffff | u32::from(cpus) << 16 | apic_id << 24;
            entry.ecx = entry.ecx & !(MONITOR | PDCM) | TSC_DEADLINE | HYPERVISOR_PRESENT;
            entry.edx = if cpus > 1 { entry.edx | HTT } else { entry.edx & !HTT };
        }
        CACHES_INTEL => {
            let level = entry.eax >> 5 & 0x7;
            let sharing = if level >= 3 { others } else { 0 };
            entry.eax = entry.eax & 0x0000_3fff | sharing << 14 | others << 26;
        }
        CACHES_AMD => {
            let level = entry.eax >> 5 & 0x7;
            let sharing = if level >= 3 { others } else { 0 };
            entry.eax = entry.eax & 0x0000_3fff | sharing << 14;
        }
        PERFORMANCE_MONITORING | AMD_PERFORMANCE_MONITORING => {
            // No performance counters: emulating them costs the host, and probing them costs the guest.
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        HYPERVISOR => entry.eax = entry.eax.max(HYPERVISOR_FREQUENCIES),
        AMD_FEATURES => {
            entry.ecx &= !(AMD_PERF_COUNTERS | CMP_LEGACY);
            if cpus > 1 {
                entry.ecx |= CMP_LEGACY;
            }
        }
        AMD_CORES => {
            let id_bits = Position { id, cpus }.id_bits();
            entry.ecx = entry.ecx & !0xf0ff | others | id_bits << 12;
        }
        AMD_TOPOLOGY => {
            entry.eax = apic_id;
            // One thread a core, one node.
            (entry.ebx, entry.ecx) = (apic_id, 0);
        }
        _ => {}
    }
}

/// Leaf 0xB (SDM vol. 2, CPUID): one thread a core, all cores in one package.
fn topology(position: Position) -> [kvm_cpuid_entry2; 3] {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let level = |index: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind | index,
        edx: u32::from(position.id),
        ..Default::default()
    };
    [level(0, 0, 1, THREAD), level(1, position.id_bits(), u32::from(position.cpus), CORE), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests;
