//! From a device to its place in the machine.

use std::sync::{Arc, Mutex};

use devices::virtio::{MmioTransport, VirtioDevice, Worker, connect};
use devices::{Bus, BusError};

use super::Window;
use crate::event_loop::Waker;
use crate::kvm::{FastLine, KvmError, Signal, Vm};
use crate::memory::GuestRam;

/// A virtio device with its wiring; a [`DeviceHost`](crate::device_host::DeviceHost) serves it.
pub struct Attached {
    /// The device. Before `ram`, which it writes to.
    pub(crate) worker: Worker,
    /// Where it is.
    pub(crate) window: Window,
    vm: Arc<Vm>,
    line: Arc<FastLine>,
    /// Signalled by the guest's notifications, one for each queue, once its driver is there.
    doorbells: Vec<Signal>,
    _ram: Arc<GuestRam>,
}

/// Puts `device` into `window`: its registers on `bus`, its interrupt on the window's line. `waker` rouses the thread that will serve it.
///
/// Nothing is registered with KVM yet. Each registration costs time and memory, and until a driver is there the
/// registers and KVM_IRQ_LINE do: see [`Attached::speed_up`].
pub(super) fn attach(
    device: Box<dyn VirtioDevice>,
    window: Window,
    vm: &Arc<Vm>,
    bus: &mut Bus,
    waker: Waker,
) -> Result<Attached, BusError> {
    let line = Arc::new(FastLine::new(Arc::clone(vm), window.gsi(), None));
    let ram = Arc::clone(vm.ram());
    let (transport, worker) =
        connect(device, ram.memory().clone(), Box::new(Arc::clone(&line)), Box::new(move || waker.wake()));
    bus.insert(window.base(), MmioTransport::SIZE, Arc::new(Mutex::new(transport)))?;
    Ok(Attached { worker, window, vm: Arc::clone(vm), line, doorbells: Vec::new(), _ram: ram })
}

impl Attached {
    /// Lets KVM signal the guest's notifications and take our interrupts without leaving the kernel for long. Returns the doorbells that are new.
    pub(crate) fn speed_up(&mut self) -> Result<&[Signal], KvmError> {
        if !self.doorbells.is_empty() {
            return Ok(&[]);
        }
        self.line.speed_up()?;
        for queue in (0..).take(self.worker.queues()) {
            let doorbell = Signal::new()?;
            self.vm.register_doorbell(&doorbell, self.window.doorbell(), queue)?;
            self.doorbells.push(doorbell);
        }
        Ok(&self.doorbells)
    }
}
