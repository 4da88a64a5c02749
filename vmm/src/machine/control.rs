//! Orders to the vCPU threads, and their answers.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the vCPU threads are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Wait outside KVM_RUN.
    Park = 0,
    /// Run the guest.
    Run = 1,
    /// End the thread.
    Stop = 2,
}

impl Order {
    fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Park,
            1 => Self::Run,
            _ => Self::Stop,
        }
    }
}

/// The order in force, and how many threads obey it. Reading it costs a running vCPU one load. At first, threads park.
#[derive(Default)]
pub struct RunControl {
    order: AtomicU8,
    threads: Mutex<Threads>,
    changed: Condvar,
}

#[derive(Default)]
struct Threads {
    created: usize,
    parked: usize,
}

impl RunControl {
    /// Gives an order. Threads in KVM_RUN see it after a kick.
    pub fn give(&self, order: Order) {
        let _threads = self.lock();
        if self.order() != Order::Stop {
            self.order.store(order as u8, Ordering::SeqCst);
        }
        self.changed.notify_all();
    }

    /// The order in force.
    pub fn order(&self) -> Order {
        Order::from_raw(self.order.load(Ordering::SeqCst))
    }

    /// Waits while the order is to park, calling `parked` first. `false`: stop.
    pub fn may_run(&self, parked: impl FnOnce()) -> bool {
        match self.order() {
            Order::Run => true,
            Order::Stop => false,
            Order::Park => self.park(parked),
        }
    }

    #[cold]
    fn park(&self, parked: impl FnOnce()) -> bool {
        parked();
        let mut threads = self.lock();
        threads.parked += 1;
        self.changed.notify_all();
        while self.order() == Order::Park {
            threads = self.changed.wait(threads).unwrap_or_else(PoisonError::into_inner);
        }
        threads.parked -= 1;
        drop(threads);
        self.order() == Order::Run
    }

    /// One more virtual CPU exists.
    pub fn count_created(&self) {
        self.lock().created += 1;
        self.changed.notify_all();
    }

    /// Waits until `count` virtual CPUs exist, or never will because the order is to stop.
    pub fn wait_created(&self, count: usize) {
        let mut threads = self.lock();
        while threads.created < count && self.order() != Order::Stop {
            threads = self.changed.wait(threads).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `count` threads are parked, or have no reason to park any more. `false` after `limit`.
    pub fn wait_parked(&self, count: usize, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut threads = self.lock();
        while threads.parked < count && self.order() == Order::Park {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            threads = self.changed.wait_timeout(threads, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_park_run_and_stop_as_ordered() {
        let control = RunControl::default();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut turns = 0u64;
                while control.may_run(|| {}) {
                    turns += 1;
                }
                turns
            });
            assert!(control.wait_parked(1, Duration::from_secs(10)));
            control.give(Order::Run);
            control.give(Order::Park);
            assert!(control.wait_parked(1, Duration::from_secs(10)));
            control.give(Order::Stop);
            control.give(Order::Run);
            assert_eq!(control.order(), Order::Stop, "stop is final");
            thread.join().unwrap();
        });
    }

    #[test]
    fn waiting_for_threads_that_do_not_park_has_an_end() {
        assert!(!RunControl::default().wait_parked(1, Duration::from_millis(1)));
    }
}
