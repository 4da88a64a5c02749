//! The guest that mote carries: one small ELF file, built from `guest-kernel/program` together with this crate.
//!
//! Any VMM boots it: by the 64-bit entry of the Linux boot protocol (the ELF's entry point) or by PVH (its note). This
//! crate does not load or run the file: `boot` knows how, and `vmm` does it.
//!
//! The kernel command line picks the job. Words the guest does not know are passed over; the first `mode=` counts.
//!
//! | Words | Job |
//! |---|---|
//! | `mode=ready` (default) | say READY, power off |
//! | `mode=idle` | READY, then halt: for ever, or on mote until the power button is pressed |
//! | `mode=spin` | READY, then keep the processor busy for ever |
//! | `mode=echo` | READY, then send back each serial line as `ECHO <line>`, after `n=N` steps of arithmetic (0); the line `exit` ends it |
//! | `mode=exits n=N` | what an exit costs by kind, a wake-up from HLT, and, with a disk, a notification and a read: TSC cycles, least, median, mean |
//! | `mode=touch mb=N` | READY after a write to each page of N MiB (all RAM without `mb=`) |
//! | `mode=cpus`, `mode=mem` | CPUID leaves, memory map |
//! | `mode=tick n=N` | one line for each of N timer interrupts, 100 ms apart |
//! | `mode=flood kb=N` or `mb=N`, `poll=1` | that much text on the serial port; with `poll=1` none of it faster than it takes it |
//! | `mode=blk` | the first virtio disk: `op=read` (default), `write`, `seqread`, `seqwrite`; `depth=1..64` requests at once, of `size=` bytes |
//! | `mode=net` | the first virtio interface: `op=rr` (default), requests that the other end sends back; `op=stream` with `depth=`, `tso=1`; `size=` of a frame |
//! | `mode=vsock port=P` | a stream to that port of the host: `op=echo` (default), messages that the host sends back; `op=stream`; `size=` of a message |
//! | `mode=panic` | report a panic through pvpanic |
//! | `mode=triple`, `mode=fault`, `mode=bad` | triple fault; unhandled exception in ring 3; `int3` in ring 0, which a KVM that emulates ring 0 cannot execute |
//! | `status=N` | with any mode: the byte for mote's debug port 0xf4 before power-off |
//!
//! The three device modes bring drivers of their own, which look at the rings and take no interrupt (`mode=exits` takes the disk's),
//! so that what is measured is the device and the way to it. They do `n=N` operations (1000 by default), or `mb=N`, or as many as start in `ms=N`, and
//! print three lines: how many operations, bytes, errors and notifications (each of them an exit); the time, with rates per
//! second; and what one operation took, least, median and 99th percentile. Devices are found by Linux's own words
//! `virtio_mmio.device=SIZE@ADDRESS:IRQ`, which other VMMs add to the command line, or else where mote puts them.
//!
//! - `mode=blk`: random blocks of 4 KiB, in the order of `seed=N`, or sequential ones of 128 KiB. With `verify=1` each 64-bit
//!   word of the disk is its own index (exclusive-or the seed): reads are checked against that, and what was written is read
//!   back.
//! - `mode=net`: a request is a frame of EtherType 0x88b5; the other end exchanges the addresses and sends it back. A stream
//!   is of frames of EtherType 0x88b6, and ends with a request, so its time includes the way of all its frames. A request that
//!   gets no answer in half a second is sent again, and counted as an error. With `tso=1` frames are TCP segments of up to
//!   64 KiB that the device cuts.
//! - `mode=vsock`: a message of `op=echo` is compared with what comes back if `verify=1`. A stream ends when the host has
//!   taken all of it.
//!
//! Output is lines of `key=value` on COM1. READY is the first of them; on mote a byte on port 0xf5 comes before it. Results
//! open with `mote-guest proto=1`. Trouble is a line `error=REASON detail=DETAIL` or `exception vector=..`, and a status
//! that is not 0: 2 for a wrong command line, 3 where the machine lacks what the job needs, 4 after an exception or panic.

/// The guest's ELF file: static, linked at 1 MiB, one loadable segment that starts with the file and has no part beyond it.
pub static ELF: &[u8] = include_bytes!(env!("MOTE_GUEST_ELF"));

#[cfg(test)]
mod tests;
