//! Virtio 1.2: one transport, one queue, one trait, and a folder for each device.
//!
//! A device in use has two halves. Its registers ([`MmioTransport`]) are on the bus, and are read and written by the vCPU
//! threads. The device itself ([`VirtioDevice`]) is held by a [`Worker`] on the thread of the event loop. Between them
//! is a mailbox: what the driver asks for is posted there, and the loop is roused. So a vCPU thread never waits for a
//! disk, and a device needs no lock.
//!
//! What a driver may get wrong is found in three places: the registers refuse what is out of order, a [`Queue`] refuses
//! rings and chains that are malformed or outside memory, and a device refuses requests that make no sense. All count it; if the device cannot go on,
//! the driver sees DEVICE_NEEDS_RESET.
//!
//! To write a device, read [`rng`] first.

pub mod balloon;
pub mod block;
mod chain;
mod config;
mod device;
pub mod io;
pub mod net;
mod port;
mod queue;
mod reactor;
pub mod rng;
pub mod spec;
pub mod transport;
pub mod vsock;
mod worker;

#[cfg(test)]
use chain::length;
pub use chain::{Chain, Segment, cut};
pub use config::ConfigSpace;
pub use device::{Activation, DeviceError, Identity, Progress, VirtioDevice};
pub use port::{DeviceCounters, Line, Link, Wake};
pub use queue::{Queue, QueueError};
pub use reactor::{Interest, Reactor, TIMER};
pub use spec::DeviceKind;
pub use transport::{MmioTransport, TransportState};
pub use worker::{Served, Worker, connect};
