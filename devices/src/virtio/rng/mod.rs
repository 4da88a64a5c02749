//! Entropy device (virtio 1.2, section 5.4): the host's random bytes.
//!
//! The shortest device there is; read it first.

use std::time::Instant;

use rustix::rand::GetRandomFlags;

use super::{
    Activation, Chain, ConfigSpace, DeviceError, DeviceKind, Identity, Link, Progress, Queue, QueueError,
    Reactor, TIMER, VirtioDevice,
};
use crate::rate_limiter::{RateLimiter, RateLimits};

#[cfg(test)]
mod tests;

/// The only queue: empty buffers to be filled.
const REQUESTS: usize = 0;
const QUEUE_SIZE: u16 = 256;

/// How much of one buffer is filled. A driver asks again for more; without this a single buffer could ask for 4 GiB.
const MAX_BYTES: usize = 4096;

/// How many buffers are filled before other devices have their turn.
const BATCH: usize = 64;

/// The device.
pub struct Rng {
    // Configuration.
    limiter: RateLimiter,
    // Wiring and guest-visible state, while it is active.
    active: Option<Active>,
}

struct Active {
    queues: Vec<Queue>,
    link: Link,
    reactor: Box<dyn Reactor>,
    chain: Chain,
}

impl Rng {
    /// A device that hands out no more than `limits` allow.
    #[must_use]
    pub fn new(limits: RateLimits) -> Self {
        Self { limiter: RateLimiter::new(limits), active: None }
    }

    /// Changes the limits.
    pub fn set_limits(&mut self, limits: RateLimits) {
        self.limiter = RateLimiter::new(limits);
        self.queue_event(REQUESTS);
    }
}

impl VirtioDevice for Rng {
    fn identity(&self) -> Identity {
        Identity {
            kind: DeviceKind::Entropy,
            features: 0,
            queue_sizes: vec![QUEUE_SIZE],
            config: ConfigSpace::read_only(Vec::new()),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { queues, link, reactor, .. } = activation;
        self.active = Some(Active { queues, link, reactor, chain: Chain::new() });
        Ok(())
    }

    fn queue_event(&mut self, queue: usize) {
        if let Some(active) = &mut self.active
            && queue == REQUESTS
            && active.serve(&mut self.limiter).is_err()
        {
            active.link.fail();
        }
    }

    fn backend_event(&mut self, token: u32) {
        if token == TIMER {
            self.queue_event(REQUESTS);
        }
    }

    fn reset(&mut self) -> Progress {
        if let Some(mut active) = self.active.take() {
            active.reactor.set_timer(None);
        }
        Progress::Done
    }

    fn queues(&self) -> &[Queue] {
        self.active.as_ref().map(|active| active.queues.as_slice()).unwrap_or_default()
    }
}

impl Active {
    /// Fills what buffers there are, as far as the limits allow.
    fn serve(&mut self, limiter: &mut RateLimiter) -> Result<(), QueueError> {
        let Some(queue) = self.queues.get_mut(REQUESTS) else {
            return Ok(());
        };
        queue.disable_notification();
        let mut result = Ok(());
        for turn in 0.. {
            if turn == BATCH {
                self.link.look_again(REQUESTS);
                break;
            }
            if let Err(ready_at) = limiter.ready(Instant::now()) {
                self.reactor.set_timer(Some(ready_at));
                break;
            }
            match queue.pop(&mut self.chain) {
                Ok(true) => {
                    let written = fill(&self.chain, queue);
                    limiter.take(1, u64::from(written), Instant::now());
                    queue.add_used(self.chain.head(), written);
                }
                Ok(false) if queue.enable_notification() => queue.disable_notification(),
                Ok(false) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if queue.needs_interrupt() {
            self.link.used();
        }
        result
    }
}

/// Fills one buffer and returns how far. Where the host has no random bytes, or the driver left no room, that is 0.
fn fill(chain: &Chain, queue: &Queue) -> u32 {
    let mut bytes = [0; MAX_BYTES];
    let wanted = chain.writable_length().min(MAX_BYTES);
    // Not waited for: the pool is full since the host's boot, or this is no host to trust with a guest's keys.
    let got = rustix::rand::getrandom(&mut bytes[..wanted], GetRandomFlags::NONBLOCK).unwrap_or(0);
    if chain.write_at(queue.memory(), 0, &bytes[..got]) {
        // At most MAX_BYTES.
        got as u32
    } else {
        0
    }
}
