//! Traditional memory balloon (virtio 1.2, section 5.5): memory that the guest does not need goes back to the host.
//!
//! In two ways. The user sets a target, and the driver *inflates* the balloon: it allocates pages, names them, and
//! uses them no more until it *deflates*. And the driver *reports* pages that are free just now; it may use them
//! again as soon as the device has acknowledged that. Either way the host takes the pages back, and gives new ones
//! when they are touched.
//!
//! No state is the device's own: the target and the balloon's size are in the configuration space, statistics come
//! anew, and a request that is not finished still stands in its ring.

use std::time::{Duration, Instant};

use super::io::HostPage;
use super::{
    Activation, Chain, ConfigSpace, DeviceError, DeviceKind, Identity, Link, Progress, Queue, QueueError,
    Reactor, TIMER, VirtioDevice,
};
use pages::Pages;
use spec::{PAGE_SIZE, STAT_SIZE, config, feature};

mod pages;
pub mod spec;
mod stats;
#[cfg(test)]
mod tests;

pub use pages::BalloonCounters;
pub use stats::Stats;

/// Linux reports up to 32 ranges in one request; its driver fails if the queue cannot hold them.
const QUEUE_SIZE: u16 = 128;

/// The queue for statistics, where there is one.
const STATS: usize = 2;

/// How many statistics of one buffer are looked at. There are ten kinds; a driver may know of more.
const MAX_STATS: usize = 32;

/// The driver is asked for statistics no more often than this.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// What a balloon is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BalloonOptions {
    /// How many bytes the balloon is to take from the guest; rounded down to whole pages of 4 KiB.
    pub target: u64,
    /// The guest may take pages back rather than kill a process that needs memory.
    pub deflate_on_oom: bool,
    /// The guest reports pages that it does not use.
    pub free_page_reporting: bool,
    /// How often the guest is asked for statistics, at least 100 ms; `None` for a device that cannot ask.
    pub stats_interval: Option<Duration>,
    /// The pages that the guest's memory is made of.
    pub page: HostPage,
}

/// The device.
pub struct Balloon {
    // Configuration.
    options: BalloonOptions,
    // Wiring and guest-visible state.
    config: ConfigSpace,
    active: Option<Active>,
    // What became of it.
    pages: Pages,
    stats: Stats,
}

struct Active {
    features: u64,
    queues: Vec<Queue>,
    /// How many bytes of the next request in each queue are dealt with already.
    done: Vec<usize>,
    /// The next buffer of statistics was read, and is to be used when the driver is asked for others.
    read: bool,
    link: Link,
    reactor: Box<dyn Reactor>,
    chain: Chain,
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    Inflate,
    Deflate,
    Stats,
    Report,
}

impl Balloon {
    /// A balloon with nothing in it.
    #[must_use]
    pub fn new(options: BalloonOptions) -> Self {
        let config = ConfigSpace::new(vec![0; config::SIZE], config::ACTUAL..config::SIZE);
        let pages = Pages::new(options.page);
        let mut balloon = Self { options, config, active: None, pages, stats: Stats::default() };
        balloon.set_target(options.target);
        balloon
    }

    /// Changes the size that the balloon is to have, in bytes. The driver gets there when it can.
    pub fn set_target(&mut self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE_SIZE).unwrap_or(u32::MAX);
        self.config.update(config::NUM_PAGES, &pages.to_le_bytes());
        if let Some(active) = &self.active {
            active.link.config_changed();
        }
    }

    /// The size that the balloon is to have, in bytes.
    #[must_use]
    pub fn target(&self) -> u64 {
        u64::from(self.config.read_u32(config::NUM_PAGES as u64)) * PAGE_SIZE
    }

    /// The size that it has, in bytes, as its driver says.
    #[must_use]
    pub fn actual(&self) -> u64 {
        u64::from(self.config.read_u32(config::ACTUAL as u64)) * PAGE_SIZE
    }

    /// What the driver last said about its memory.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Changes how often the driver is asked for statistics. `false`, and nothing is changed, if the device was made
    /// without.
    pub fn set_stats_interval(&mut self, interval: Duration) -> bool {
        let Some(current) = &mut self.options.stats_interval else {
            return false;
        };
        *current = interval;
        if let Some(active) = &mut self.active
            && active.read
        {
            active.ask_after(interval);
        }
        true
    }

    /// What became of the pages that the driver gave.
    #[must_use]
    pub fn counters(&self) -> BalloonCounters {
        self.pages.counters()
    }

    fn serve(&mut self, index: usize) -> Result<(), QueueError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        match (active.role(index), self.options.stats_interval) {
            (Some(Role::Stats), Some(interval)) => active.read_stats(&mut self.stats, interval),
            (Some(role), _) => active.serve_pages(index, role, &mut self.pages),
            (None, _) => Ok(()),
        }
    }

    /// A driver that broke the rules has to reset the device.
    fn settle(&self, result: Result<(), QueueError>) {
        if let (Err(_), Some(active)) = (result, &self.active) {
            active.link.fail();
        }
    }
}

impl VirtioDevice for Balloon {
    fn identity(&self) -> Identity {
        let BalloonOptions { deflate_on_oom, free_page_reporting, stats_interval, page, .. } = self.options;
        let offers = [
            // A huge page must not be given back while the driver uses a part of it already.
            (page == HostPage::Huge, feature::MUST_TELL_HOST),
            (stats_interval.is_some(), feature::STATS_VQ),
            (deflate_on_oom, feature::DEFLATE_ON_OOM),
            (free_page_reporting, feature::PAGE_REPORTING),
        ];
        let queues = match (free_page_reporting, stats_interval) {
            (true, _) => 5,
            (false, Some(_)) => 3,
            (false, None) => 2,
        };
        Identity {
            kind: DeviceKind::Balloon,
            features: offers.iter().filter(|(offered, _)| *offered).map(|(_, feature)| feature).sum(),
            queue_sizes: vec![QUEUE_SIZE; queues],
            config: self.config.clone(),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { features, queues, link, reactor, .. } = activation;
        self.pages.start(features & feature::MUST_TELL_HOST != 0);
        self.active = Some(Active {
            features,
            done: vec![0; queues.len()],
            queues,
            read: false,
            link,
            reactor,
            chain: Chain::new(),
        });
        Ok(())
    }

    fn queue_event(&mut self, queue: usize) {
        let result = self.serve(queue);
        self.settle(result);
    }

    fn backend_event(&mut self, token: u32) {
        if token == TIMER {
            let asked = self.active.as_mut().map_or(Ok(()), Active::ask_for_stats);
            let result = asked.and_then(|()| self.serve(STATS));
            self.settle(result);
        }
    }

    fn reset(&mut self) -> Progress {
        if let Some(mut active) = self.active.take() {
            active.reactor.set_timer(None);
        }
        // The next driver begins with all pages.
        self.config.update(config::ACTUAL, &[0; 4]);
        self.stats = Stats::default();
        Progress::Done
    }

    fn queues(&self) -> &[Queue] {
        self.active.as_ref().map(|active| active.queues.as_slice()).unwrap_or_default()
    }
}

impl Active {
    /// The specification numbers the queues from 0 to 4, whichever of them exist (section 5.5.2). Linux leaves no
    /// gaps over MMIO (seen in 6.1): where there is no queue for hints, which is not offered here, reports have the
    /// next number. As nothing else can be there, every further queue is one for reports, and both are right.
    fn role(&self, index: usize) -> Option<Role> {
        match index {
            0 => Some(Role::Inflate),
            1 => Some(Role::Deflate),
            STATS if self.features & feature::STATS_VQ != 0 => Some(Role::Stats),
            _ if self.features & feature::PAGE_REPORTING != 0 => Some(Role::Report),
            _ => None,
        }
    }

    /// Deals with the next request in the queue `index`, or with a part of it if it is long: it stays in its ring
    /// until it is done.
    fn serve_pages(&mut self, index: usize, role: Role, pages: &mut Pages) -> Result<(), QueueError> {
        let (Some(queue), Some(done)) = (self.queues.get_mut(index), self.done.get_mut(index)) else {
            return Ok(());
        };
        queue.disable_notification();
        if !queue.pop(&mut self.chain)? {
            if queue.enable_notification() {
                self.link.look_again(index);
            }
            return Ok(());
        }
        let memory = queue.memory();
        let (taken, total) = match role {
            Role::Report => (pages.report(memory, &self.chain, *done), self.chain.writable_length()),
            Role::Inflate => {
                let (taken, faults) = pages.inflate(memory, &self.chain, *done);
                (0..faults).for_each(|_| self.link.fault());
                (taken, self.chain.readable_length())
            }
            _ => (pages.deflate(memory, &self.chain, *done), self.chain.readable_length()),
        };
        *done += taken;
        if *done < total {
            queue.undo_pop();
        } else {
            *done = 0;
            queue.add_used(self.chain.head(), 0);
            if queue.needs_interrupt() {
                self.link.used();
            }
        }
        self.link.look_again(index);
        Ok(())
    }

    /// Reads the statistics that the driver has laid down. The buffer stays in its ring until the driver is asked for
    /// others: using it is the question (section 5.5.6.3).
    fn read_stats(&mut self, stats: &mut Stats, interval: Duration) -> Result<(), QueueError> {
        let Some(queue) = self.queues.get_mut(STATS).filter(|_| !self.read) else {
            return Ok(());
        };
        queue.disable_notification();
        if queue.pop(&mut self.chain)? {
            let mut bytes = [0; MAX_STATS * STAT_SIZE];
            let bytes = &mut bytes[..self.chain.readable_length().min(MAX_STATS * STAT_SIZE)];
            if self.chain.read_at(queue.memory(), 0, bytes) {
                *stats = Stats::parse(bytes);
            }
            queue.undo_pop();
            self.read = true;
            self.ask_after(interval);
        } else if queue.enable_notification() {
            self.link.look_again(STATS);
        }
        Ok(())
    }

    /// Has the timer ask for statistics.
    fn ask_after(&mut self, interval: Duration) {
        self.reactor.set_timer(Instant::now().checked_add(interval.max(MIN_INTERVAL)));
    }

    /// Uses the buffer of statistics that was read.
    fn ask_for_stats(&mut self) -> Result<(), QueueError> {
        let Some(queue) = self.queues.get_mut(STATS).filter(|_| self.read && !self.link.failed()) else {
            return Ok(());
        };
        self.read = false;
        if queue.pop(&mut self.chain)? {
            queue.add_used(self.chain.head(), 0);
            if queue.needs_interrupt() {
                self.link.used();
            }
        }
        Ok(())
    }
}
