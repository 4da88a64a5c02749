//! What the vCPU threads and the event loop share.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use jailer::seccomp::{Filters, InstallError, Thread};

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
    /// What the machine's threads may ask of the kernel; `None`: everything.
    filters: Option<Filters>,
    program: OnceLock<Program>,
    ending: OnceLock<Ending>,
    /// The KVM that emulates the guest's kernel, where this host has such a one.
    emulator: OnceLock<&'static str>,
    guest_status: AtomicU16,
    wake: Waker,
}

impl Shared {
    /// `wake` rouses the event loop when the machine ends; `filters` are its threads' system calls, all of
    /// them where it is `None`.
    pub fn new(timeline: Arc<Timeline>, wake: Waker, filters: Option<Filters>) -> Self {
        Self {
            control: RunControl::default(),
            timeline,
            filters,
            program: OnceLock::new(),
            ending: OnceLock::new(),
            emulator: OnceLock::new(),
            guest_status: AtomicU16::new(NO_STATUS),
            wake,
        }
    }

    /// Leaves the calling thread only the system calls of a `thread`, if the machine has filters.
    pub(crate) fn confine(&self, thread: Thread) -> Result<(), InstallError> {
        self.filters.as_ref().map_or(Ok(()), |filters| filters.install(thread))
    }

    /// Whether threads will be confined, and not be able to make an io_uring any more.
    pub(super) fn confines(&self) -> bool {
        self.filters.is_some()
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

    /// Looks at the host for what a report about a crash may have to say: a confined thread cannot.
    pub(super) fn learn_host(&self) {
        if let Some(backend) = crate::host::emulating_backend() {
            let _ = self.emulator.set(backend);
        }
    }

    /// The KVM that emulates the guest's kernel, where this host has such a one.
    pub(crate) fn emulator(&self) -> Option<&'static str> {
        self.emulator.get().copied()
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
