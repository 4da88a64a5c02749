//! The guest program's virtio drivers, compiled for the host. Rings and buffers are real memory; the registers, and the
//! device behind them, are the test's.

#![expect(dead_code, reason = "the tests use a part of each module")]

#[path = "../../program/src/cpu.rs"]
mod cpu;
#[path = "../../program/src/dma.rs"]
mod dma;
#[path = "../../program/src/modes/frames.rs"]
mod frames;
#[path = "../../program/src/options.rs"]
mod options;

#[path = "../../program/src/virtio"]
mod virtio {
    pub(crate) mod blk;
    pub(crate) mod failure;
    pub(crate) mod mmio;
    pub(crate) mod net;
    pub(crate) mod packet;
    pub(crate) mod queue;
    pub(crate) mod vsock;
}

mod device;
mod disk;
mod interface;
mod memory;
mod rings;
mod socket;
mod transport;

const BASE: u64 = 0xd000_0000;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const NOTIFY: u64 = 0x050;

/// 1 MiB for rings and buffers, never freed.
fn arena() -> dma::Arena {
    dma::Arena::new(Box::leak(vec![0; 1 << 17].into_boxed_slice()))
}
