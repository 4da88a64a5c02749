//! Drivers for virtio devices behind the MMIO transport (virtio 1.2). They never wait for an interrupt: they look at the
//! used rings, which costs no exit, so what is measured is the device and the way to it.

pub(crate) mod blk;
pub(crate) mod failure;
pub(crate) mod mmio;
pub(crate) mod net;
pub(crate) mod packet;
pub(crate) mod queue;
pub(crate) mod vsock;
