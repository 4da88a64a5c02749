//! The devices that one thread serves, as part of its event loop.

use std::any::Any;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use devices::virtio::{DeviceCounters, DeviceError, Reactor, Served, TIMER, VirtioDevice};

use crate::event_loop::{EventLoop, Interest};
use crate::machine::Attached;

/// Set in the tokens of all descriptors of devices.
const DEVICE: u64 = 1 << 63;
/// Set in the tokens of doorbells: the low half is the queue.
const DOORBELL: u64 = 1 << 62;
/// Where the device's number begins; the low half is the device's own token.
const INDEX_SHIFT: u32 = 32;
const INDEX_MASK: u64 = (1 << 16) - 1;

/// The shortest time between two lines about one device.
const QUIET: Duration = Duration::from_secs(10);

/// Devices, and the event loop that they wait in.
pub struct DeviceHost {
    // Declared first: devices let go of their descriptors before the loop goes.
    hosted: Vec<Hosted>,
    events: EventLoop,
    /// The earliest of all timers; looked for anew when one was set, and not each time the loop turns.
    deadline: Option<Instant>,
    timer_set: Arc<AtomicBool>,
}

struct Hosted {
    device: Attached,
    timer: Timer,
    /// What was said of it, and when it may be spoken of again.
    said: DeviceCounters,
    silent_until: Option<Instant>,
}

impl DeviceHost {
    /// A host for `devices` whose descriptors are waited for by `events`.
    pub fn new(events: EventLoop, devices: Vec<Attached>) -> Self {
        let timer_set = Arc::new(AtomicBool::new(false));
        let hosted = devices.into_iter().map(|device| Hosted {
            device,
            timer: Timer { at: Arc::default(), set: Arc::clone(&timer_set) },
            said: DeviceCounters::default(),
            silent_until: None,
        });
        Self { hosted: hosted.collect(), events, deadline: None, timer_set }
    }

    /// Lets all devices go.
    pub fn clear(&mut self) {
        self.hosted.clear();
    }

    /// Does what drivers have asked for through the registers: to be called after each wake.
    pub fn woken(&mut self) {
        for (index, hosted) in self.hosted.iter_mut().enumerate() {
            let (events, timer) = (&self.events, &hosted.timer);
            let served = hosted
                .device
                .worker
                .serve(|| Box::new(LoopReactor { events: events.clone(), index, timer: timer.clone() }));
            match served {
                Served::Activated => hosted.speed_up(index, events),
                Served::Refused(error) => hosted.refused(&error),
                Served::Nothing | Served::Deactivated => {}
            }
            hosted.report();
        }
    }

    /// Takes the event of `token`, if it is a device's.
    pub fn event(&mut self, token: u64) {
        if token & DEVICE == 0 {
            return;
        }
        let index = (token >> INDEX_SHIFT & INDEX_MASK) as usize;
        // The device's own half.
        let low = token as u32;
        if let Some(hosted) = self.hosted.get_mut(index) {
            if token & DOORBELL != 0 {
                hosted.device.worker.queue_event(low as usize);
            } else {
                hosted.device.worker.backend_event(low);
            }
            hosted.report();
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        if self.timer_set.load(Ordering::Acquire) {
            self.timer_set.store(false, Ordering::Relaxed);
            self.deadline = self.hosted.iter().filter_map(|hosted| *hosted.timer.lock()).min();
        }
        self.deadline
    }

    /// Announces the timers that have expired.
    pub fn expire(&mut self) {
        let mut now = None;
        for hosted in &mut self.hosted {
            let expired = {
                let mut timer = hosted.timer.lock();
                timer.take_if(|at| *at <= *now.get_or_insert_with(Instant::now)).is_some()
            };
            if expired {
                self.timer_set.store(true, Ordering::Relaxed);
                hosted.device.worker.backend_event(TIMER);
                hosted.report();
            }
        }
    }

    /// Changes device `index` of the machine while it works: another disk, other limits. `None` if it is not here, or no `D`.
    pub fn with_device<D: VirtioDevice, R>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut D) -> R,
    ) -> Option<R> {
        let hosted = self.hosted.iter_mut().find(|hosted| hosted.device.window.index() == index)?;
        let device: &mut dyn Any = hosted.device.worker.device();
        device.downcast_mut::<D>().map(change)
    }
}

impl Hosted {
    /// Registers what makes an active device fast. Where the host refuses, the device works all the same.
    fn speed_up(&mut self, index: usize, events: &EventLoop) {
        let name = self.name();
        let added = self.device.speed_up().map_err(|error| crate::error_line(&error)).and_then(|doorbells| {
            for (queue, doorbell) in (0u64..).zip(doorbells) {
                let token = DEVICE | DOORBELL | (index as u64) << INDEX_SHIFT | queue;
                // By edges: the count is never read, and each notification announces itself.
                events.add(doorbell, token, Interest::ReadEdge).map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        if let Err(error) = added {
            log::warn!("{name} is slower than it could be: {error}");
        }
    }

    /// The driver sees that its device does not work; the reason is for the user. A guest that tries again and again is told of once in a while.
    fn refused(&mut self, error: &DeviceError) {
        let now = Instant::now();
        if self.silent_until.is_none_or(|until| now >= until) {
            self.silent_until = now.checked_add(QUIET);
            log::error!("{} does not work: {}", self.name(), crate::error_line(error));
        }
    }

    /// One line for what went wrong since the last one, and not too many of them.
    fn report(&mut self) {
        let counters = self.device.worker.counters();
        if counters == self.said {
            return;
        }
        let now = Instant::now();
        if self.silent_until.is_some_and(|until| now < until) {
            return;
        }
        self.silent_until = now.checked_add(QUIET);
        if counters.faults > self.said.faults {
            log::warn!("the guest misuses {}: {} faults so far", self.name(), counters.faults);
        }
        if counters.undelivered > self.said.undelivered {
            log::error!("{} interrupts of {} were not delivered so far", counters.undelivered, self.name());
        }
        self.said = counters;
    }

    fn name(&self) -> String {
        format!("virtio device {} ({})", self.device.window.index(), self.device.worker.kind().name())
    }
}

/// When a device wants to be called.
#[derive(Clone)]
struct Timer {
    at: Arc<Mutex<Option<Instant>>>,
    /// Something has changed, for this timer or another.
    set: Arc<AtomicBool>,
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event loop, as one device sees it.
struct LoopReactor {
    events: EventLoop,
    index: usize,
    timer: Timer,
}

impl Reactor for LoopReactor {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        let token = DEVICE | (self.index as u64) << INDEX_SHIFT | u64::from(token);
        match self.events.add(fd, token, interest) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.events.modify(fd, token, interest)
            }
            // A file, which is always ready and cannot be waited for.
            Ok(false) => Err(io::ErrorKind::Unsupported.into()),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        // Fails only if nobody waited for it.
        let _ = self.events.remove(fd);
    }

    fn set_timer(&mut self, deadline: Option<Instant>) {
        *self.timer.lock() = deadline;
        self.timer.set.store(true, Ordering::Release);
    }
}
