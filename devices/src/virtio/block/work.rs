//! The device while it is active: from the queues to the host and back.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::GuestMemoryMmap;

use super::backend::{Backend, DEPTH};
use super::disk::Disk;
use super::job::{Job, Stability, Step};
use super::request::{Refused, Request};
use super::spec::{ID, status};
use crate::rate_limiter::RateLimiter;
use crate::virtio::io::Completion;
use crate::virtio::{Activation, Link, Queue, QueueError, Reactor};

/// How long the device works before others have their turn; one request may make it longer.
const TURN: Duration = Duration::from_micros(200);

/// How much is handed to the host at once: it may do all of it before it returns.
const BATCH_REQUESTS: usize = 32;
const BATCH_BYTES: u64 = 1 << 20;

/// When a host that does not take requests is asked again.
const RETRY: Duration = Duration::from_millis(10);

/// What the device works with, besides what it is given at activation.
pub(super) struct Host<'a> {
    pub(super) disk: &'a Disk,
    pub(super) id: &'a [u8; ID],
    pub(super) backend: &'a mut Backend,
    pub(super) limiter: &'a mut RateLimiter,
}

pub(super) struct Active {
    // Wiring.
    pub(super) queues: Vec<Queue>,
    pub(super) reactor: Box<dyn Reactor>,
    link: Link,
    memory: GuestMemoryMmap,
    // State.
    stability: Stability,
    jobs: Vec<Job>,
    /// The jobs that are not in use.
    free: Vec<u16>,
    /// The queues that were not emptied, one bit each.
    waiting: u64,
    draining: bool,
}

/// Why no more requests are taken from a queue just now.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pause {
    Empty,
    /// All jobs are in flight.
    Full,
    /// Enough for one submission.
    Batch,
    LimitedUntil(Instant),
    /// The driver broke the rules.
    Fault,
}

impl Active {
    pub(super) fn new(activation: Activation, stability: Stability) -> Self {
        let Activation { queues, memory, link, reactor, .. } = activation;
        Self {
            queues,
            reactor,
            link,
            memory,
            stability,
            jobs: Vec::new(),
            free: Vec::new(),
            waiting: 0,
            draining: false,
        }
    }

    /// Takes requests from a queue until it is empty, the time is up, or nothing more can be taken.
    pub(super) fn serve(&mut self, index: usize, host: &mut Host<'_>) {
        if self.draining || self.link.failed() {
            return;
        }
        // Only where each request may take its time: a look at the clock costs as much as half a request.
        let waits = host.backend.ring().is_none() && !host.disk.in_memory();
        let mut begun = waits.then(Instant::now);
        if let Some(queue) = self.queues.get_mut(index) {
            queue.disable_notification();
        }
        self.waiting &= !(1 << index);
        loop {
            let pause = self.take(index, begun.filter(|_| waits), host).unwrap_or(Pause::Fault);
            let all_taken = self.settle(host);
            match pause {
                Pause::Fault => {
                    self.link.fail();
                    break;
                }
                _ if !all_taken => {
                    self.waiting |= 1 << index;
                    break;
                }
                Pause::Empty if !self.more(index) => break,
                Pause::Full if !self.free.is_empty() => {}
                Pause::Full => {
                    self.waiting |= 1 << index;
                    break;
                }
                Pause::LimitedUntil(deadline) => {
                    self.waiting |= 1 << index;
                    self.reactor.set_timer(Some(deadline));
                    break;
                }
                Pause::Empty | Pause::Batch => {}
            }
            if begun.get_or_insert_with(Instant::now).elapsed() >= TURN {
                self.link.look_again(index);
                break;
            }
        }
        self.interrupt();
    }

    /// Goes on with all queues that were not emptied.
    pub(super) fn serve_waiting(&mut self, host: &mut Host<'_>) {
        let waiting = self.waiting;
        for index in (0..self.queues.len()).filter(|index| waiting & (1 << index) != 0) {
            self.serve(index, host);
        }
    }

    /// Answers what the host has done.
    pub(super) fn complete(&mut self, host: &mut Host<'_>) {
        self.settle(host);
        self.interrupt();
    }

    /// Tells the driver that the configuration has changed.
    pub(super) fn config_changed(&self) {
        self.link.config_changed();
    }

    /// Takes no more, and does not answer what is in flight: the driver has taken its memory back.
    pub(super) fn drain(&mut self, host: &mut Host<'_>) {
        self.draining = true;
        self.reactor.set_timer(None);
        self.settle(host);
    }

    /// Takes requests and starts them. `begun` is when the turn began, where each may take its time.
    fn take(
        &mut self,
        index: usize,
        begun: Option<Instant>,
        host: &mut Host<'_>,
    ) -> Result<Pause, QueueError> {
        let (mut requests, mut bytes) = (0, 0);
        loop {
            // A system call has done its work by now.
            let late = requests > 0 && begun.is_some_and(|begun| begun.elapsed() >= TURN);
            if late || requests == BATCH_REQUESTS || bytes >= BATCH_BYTES {
                return Ok(Pause::Batch);
            }
            if host.limiter.limits()
                && let Err(deadline) = host.limiter.ready(Instant::now())
            {
                return Ok(Pause::LimitedUntil(deadline));
            }
            let Some(tag) = self.free_job() else {
                return Ok(Pause::Full);
            };
            let (Some(job), Some(queue)) = (self.jobs.get_mut(usize::from(tag)), self.queues.get_mut(index))
            else {
                return Ok(Pause::Empty);
            };
            let popped = queue.pop(&mut job.chain);
            if popped != Ok(true) {
                self.free.push(tag);
                return popped.map(|_| Pause::Empty);
            }
            job.queue = index;
            requests += 1;
            let length = self.begin(tag, host)?;
            bytes += length;
            if host.limiter.limits() {
                host.limiter.take(1, length, Instant::now());
            }
        }
    }

    /// Starts the request that was just taken into a job. Returns how many bytes it transfers.
    fn begin(&mut self, tag: u16, host: &mut Host<'_>) -> Result<u64, QueueError> {
        let Some(job) = self.jobs.get_mut(usize::from(tag)) else {
            return Ok(0);
        };
        match Request::parse(&job.chain, &self.memory, host.disk.bounds()) {
            Ok(request) => {
                job.begin(request, self.stability);
                let file = host.disk.file();
                let vectors = host.backend.vectors();
                if vectors.is_some_and(|vectors| job.transfer_at_once(vectors, &self.memory, file.as_fd())) {
                    self.answer(tag, status::OK);
                } else {
                    self.advance(tag, Arc::clone(file), host);
                }
                Ok(request.transfer().into())
            }
            Err(Refused::Status(status)) => {
                self.link.fault();
                self.answer(tag, status);
                Ok(0)
            }
            Err(Refused::Unanswerable) => {
                self.free.push(tag);
                Err(QueueError::Chain)
            }
        }
    }

    /// Starts the next operation of a job, and those after it, until one takes its time or the request is answered.
    fn advance(&mut self, tag: u16, mut file: Arc<File>, host: &mut Host<'_>) {
        while let Some(job) = self.jobs.get_mut(usize::from(tag)) {
            let Some(operation) = job.operation() else {
                let status = job.immediate(host.id, &self.memory);
                return self.answer(tag, status);
            };
            let Some(over) = host.backend.start(tag, file, &self.memory, operation) else {
                return;
            };
            match job.advance(over.result) {
                Step::Next => file = over.file,
                Step::Answer(status) => return self.answer(tag, status),
            }
        }
    }

    /// Hands the host what was started, and sees to what is over. `false` if the host does not take all of it just now.
    fn settle(&mut self, host: &mut Host<'_>) -> bool {
        loop {
            let all_taken = host.backend.submit();
            // A job that goes on is nearer to its end each time.
            let more = self.reap(host);
            if !all_taken {
                self.reactor.set_timer(Some(Instant::now() + RETRY));
            }
            if !all_taken || !more {
                return all_taken;
            }
        }
    }

    /// Answers what is over, or goes on with it; `true` if something was started.
    fn reap(&mut self, host: &mut Host<'_>) -> bool {
        let mut started = false;
        while let Some(Completion { tag, file, result }) = host.backend.next_completion() {
            let Some(job) = self.jobs.get_mut(usize::from(tag)) else {
                continue;
            };
            match job.advance(result) {
                _ if self.draining => self.free.push(tag),
                Step::Answer(status) => self.answer(tag, status),
                Step::Next => {
                    self.advance(tag, file, host);
                    started = true;
                }
            }
        }
        started
    }

    /// Asks for notifications of an empty queue; `true` if it is not empty any more.
    fn more(&mut self, index: usize) -> bool {
        let Some(queue) = self.queues.get_mut(index) else {
            return false;
        };
        let more = queue.enable_notification();
        if more {
            queue.disable_notification();
        }
        more
    }

    fn answer(&mut self, tag: u16, status: u8) {
        if let Some(job) = self.jobs.get_mut(usize::from(tag))
            && let Some(queue) = self.queues.get_mut(job.queue)
        {
            job.answer(queue, status);
        }
        self.free.push(tag);
    }

    /// A job that is not in use; there are no more of them than were ever in flight at once.
    fn free_job(&mut self) -> Option<u16> {
        let next = self.jobs.len();
        self.free.pop().or_else(|| {
            let tag = u16::try_from(next).ok().filter(|&tag| tag < DEPTH)?;
            self.jobs.push(Job::default());
            Some(tag)
        })
    }

    fn interrupt(&mut self) {
        // One interrupt for all queues; each has to be asked.
        let mut wanted = false;
        for queue in &mut self.queues {
            wanted |= queue.needs_interrupt();
        }
        if wanted {
            self.link.used();
        }
    }
}
