//! The devices of a mote machine, as pure state machines.
//!
//! A device turns reads and writes of its registers into changes of its own state and an [`Action`] for
//! the machine. A [`Bus`] maps addresses to devices; there is one for port I/O and one for memory-mapped I/O.
//! An interrupt leaves a device through a [`Trigger`], the only thing it knows of the machine around it.
//!
//! The neighbours: `vmm` gives a device its wiring, calls the bus from the vCPU threads and carries out the
//! actions; `boot` tells the guest where the devices are. Neither is imported here.
//!
//! What this crate refuses to do: it starts no thread, knows neither KVM nor any guest address, and never logs; it
//! holds no unsafe code but in [`virtio::io`]. Nothing that a guest writes makes it panic or grow: proptests replay
//! arbitrary accesses against every device.
//!
//! Every device saves its guest-visible state as a versioned type of its own and restores it from there;
//! restoring validates, because the state may come from a file.

pub mod bus;
pub mod device;
pub mod legacy;
pub mod rate_limiter;
pub mod state;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod trigger;
pub mod virtio;

pub use bus::{Bus, BusCounters, BusError};
pub use device::{Action, ByteDevice, Device, IoError};
pub use state::RestoreError;
pub use trigger::Trigger;
