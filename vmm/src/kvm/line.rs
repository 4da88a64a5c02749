//! The ways an interrupt enters the machine.

use std::io;
use std::sync::{Arc, OnceLock};

use super::{KvmError, Signal, Vm};

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

/// An input that is pulsed often: once its driver is there, by an irqfd, which takes one system call instead of two.
///
/// Not from the beginning: a registration takes time and memory, and many devices are never used.
pub struct FastLine {
    line: IrqLine,
    irqfd: OnceLock<Signal>,
}

impl FastLine {
    /// The line of global system interrupt `gsi`.
    pub fn new(vm: Arc<Vm>, gsi: u32) -> Self {
        Self { line: IrqLine::new(vm, gsi), irqfd: OnceLock::new() }
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
}

impl devices::Trigger for FastLine {
    fn trigger(&self) -> io::Result<()> {
        match self.irqfd.get() {
            Some(irqfd) => irqfd.send(),
            None => self.line.trigger(),
        }
    }
}
