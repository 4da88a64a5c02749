//! Single instructions that ring 3 executes itself.

#![expect(unsafe_code, reason = "instructions that the compiler has no safe form of")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _mm_lfence, _rdtsc, CpuidResult};

/// The time stamp counter, read after all that comes before it.
pub(crate) fn timestamp() -> u64 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_lfence() };
    // SAFETY: CR4.TSD is 0, so ring 3 may read it.
    let now = unsafe { _rdtsc() };
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    now
}

/// How long a device may take to answer, before it counts as one that does not: some ten seconds.
const PATIENCE: u64 = 1 << 35;

/// The limit of a loop that waits for a device.
pub(crate) struct Patience(u64);

impl Patience {
    /// From now on.
    pub(crate) fn new() -> Patience {
        Patience(timestamp())
    }

    /// Whether it has been long enough.
    pub(crate) fn is_over(&self) -> bool {
        timestamp().wrapping_sub(self.0) > PATIENCE
    }
}

/// A CPUID leaf.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// Writes one byte to a port, from ring 3.
pub(crate) fn out(port: u16, value: u8) {
    // SAFETY: IOPL is 3. The ports that this program writes to change no memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// The hypercall instruction of Intel's processors or of AMD's. Returns the hypervisor's answer in RAX.
pub(crate) fn hypercall(amd: bool, number: u64) -> u64 {
    let answer;
    if amd {
        // SAFETY: a hypercall from ring 3 is refused, so nothing changes but RAX.
        unsafe { asm!("vmmcall", inout("rax") number => answer, options(nostack)) };
    } else {
        // SAFETY: as above.
        unsafe { asm!("vmcall", inout("rax") number => answer, options(nostack)) };
    }
    answer
}

/// Tells the processor that this is a loop that waits.
pub(crate) fn relax() {
    core::hint::spin_loop();
}

/// Executes an instruction that is none: #UD.
pub(crate) fn undefined_instruction() {
    // SAFETY: the exception's handler does not return, and until then nothing has changed.
    unsafe { asm!("ud2", options(nomem, nostack)) };
}
