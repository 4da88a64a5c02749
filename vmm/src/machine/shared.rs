//! What the vCPU threads and the event loop share.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use super::control::{Order, RunControl};
use crate::event_loop::Waker;
use crate::outcome::Ending;
use crate::timeline::Timeline;
use crate::vcpu_thread::Program;

/// No status byte has been written.
const NO_STATUS: u16 = u16::MAX;

/// The machine's state that more than one thread touches.
pub struct Shared {
    /// Orders to the vCPU threads.
    pub control: RunControl,
    /// When each phase was reached.
    pub timeline: Arc<Timeline>,
    program: OnceLock<Program>,
    ending: OnceLock<Ending>,
    guest_status: AtomicU16,
    wake: Waker,
}

impl Shared {
    /// `wake` rouses the event loop when the machine ends.
    pub fn new(timeline: Arc<Timeline>, wake: Waker) -> Self {
        Self {
            control: RunControl::default(),
            timeline,
            program: OnceLock::new(),
            ending: OnceLock::new(),
            guest_status: AtomicU16::new(NO_STATUS),
            wake,
        }
    }

    /// Rouses the event loop.
    pub(super) fn waker(&self) -> &Waker {
        &self.wake
    }

    /// What the vCPUs are to run; before the order to run.
    pub(super) fn load(&self, program: Program) {
        // Set once: `Machine::start` gives its program away.
        let _ = self.program.set(program);
    }

    /// What the vCPUs run.
    pub(crate) fn program(&self) -> Option<&Program> {
        self.program.get()
    }

    /// Keeps the guest's status byte; the last one counts.
    pub(crate) fn set_guest_status(&self, status: u8) {
        self.guest_status.store(u16::from(status), Ordering::Relaxed);
    }

    /// Ends the machine; the first ending counts. The event loop is told.
    pub(crate) fn end(&self, mut ending: Ending) {
        ending.guest_status = u8::try_from(self.guest_status.load(Ordering::Relaxed)).ok();
        // A second CPU's ending is a consequence of the first.
        let _ = self.ending.set(ending);
        self.control.give(Order::Stop);
        self.wake.wake();
    }

    /// How the machine ended.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.get().cloned()
    }
}
