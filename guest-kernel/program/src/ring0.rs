//! Ring 0 (entry.s) as the rest of the program sees it: the services that `hlt` in ring 3 asks for, the page table
//! roots, and the report that every unexpected exception ends in.

#![expect(unsafe_code, reason = "the border to the assembler part: symbols, calls and entry points")]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::boot_info::{BootInfo, Protocol};

global_asm!(include_str!("entry.s"));
global_asm!(include_str!("runtime.s"));

unsafe extern "C" {
    fn ring0_call();
    static interrupts: AtomicU32;
    static pdpt: [AtomicU64; 512];
    static image_end: u8;
}

/// What entry.s says in its own way where it can.
const READY: &[u8] = b"READY\n";

/// The services, in the order of entry.s.
#[derive(Clone, Copy)]
enum Service {
    Ready = 0,
    Write = 1,
    WritePolled = 2,
    Read = 3,
    Wait = 4,
    TripleFault = 5,
    Breakpoint = 6,
}

/// Calls a service: `port` in DX, `bytes` in RSI and RCX, `argument` in R8. Returns AL.
fn call(service: Service, port: u16, bytes: &[u8], argument: u32) -> u8 {
    let result: u32;
    // SAFETY: the services read `bytes` and device registers, write no memory but ring 0's own, and spoil only the
    // registers listed. `call` is the assembler's own: it takes no part in the compiler's calling convention.
    unsafe {
        asm!(
            "call {ring0_call}",
            ring0_call = sym ring0_call,
            inout("eax") service as u32 => result,
            inout("edx") u32::from(port) => _,
            inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _,
            in("r8d") argument,
        );
    }
    result.to_le_bytes()[0]
}

/// Writes READY to `port`; with `mark`, the ready mark goes to mote's debug port first, all in one call.
pub(crate) fn ready(port: u16, mark: bool) {
    call(Service::Ready, port, READY, u32::from(mark));
}

/// Writes each byte to `port`.
pub(crate) fn write(port: u16, bytes: &[u8]) {
    call(Service::Write, port, bytes, 0);
}

/// Writes to COM1, each byte when the transmitter is free for it.
pub(crate) fn write_polled(bytes: &[u8]) {
    if !bytes.is_empty() {
        call(Service::WritePolled, 0, bytes, 0);
    }
}

/// Reads one byte from `port`.
pub(crate) fn read(port: u16) -> u8 {
    call(Service::Read, port, &[], 0)
}

/// The number of interrupts taken so far.
pub(crate) fn interrupt_count() -> u32 {
    // SAFETY: a word of entry.s, there as long as the program, and written by whole 32-bit instructions only.
    let counter = unsafe { &interrupts };
    counter.load(Ordering::Acquire)
}

/// Halts until an interrupt comes, or at once if one has come since `seen` was read from [`interrupt_count`].
pub(crate) fn wait(seen: u32) {
    // ECX carries the number: the length of a slice that nobody reads would be wrong, so this call has its own block.
    // SAFETY: the service reads a register and the counter, and spoils nothing else.
    unsafe {
        asm!(
            "call {ring0_call}",
            ring0_call = sym ring0_call,
            in("eax") Service::Wait as u32,
            in("ecx") seen,
        );
    }
}

/// Ends the machine by a triple fault.
pub(crate) fn triple_fault() -> ! {
    loop {
        call(Service::TripleFault, 0, &[], 0);
    }
}

/// Executes `int3` in ring 0. Returns only if something skips it.
pub(crate) fn breakpoint() {
    call(Service::Breakpoint, 0, &[], 0);
}

/// The first address past this program, page tables included.
pub(crate) fn program_end() -> u64 {
    (&raw const image_end).addr() as u64
}

/// The page directory pointers: one entry per GiB.
pub(crate) fn directory_pointers() -> &'static [AtomicU64; 512] {
    // SAFETY: one page of entry.s, there as long as the program, and accessed as atomic words only.
    unsafe { &pdpt }
}

/// Where `iretq` goes first. `protocol` is 0 for Linux's and 1 for PVH, `ready` not 0 when entry.s has said READY; the
/// others are the addresses of the protocol's parameters, the command line and the ACPI root pointer.
#[unsafe(no_mangle)]
extern "C" fn guest_main(protocol: u64, parameters: u64, ready: u64, command_line: u64, rsdp: u64) -> ! {
    let protocol = if protocol == 0 { Protocol::Linux } else { Protocol::Pvh };
    crate::run(BootInfo { protocol, parameters, command_line, rsdp, said_ready: ready != 0 })
}

/// Where the exception handlers' `iretq` goes.
#[unsafe(no_mangle)]
extern "C" fn exception_report(vector: u64, error: u64, rip: u64, cs: u64, cr2: u64) -> ! {
    crate::report::exception(&crate::report::Exception { vector, error, rip, cs, cr2 })
}
