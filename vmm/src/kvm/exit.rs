//! KVM's exit record, turned into [`VmExit`]: the one place that knows `kvm_run`'s unions.
#![expect(unsafe_code, reason = "kvm_run is a C struct of unions, and its I/O data lies behind it")]

use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_EXIT_MMIO,
    KVM_EXIT_SHUTDOWN, kvm_run,
};

/// Why a virtual CPU came back from KVM_RUN.
#[derive(Debug, PartialEq, Eq)]
pub enum VmExit<'a> {
    /// `in` or `rep ins`: fill `data`, `width` bytes at a time.
    PioIn {
        /// I/O port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        width: usize,
        /// One or more accesses' bytes.
        data: &'a mut [u8],
    },
    /// `out` or `rep outs`.
    PioOut {
        /// I/O port.
        port: u16,
        /// Bytes of one access: 1, 2 or 4.
        width: usize,
        /// One or more accesses' bytes.
        data: &'a [u8],
    },
    /// A load from an address without RAM: fill `data`.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// A store to an address without RAM.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
    /// A kick or another signal: look for orders.
    Interrupted,
    /// A triple fault.
    Shutdown,
    /// The hardware refused to enter the guest.
    FailedEntry {
        /// Intel: the VM-entry failure's exit reason; AMD: the VMCB's exit code.
        reason: u64,
    },
    /// KVM gave up on the guest.
    InternalError {
        /// KVM_INTERNAL_ERROR_*.
        suberror: u32,
    },
    /// A reason that a machine of ours cannot cause.
    Unexpected {
        /// KVM_EXIT_*.
        reason: u32,
    },
}

/// Reads the exit record of a KVM_RUN that returned 0. `mapping_size` is that of the vCPU's mapping.
pub(super) fn decode(run: &mut kvm_run, mapping_size: usize) -> VmExit<'_> {
    match run.exit_reason {
        KVM_EXIT_IO => pio(run, mapping_size),
        KVM_EXIT_MMIO => {
            // SAFETY: exit_reason KVM_EXIT_MMIO says that `mmio` is the union's valid member.
            let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
            let length = (mmio.len as usize).min(mmio.data.len());
            let (address, data) = (mmio.phys_addr, &mut mmio.data[..length]);
            if mmio.is_write != 0 {
                VmExit::MmioWrite { address, data }
            } else {
                VmExit::MmioRead { address, data }
            }
        }
        KVM_EXIT_INTR => VmExit::Interrupted,
        KVM_EXIT_SHUTDOWN => VmExit::Shutdown,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: exit_reason KVM_EXIT_FAIL_ENTRY says that `fail_entry` is the valid member.
            let entry = unsafe { run.__bindgen_anon_1.fail_entry };
            VmExit::FailedEntry { reason: entry.hardware_entry_failure_reason }
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: exit_reason KVM_EXIT_INTERNAL_ERROR says that `internal` is the valid member.
            let internal = unsafe { run.__bindgen_anon_1.internal };
            VmExit::InternalError { suberror: internal.suberror }
        }
        reason => VmExit::Unexpected { reason },
    }
}

fn pio(run: &mut kvm_run, mapping_size: usize) -> VmExit<'_> {
    // SAFETY: exit_reason KVM_EXIT_IO says that `io` is the union's valid member.
    let io = unsafe { run.__bindgen_anon_1.io };
    let width = usize::from(io.size);
    let length = width * io.count as usize;
    let offset = io.data_offset as usize;
    if !matches!(width, 1 | 2 | 4) || offset.saturating_add(length) > mapping_size {
        return VmExit::Unexpected { reason: KVM_EXIT_IO };
    }
    let start = std::ptr::from_mut(run).cast::<u8>();
    // SAFETY: the offset was checked to lie within the mapping that `run` starts.
    let start = unsafe { start.add(offset) };
    // SAFETY: offset + length lies within the mapping (checked); the result borrows `run` mutably, so nothing else
    // touches these bytes before the next KVM_RUN.
    let data = unsafe { std::slice::from_raw_parts_mut(start, length) };
    if u32::from(io.direction) == KVM_EXIT_IO_OUT {
        VmExit::PioOut { port: io.port, width, data }
    } else {
        VmExit::PioIn { port: io.port, width, data }
    }
}
