//! The ways an interrupt enters the machine.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::{KvmError, Signal, Vm};
use crate::event_loop::Waker;

/// One input of the interrupt controller. No descriptor: KVM_IRQ_LINE needs none, and costs no registration.
#[derive(Clone)]
pub struct IrqLine {
    vm: Arc<Vm>,
    gsi: u32,
}

impl IrqLine {
    /// The line of global system interrupt `gsi`.
    pub fn new(vm: Arc<Vm>, gsi: u32) -> Self {
        Self { vm, gsi }
    }
}

impl devices::Trigger for IrqLine {
    /// An edge: all interrupts of mote's own devices are edge-triggered.
    fn trigger(&self) -> io::Result<()> {
        for level in [true, false] {
            self.vm.set_irq_line(self.gsi, level)?;
        }
        Ok(())
    }
}

/// An input that may be pulsed often: then by an irqfd, which takes one system call instead of two, and lets pulses that come
/// close together become one.
///
/// Not from the beginning: a registration takes time and memory, and many devices are never used.
pub struct FastLine {
    line: IrqLine,
    irqfd: OnceLock<Signal>,
    pulses: AtomicU32,
    busy: Option<Waker>,
}

/// After so many pulses a line is a busy one.
const BUSY: u32 = 64;

impl FastLine {
    /// The line of global system interrupt `gsi`. `busy` is roused when it has become a busy one, to
    /// [speed it up](Self::speed_up_if_busy): whoever pulses it, a virtual CPU for one, may not be able to.
    pub fn new(vm: Arc<Vm>, gsi: u32, busy: Option<Waker>) -> Self {
        Self { line: IrqLine::new(vm, gsi), irqfd: OnceLock::new(), pulses: AtomicU32::new(0), busy }
    }

    /// Registers the irqfd, if there is none yet.
    pub fn speed_up(&self) -> Result<(), KvmError> {
        if self.irqfd.get().is_none() {
            let irqfd = Signal::new()?;
            self.line.vm.register_irqfd(&irqfd, self.line.gsi)?;
            // Another thread's, where two were at it, does as well.
            let _ = self.irqfd.set(irqfd);
        }
        Ok(())
    }

    /// The same, if it has been pulsed often.
    pub fn speed_up_if_busy(&self) {
        if self.pulses.load(Ordering::Relaxed) > BUSY {
            // Where the host refuses, the line goes on as it is, and is a busy one again some time.
            self.pulses.store(0, Ordering::Relaxed);
            let _ = self.speed_up();
        }
    }
}

impl devices::Trigger for FastLine {
    fn trigger(&self) -> io::Result<()> {
        if let Some(irqfd) = self.irqfd.get() {
            return irqfd.send();
        }
        if self.pulses.fetch_add(1, Ordering::Relaxed) == BUSY {
            self.busy.as_ref().inspect(|waker| waker.wake());
        }
        self.line.trigger()
    }
}
