//! What every virtio device is: a few facts, and the reactions to a handful of events.

use std::any::Any;

use thiserror::Error;
use vm_memory::GuestMemoryMmap;

use super::{ConfigSpace, DeviceKind, Link, Queue, Reactor};

/// A virtio device behind any transport.
///
/// The transport owns status, features, queue set-up, interrupt status and configuration space; what is left is the
/// device. All its methods are called by one thread, that of the event loop, and none may wait for anything.
///
/// The order of a life: [`identity`](Self::identity) once, before the guest runs. [`activate`](Self::activate) when
/// the driver sets DRIVER_OK; from then on [`queue_event`](Self::queue_event) and
/// [`backend_event`](Self::backend_event) in any order. [`reset`](Self::reset) when the driver writes 0 to the
/// status; after it is done the device may be activated again. To save a device: pause the machine, then read
/// [`queues`](Self::queues); a restored device is activated with queues at the saved positions.
pub trait VirtioDevice: Any + Send {
    /// What the device is. The same at every call.
    fn identity(&self) -> Identity;

    /// The driver is ready: the device has its queues from here to [`reset`](Self::reset).
    ///
    /// # Errors
    /// When the host refuses what the device needs. The driver then sees DEVICE_NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError>;

    /// The driver says that there are new buffers in `queue`. It may say so falsely, and as often as it likes. Each
    /// queue is announced once after [`activate`](Self::activate), because the driver may have notified it before.
    fn queue_event(&mut self, queue: usize);

    /// A descriptor that the device watches is ready, or its [timer](super::TIMER) has expired. May come falsely.
    fn backend_event(&mut self, token: u32);

    /// Lets go of queues and memory. While requests are in flight that is not possible: then the device accepts no
    /// more, answers [`Progress::Draining`], and is asked again after each backend event.
    fn reset(&mut self) -> Progress;

    /// The queues it was activated with; none while it is not active.
    fn queues(&self) -> &[Queue];
}

/// Whether a reset is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// The device holds nothing of the guest's any more.
    Done,
    /// The host still works on the guest's memory.
    Draining,
}

/// What a device is, for the transport.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its type.
    pub kind: DeviceKind,
    /// Feature bits of this device type; the transport adds its own.
    pub features: u64,
    /// The largest size of each queue: a power of two each.
    pub queue_sizes: Vec<u16>,
    /// Its configuration space; the device keeps a handle and may change what it holds.
    pub config: ConfigSpace,
}

/// What a device is given when its driver is ready.
pub struct Activation {
    /// The negotiated feature bits.
    pub features: u64,
    /// One for each of [`Identity::queue_sizes`]; those that the driver did not set up never hold a buffer.
    pub queues: Vec<Queue>,
    /// The guest's memory.
    pub memory: GuestMemoryMmap,
    /// The way back to the driver.
    pub link: Link,
    /// The way to the event loop.
    pub reactor: Box<dyn Reactor>,
}

/// The host keeps a device from working.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct DeviceError {
    /// What the device could not do, and what may help.
    pub what: String,
    /// The host's answer.
    #[source]
    pub source: std::io::Error,
}
