//! What the two halves of a device share: its registers, on the vCPU threads, and the device, on the event loop's.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::spec::interrupt;
use super::transport::QueueSetup;
use crate::Trigger;

/// How long a vCPU waits for a device to be reset before it goes on and the driver has to look again.
const RESET_PATIENCE: Duration = Duration::from_secs(1);

/// The interrupt of a device. Which of the two halves raises it makes no difference.
pub type Line = Box<dyn Trigger + Sync>;

/// Rouses the thread that serves the device.
pub type Wake = Box<dyn Fn() + Send + Sync>;

pub(super) struct Port {
    // Wiring.
    line: Line,
    wake: Wake,
    // State.
    mailbox: Mutex<Mailbox>,
    answered: Condvar,
    /// Queues that were notified through the register, one bit each.
    notified: AtomicU64,
    interrupt_status: AtomicU32,
    needs_reset: AtomicBool,
    /// Something is in the mailbox or in `notified`.
    rung: AtomicBool,
    faults: AtomicU64,
    undelivered: AtomicU64,
}

#[derive(Default)]
struct Mailbox {
    order: Option<Order>,
    /// The device has, or will have, something of the guest's.
    busy: bool,
}

/// What the driver asks of the device through its status.
#[derive(Debug)]
pub(super) enum Order {
    /// DRIVER_OK was set.
    Activate(u64, Vec<QueueSetup>),
    /// 0 was written.
    Reset,
}

/// How often something went wrong with a device since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DeviceCounters {
    /// The driver broke the rules.
    pub faults: u64,
    /// The host did not deliver an interrupt.
    pub undelivered: u64,
}

impl Port {
    pub(super) fn new(line: Line, wake: Wake) -> Arc<Self> {
        Arc::new(Self {
            line,
            wake,
            mailbox: Mutex::default(),
            answered: Condvar::new(),
            notified: AtomicU64::new(0),
            interrupt_status: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            faults: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
        })
    }

    /// The driver is ready; the device is told by and by.
    pub(super) fn activate(&self, features: u64, queues: Vec<QueueSetup>) {
        let mut mailbox = self.lock();
        mailbox.busy = true;
        mailbox.order = Some(Order::Activate(features, queues));
        drop(mailbox);
        self.ring();
    }

    /// Whether the device holds nothing of the guest's any more. Waits for that, but not for ever: requests in flight may
    /// take long, and the driver can look again.
    pub(super) fn reset(&self) -> bool {
        let mut mailbox = self.lock();
        if mailbox.busy {
            mailbox.order = Some(Order::Reset);
            drop(mailbox);
            self.ring();
            let waited =
                self.answered.wait_timeout_while(self.lock(), RESET_PATIENCE, |mailbox| mailbox.busy);
            mailbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let done = !mailbox.busy;
        drop(mailbox);
        if done {
            self.clear();
        }
        done
    }

    /// Whether a reset that [`reset`](Self::reset) did not wait for is over.
    pub(super) fn quiet(&self) -> bool {
        let quiet = !self.lock().busy;
        if quiet {
            self.clear();
        }
        quiet
    }

    fn clear(&self) {
        self.interrupt_status.store(0, Ordering::Release);
        self.needs_reset.store(false, Ordering::Release);
        self.notified.store(0, Ordering::Release);
    }

    /// The driver notified `queue`, one of the first [`MAX_QUEUES`](super::MAX_QUEUES).
    pub(super) fn notify(&self, queue: u32) {
        self.notified.fetch_or(1 << queue, Ordering::AcqRel);
        self.ring();
    }

    /// Rouses the device's thread, but not again before it has looked: a driver that notifies a million times costs one.
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Whether anything came since the last call. To be asked before it is taken: what comes later rings anew.
    pub(super) fn answer_ring(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    pub(super) fn take_order(&self) -> Option<Order> {
        self.lock().order.take()
    }

    pub(super) fn take_notified(&self) -> u64 {
        self.notified.swap(0, Ordering::AcqRel)
    }

    /// The device holds nothing of the guest's any more.
    pub(super) fn report_reset(&self) {
        let mut mailbox = self.lock();
        mailbox.busy = mailbox.order.is_some();
        self.answered.notify_all();
    }

    /// The device is gone: nobody is to wait for it.
    pub(super) fn hang_up(&self) {
        let mut mailbox = self.lock();
        mailbox.order = None;
        mailbox.busy = false;
        self.answered.notify_all();
    }

    pub(super) fn interrupt_status(&self) -> u32 {
        self.interrupt_status.load(Ordering::Acquire)
    }

    pub(super) fn set_interrupt_status(&self, bits: u32) {
        self.interrupt_status.store(bits, Ordering::Release);
    }

    pub(super) fn acknowledge(&self, bits: u32) {
        self.interrupt_status.fetch_and(!bits, Ordering::AcqRel);
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn set_needs_reset(&self, needs: bool) {
        self.needs_reset.store(needs, Ordering::Release);
    }

    /// The driver broke the rules, and has to reset the device before it does anything again.
    pub(super) fn fail(&self) {
        self.fault();
        self.require_reset();
    }

    /// The driver has to reset the device before it does anything again.
    pub(super) fn require_reset(&self) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.interrupt(interrupt::CONFIGURATION_CHANGE);
        }
    }

    pub(super) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// The status bit stays until the driver acknowledges it; the interrupt itself is sent each time, because a driver that
    /// acknowledges just now has perhaps looked already.
    pub(super) fn interrupt(&self, bits: u32) {
        self.interrupt_status.fetch_or(bits, Ordering::AcqRel);
        if self.line.trigger().is_err() {
            self.undelivered.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counters(&self) -> DeviceCounters {
        DeviceCounters {
            faults: self.faults.load(Ordering::Relaxed),
            undelivered: self.undelivered.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device's way to its driver.
#[derive(Clone)]
pub struct Link(Arc<Port>);

impl Link {
    pub(super) fn new(port: Arc<Port>) -> Self {
        Self(port)
    }

    /// Buffers were used, and the driver wants to know ([`Queue::needs_interrupt`](super::Queue::needs_interrupt)).
    pub fn used(&self) {
        self.0.interrupt(interrupt::USED_BUFFER);
    }

    /// The configuration space holds something else.
    pub fn config_changed(&self) {
        self.0.interrupt(interrupt::CONFIGURATION_CHANGE);
    }

    /// Looks at `queue` again after the other devices had their turn.
    pub fn look_again(&self, queue: usize) {
        if let Some(queue) = u32::try_from(queue).ok().filter(|&queue| queue < u64::BITS) {
            self.0.notify(queue);
        }
    }

    /// The driver broke a rule that concerns one request; it is counted.
    pub fn fault(&self) {
        self.0.fault();
    }

    /// The driver broke a rule after which the device cannot go on: it is counted, and DEVICE_NEEDS_RESET is set.
    pub fn fail(&self) {
        self.0.fail();
    }

    /// Whether the device has to be reset before it does anything again.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.0.needs_reset()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("counters", &self.0.counters()).finish_non_exhaustive()
    }
}
