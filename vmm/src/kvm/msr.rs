//! The model-specific registers that a fresh virtual CPU needs beyond KVM's reset values.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::{KvmError, ioctl};

/// IA32_MISC_ENABLE (SDM vol. 4, table 2-2).
const IA32_MISC_ENABLE: u32 = 0x1a0;
/// Fast `rep movs` and `rep stos`: kernels choose their copy routines by it.
const MISC_ENABLE_FAST_STRING: u64 = 1;
/// IA32_MTRR_DEF_TYPE (SDM vol. 3, section 12.11.2.1).
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, all memory write-back: what firmware leaves behind. Without it Linux takes all RAM for uncached.
const MTRR_ENABLE_WRITE_BACK: u64 = 1 << 11 | 6;

pub(super) fn set_boot_msrs(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let entries = [
        kvm_msr_entry { index: IA32_MISC_ENABLE, data: MISC_ENABLE_FAST_STRING, ..Default::default() },
        kvm_msr_entry { index: IA32_MTRR_DEF_TYPE, data: MTRR_ENABLE_WRITE_BACK, ..Default::default() },
    ];
    let msrs = Msrs::from_entries(&entries).map_err(|_| KvmError::MsrRefused(IA32_MISC_ENABLE))?;
    let accepted = vcpu.set_msrs(&msrs).map_err(ioctl("KVM_SET_MSRS"))?;
    match entries.get(accepted) {
        None => Ok(()),
        Some(refused) => Err(KvmError::MsrRefused(refused.index)),
    }
}
