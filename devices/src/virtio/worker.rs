//! The half of a device that the event loop's thread has: the device itself, and what the driver asks of it.

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use super::port::{Order, Port};
use super::spec::feature;
use super::transport::{MmioTransport, QueueSetup};
use super::{
    Activation, DeviceCounters, DeviceError, DeviceKind, Line, Link, Progress, Queue, Reactor, VirtioDevice,
    Wake,
};

/// Joins `device` to a transport. The transport goes on a bus; the worker to the thread that serves the device, which
/// calls [`Worker::serve`] after each `wake`. `line` is the device's interrupt.
#[must_use]
pub fn connect(
    device: Box<dyn VirtioDevice>,
    memory: GuestMemoryMmap,
    line: Line,
    wake: Wake,
) -> (MmioTransport, Worker) {
    let identity = device.identity();
    let port = Port::new(line, wake);
    let worker = Worker {
        kind: identity.kind,
        queue_sizes: identity.queue_sizes.clone(),
        port: Arc::clone(&port),
        memory: memory.clone(),
        device,
        life: Life::Inactive,
    };
    (MmioTransport::new(identity, port, memory), worker)
}

/// A device at work.
pub struct Worker {
    // Configuration.
    kind: DeviceKind,
    queue_sizes: Vec<u16>,
    // Wiring.
    port: Arc<Port>,
    memory: GuestMemoryMmap,
    device: Box<dyn VirtioDevice>,
    // State.
    life: Life,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    /// The device has no queues.
    Inactive,
    /// The device has its queues.
    Active,
    /// The device was told to reset, and has requests in flight.
    Resetting,
}

/// What [`Worker::serve`] changed, for the wiring around the device.
#[derive(Debug)]
pub enum Served {
    /// Nothing.
    Nothing,
    /// The device has become active.
    Activated,
    /// The host kept the device from becoming active; the driver sees DEVICE_NEEDS_RESET.
    Refused(DeviceError),
    /// The device is inactive: it has been reset.
    Deactivated,
}

impl Worker {
    /// Does what the driver has asked for through the registers since the last call. `reactor` makes the way to the
    /// event loop for a device that becomes active.
    pub fn serve(&mut self, reactor: impl FnOnce() -> Box<dyn Reactor>) -> Served {
        if !self.port.answer_ring() {
            return Served::Nothing;
        }
        let served = match self.port.take_order() {
            None => Served::Nothing,
            Some(Order::Reset) => self.reset(),
            Some(Order::Activate(features, setups)) => self.activate(features, &setups, reactor()),
        };
        let notified = self.port.take_notified();
        for queue in (0..self.queue_sizes.len()).filter(|queue| notified & (1 << queue) != 0) {
            self.queue_event(queue);
        }
        served
    }

    /// A queue was notified.
    pub fn queue_event(&mut self, queue: usize) {
        if self.life == Life::Active && !self.port.needs_reset() {
            self.device.queue_event(queue);
        }
    }

    /// A descriptor of the device is ready, or its timer has expired.
    pub fn backend_event(&mut self, token: u32) -> Served {
        if self.life != Life::Inactive {
            self.device.backend_event(token);
        }
        if self.life == Life::Resetting { self.reset() } else { Served::Nothing }
    }

    /// The next positions of all queues, in their order, for [`MmioTransport::save`].
    #[must_use]
    pub fn positions(&self) -> Vec<(u16, u16)> {
        self.device.queues().iter().map(Queue::position).collect()
    }

    /// The device's type.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// How many queues the device has.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queue_sizes.len()
    }

    /// What went wrong so far.
    #[must_use]
    pub fn counters(&self) -> DeviceCounters {
        self.port.counters()
    }

    /// The device itself, for changes by the user while it works.
    pub fn device(&mut self) -> &mut dyn VirtioDevice {
        &mut *self.device
    }

    fn activate(&mut self, features: u64, setups: &[QueueSetup], reactor: Box<dyn Reactor>) -> Served {
        let event_idx = features & feature::RING_EVENT_IDX != 0;
        let queues = setups.iter().zip(&self.queue_sizes);
        let queues =
            queues.map(|(setup, &max_size)| Queue::new(setup, max_size, event_idx, self.memory.clone()));
        let Ok(queues) = queues.collect::<Result<Vec<_>, _>>() else {
            self.port.fail();
            return Served::Nothing;
        };
        let link = Link::new(Arc::clone(&self.port));
        let activation = Activation { features, queues, memory: self.memory.clone(), link, reactor };
        self.life = Life::Active;
        if let Err(error) = self.device.activate(activation) {
            self.port.require_reset();
            return Served::Refused(error);
        }
        // What was notified before now is lost: by a driver that is quicker than this thread, or before a snapshot.
        for queue in 0..self.queue_sizes.len() {
            self.queue_event(queue);
        }
        Served::Activated
    }

    fn reset(&mut self) -> Served {
        let was_active = self.life != Life::Inactive;
        if was_active && self.device.reset() == Progress::Draining {
            self.life = Life::Resetting;
            return Served::Nothing;
        }
        self.life = Life::Inactive;
        self.port.report_reset();
        if was_active { Served::Deactivated } else { Served::Nothing }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.port.hang_up();
    }
}
