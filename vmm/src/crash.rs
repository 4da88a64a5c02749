//! What to tell the user when the guest cannot go on.

use std::fmt::Write;
use std::io;

use vm_memory::{Bytes, GuestAddress};

use crate::kvm::{CrashSite, Vcpu, Vm, VmExit};
use crate::outcome::{Ending, Outcome};

/// KVM_INTERNAL_ERROR_EMULATION (KVM API, section 5).
const EMULATION_FAILED: u32 = 1;
/// The longest x86 instruction.
const INSTRUCTION_LENGTH: usize = 15;

/// An exit after which the guest cannot go on; [`VmExit`] without its borrow of the vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fatal {
    TripleFault,
    FailedEntry { reason: u64 },
    InternalError { suberror: u32 },
    Unexpected { reason: u32 },
}

impl From<&VmExit<'_>> for Fatal {
    fn from(exit: &VmExit<'_>) -> Self {
        match *exit {
            VmExit::Shutdown => Self::TripleFault,
            VmExit::FailedEntry { reason } => Self::FailedEntry { reason },
            VmExit::InternalError { suberror } => Self::InternalError { suberror },
            VmExit::Unexpected { reason } => Self::Unexpected { reason },
            _ => Self::Unexpected { reason: u32::MAX },
        }
    }
}

/// The ending of a guest that crashed; on `emulator`, if that KVM emulates the guest's kernel.
pub(crate) fn report(fatal: Fatal, vcpu: &Vcpu, vm: &Vm, emulator: Option<&str>) -> Ending {
    let site = vcpu.crash_site();
    let bytes = site.and_then(|site| instruction(&site, vm));
    Ending::new(Outcome::Crash, describe(fatal, site, bytes.as_deref(), emulator))
}

/// The ending of a machine whose KVM_RUN the host refused.
pub(crate) fn run_failed(error: &io::Error) -> Ending {
    let cure = match error.raw_os_error() {
        Some(libc::EFAULT) => {
            "; the host could not provide a page of guest RAM: is its memory, or its pool of huge pages, used up?"
        }
        _ => "",
    };
    Ending::new(Outcome::Error, format!("KVM_RUN failed: {error}{cure}"))
}

fn describe(fatal: Fatal, site: Option<CrashSite>, bytes: Option<&[u8]>, emulator: Option<&str>) -> String {
    let mut text = match fatal {
        Fatal::TripleFault => "the guest crashed: triple fault".to_owned(),
        Fatal::FailedEntry { reason } => {
            format!("the guest crashed: the CPU refused to enter it (hardware reason {reason:#x})")
        }
        Fatal::InternalError { suberror: EMULATION_FAILED } => {
            "the guest crashed: KVM cannot emulate its instruction".to_owned()
        }
        Fatal::InternalError { suberror } => {
            format!("the guest crashed: KVM internal error, suberror {suberror}")
        }
        Fatal::Unexpected { reason } => {
            format!("the guest crashed: KVM left it for a reason that no machine of mote has ({reason})")
        }
    };
    // Writing to a String does not fail.
    if let Some(CrashSite { rip, ring, cr3, .. }) = site {
        let _ = write!(text, " at RIP {rip:#x} (ring {ring}, CR3 {cr3:#x}");
        if let Some(bytes) = bytes {
            let _ = write!(text, ", bytes");
            for byte in bytes {
                let _ = write!(text, " {byte:02x}");
            }
        }
        text.push(')');
    }
    if let (Fatal::InternalError { suberror: EMULATION_FAILED }, Some(backend)) = (fatal, emulator) {
        let _ = write!(
            text,
            "; this host's KVM ({backend}) emulates the guest's kernel code instead of running it, which stock kernels do not survive: use a host with VT-x or AMD-V, or ci/testbed"
        );
    }
    text
}

fn instruction(site: &CrashSite, vm: &Vm) -> Option<Vec<u8>> {
    let mut bytes = vec![0; INSTRUCTION_LENGTH];
    let read = vm.ram().memory().read(&mut bytes, GuestAddress(site.physical_rip?)).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: CrashSite = CrashSite { rip: 0x10_0000, ring: 0, cr3: 0x9000, physical_rip: None };

    #[test]
    fn an_emulating_kvm_is_named_with_the_cure() {
        let fatal = Fatal::InternalError { suberror: EMULATION_FAILED };
        let text = describe(fatal, Some(SITE), Some(&[0xcc, 0x90]), Some("kvm_pvm"));
        assert!(text.contains("RIP 0x100000 (ring 0, CR3 0x9000, bytes cc 90)"), "{text}");
        assert!(text.contains("kvm_pvm") && text.contains("VT-x or AMD-V"), "{text}");
        let text = describe(fatal, Some(SITE), None, None);
        assert!(!text.contains("VT-x"), "{text}");
    }

    #[test]
    fn a_triple_fault_blames_the_guest_alone() {
        let text = describe(Fatal::TripleFault, Some(SITE), None, Some("kvm_pvm"));
        assert_eq!(text, "the guest crashed: triple fault at RIP 0x100000 (ring 0, CR3 0x9000)");
    }
}
