//! Every KVM ioctl that mote issues.
//!
//! The rest of the crate speaks of machines, virtual CPUs and [`VmExit`]s; only this folder knows file
//! descriptors, `kvm_run` and the ioctl numbers. `unsafe` lives here and in `memory.rs`.
//!
//! The order of the calls is part of the product: see [`vm::Vm`].

mod cpuid;
mod exit;
mod kick;
mod line;
mod msr;
mod regs;
mod signal;
mod vcpu;
mod vm;

pub use exit::VmExit;
pub use kick::install_kick_handler;
pub use kick::{Kickable, kick};
pub use line::{FastLine, IrqLine};
pub use signal::Signal;
pub use vcpu::{CrashSite, Vcpu};
pub use vm::Vm;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;

/// The only KVM API version there has been since Linux 2.6.22; the KVM API document tells users to refuse others.
const API_VERSION: i32 = 12;

/// A failure of the host's KVM.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` does not exist.
    #[error(
        "/dev/kvm does not exist: load the KVM module (modprobe kvm_intel or kvm_amd), switch on VT-x or AMD-V in the firmware, or expose nested virtualisation to this host"
    )]
    Absent,
    /// `/dev/kvm` may not be opened by this user.
    #[error(
        "no permission to open /dev/kvm: add this user to the group that owns it (usermod -aG kvm USER, then log in again) or run as root"
    )]
    Denied,
    /// `/dev/kvm` could not be opened for another reason.
    #[error("cannot open /dev/kvm")]
    Open(#[source] std::io::Error),
    /// The KVM API is not the one that all KVMs since 2007 have.
    #[error("/dev/kvm speaks KVM API version {0}, mote needs 12: is it really KVM?")]
    ApiVersion(i32),
    /// An ioctl failed.
    #[error("{call} failed{detail}")]
    Ioctl {
        /// The ioctl's name in the KVM API document.
        call: &'static str,
        /// What it was called for; empty or starting with a space.
        detail: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// More virtual CPUs than the host's KVM supports.
    #[error("{asked} vCPUs asked for, this host's KVM allows {allowed}: lower --cpus")]
    TooManyVcpus {
        /// The configured number.
        asked: u8,
        /// KVM_CAP_MAX_VCPUS.
        allowed: usize,
    },
    /// The kernel accepted only some of the MSRs.
    #[error("KVM_SET_MSRS refused MSR {0:#x}")]
    MsrRefused(u32),
}

/// Wraps an ioctl's failure with the name it has in the KVM API document.
fn ioctl(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Ioctl {
        call,
        detail: String::new(),
        source: std::io::Error::from_raw_os_error(error.errno()),
    }
}

/// Opens `/dev/kvm` and checks its version.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::Absent,
        libc::EACCES | libc::EPERM => KvmError::Denied,
        other => KvmError::Open(std::io::Error::from_raw_os_error(other)),
    })?;
    match kvm.get_api_version() {
        API_VERSION => Ok(kvm),
        other => Err(KvmError::ApiVersion(other)),
    }
}

/// What CPUID can tell a guest on this host. One of the slower calls, and one that needs no machine.
pub fn supported_cpuid(kvm: &Kvm) -> Result<CpuId, KvmError> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(ioctl("KVM_GET_SUPPORTED_CPUID"))
}

/// Makes sure that KVM gives a machine that many virtual CPUs.
pub fn check_vcpus(kvm: &Kvm, asked: u8) -> Result<(), KvmError> {
    match kvm.get_max_vcpus() {
        allowed if allowed >= usize::from(asked) => Ok(()),
        allowed => Err(KvmError::TooManyVcpus { asked, allowed }),
    }
}
