use super::*;
use proptest::prelude::*;

fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        index,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
        ..Default::default()
    }
}

/// A host of either make that supports every bit of every leaf.
fn supported(intel: bool) -> CpuId {
    let mut entries: Vec<_> = [
        FEATURES,
        CACHES_INTEL,
        PERFORMANCE_MONITORING,
        TOPOLOGY,
        TOPOLOGY_V2,
        AMD_FEATURES,
        AMD_CORES,
        CACHES_AMD,
        AMD_TOPOLOGY,
        AMD_PERFORMANCE_MONITORING,
    ]
    .map(|function| entry(function, 0))
    .to_vec();
    let vendor = if intel { *b"Genu" } else { *b"Auth" };
    entries.push(kvm_cpuid_entry2 {
        function: VENDOR,
        eax: 0xd,
        ebx: u32::from_le_bytes(vendor),
        ..Default::default()
    });
    entries.push(kvm_cpuid_entry2 { function: HYPERVISOR, eax: 0x4000_0001, ..Default::default() });
    CpuId::from_entries(&entries).unwrap()
}

fn leaf(cpuid: &CpuId, function: u32, index: u32) -> Option<kvm_cpuid_entry2> {
    let found: Vec<_> =
        cpuid.as_slice().iter().filter(|e| e.function == function && e.index == index).copied().collect();
    assert!(found.len() <= 1, "leaf {function:#x} is there twice");
    found.first().copied()
}

#[test]
fn an_intel_guest_reads_its_clock_from_three_leaves() {
    let cpuid = for_vcpu(&supported(true), Position { id: 0, cpus: 1 }, Some(2_600_000));
    let crystal = leaf(&cpuid, TSC_CRYSTAL, 0).unwrap();
    let hz = u64::from(crystal.ecx) * u64::from(crystal.ebx) / u64::from(crystal.eax);
    assert_eq!(hz, 2_600_000_000);
    assert!(leaf(&cpuid, VENDOR, 0).unwrap().eax >= TSC_CRYSTAL);
    assert_eq!(leaf(&cpuid, HYPERVISOR_FREQUENCIES, 0).unwrap().eax, 2_600_000);
    assert_eq!(leaf(&cpuid, HYPERVISOR, 0).unwrap().eax, HYPERVISOR_FREQUENCIES);
}

#[test]
fn a_guest_without_a_known_clock_is_told_nothing_of_it() {
    let cpuid = for_vcpu(&supported(true), Position { id: 0, cpus: 1 }, None);
    assert!(leaf(&cpuid, TSC_CRYSTAL, 0).is_none());
    assert!(leaf(&cpuid, HYPERVISOR_FREQUENCIES, 0).is_none());
}

#[test]
fn there_are_no_performance_counters() {
    let cpuid = for_vcpu(&supported(false), Position { id: 0, cpus: 1 }, None);
    for function in [PERFORMANCE_MONITORING, AMD_PERFORMANCE_MONITORING] {
        let leaf = leaf(&cpuid, function, 0).unwrap();
        assert_eq!((leaf.eax, leaf.ebx, leaf.ecx, leaf.edx), (0, 0, 0, 0));
    }
}

proptest! {
    /// SDM vol. 2, CPUID leaf 0BH: "EAX[4:0]: the number of bits to shift right on the x2APIC ID to get a unique
    /// topology ID of the next level type"; every vCPU of a machine lies in one package under its own id.
    #[test]
    fn the_topology_adds_up(cpus in 1u8..=32, id in 0u8..32, intel: bool) {
        prop_assume!(id < cpus);
        let cpuid = for_vcpu(&supported(intel), Position { id, cpus }, Some(1));
        let core = leaf(&cpuid, TOPOLOGY, 1).unwrap();
        prop_assert_eq!(core.edx, u32::from(id));
        prop_assert_eq!(core.edx >> core.eax, 0, "one package");
        prop_assert_eq!(core.ebx, u32::from(cpus));
        let features = leaf(&cpuid, FEATURES, 0).unwrap();
        prop_assert_eq!(features.ebx >> 24, u32::from(id));
        prop_assert_eq!(features.ebx >> 16 & 0xff, u32::from(cpus));
        prop_assert_eq!(features.edx & HTT != 0, cpus > 1);
        let cores = leaf(&cpuid, AMD_CORES, 0).unwrap();
        prop_assert_eq!(cores.ecx & 0xff, u32::from(cpus) - 1);
        prop_assert!(1u32 << (cores.ecx >> 12 & 0xf) >= u32::from(cpus));
        prop_assert!(leaf(&cpuid, TOPOLOGY_V2, 0).is_none());
    }
}
