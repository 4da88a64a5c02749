//! How a driver reaches a device: virtio over MMIO (virtio 1.2, section 4.2), the modern version 2.

mod mmio;
pub mod registers;
#[cfg(test)]
mod tests;

pub use mmio::{MmioTransport, QueueSetup, TransportState};
