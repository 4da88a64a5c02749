//! Section 5.4.6.2: the device places random bytes into the buffers, at least one and at most as many as fit.

use std::time::{Duration, Instant};

use super::*;
use crate::rate_limiter::Limit;
use crate::testkit::{Buffer, Guest};
use crate::virtio::spec::feature;

fn guest(limits: RateLimits) -> Guest {
    let mut guest = Guest::new(Box::new(Rng::new(limits)));
    guest.set_up(feature::RING_EVENT_IDX | feature::RING_INDIRECT_DESC);
    guest
}

#[test]
fn buffers_are_filled_and_the_driver_is_told() {
    let mut guest = guest(RateLimits::default());
    let addresses = guest.send(REQUESTS, &[Buffer::Writable(16), Buffer::Writable(48)]);
    let (_, written) = guest.queues[REQUESTS].take_used().expect("an answer");
    assert_eq!(written, 64);
    assert_eq!(guest.line.take(), 1);
    let first = guest.queues[REQUESTS].read(addresses[0], 16);
    let second = guest.queues[REQUESTS].read(addresses[1], 48);
    assert_ne!(first, [0; 16], "sixteen zeros are one chance in 2^128");
    assert_ne!(second[..16], first);
}

#[test]
fn one_buffer_gets_no_more_than_its_share() {
    let mut guest = guest(RateLimits::default());
    guest.send(REQUESTS, &[Buffer::Writable(100_000)]);
    assert_eq!(guest.queues[REQUESTS].take_used().map(|(_, written)| written), Some(MAX_BYTES as u32));
}

#[test]
fn a_buffer_without_room_comes_back_empty() {
    let mut guest = guest(RateLimits::default());
    guest.send(REQUESTS, &[Buffer::Readable(b"for you")]);
    assert_eq!(guest.queues[REQUESTS].take_used().map(|(_, written)| written), Some(0));
    assert!(!guest.needs_reset());
}

#[test]
fn the_limit_holds_and_the_timer_goes_on() {
    let limit = Limit { size: 100, refill_ms: 60_000, burst: 0 };
    let mut guest = guest(RateLimits { bandwidth: Some(limit), operations: None });
    let before = Instant::now();
    guest.send(REQUESTS, &[Buffer::Writable(150)]);
    guest.send(REQUESTS, &[Buffer::Writable(1)]);
    assert!(guest.queues[REQUESTS].take_used().is_some(), "a full bucket allows a request of any size");
    assert!(guest.queues[REQUESTS].take_used().is_none(), "an empty one allows none");
    let timer = guest.reactor.timer().expect("a time to go on");
    assert!(timer >= before + Duration::from_secs(30), "50 bytes of debt are half a minute");

    let device: &mut dyn std::any::Any = guest.worker.device();
    device.downcast_mut::<Rng>().expect("the device made above").set_limits(RateLimits::default());
    assert!(guest.queues[REQUESTS].take_used().is_some(), "without a limit there is no waiting");
}

#[test]
fn more_buffers_than_a_turn_takes_are_served_in_several() {
    let mut guest = guest(RateLimits::default());
    for _ in 0..BATCH + 1 {
        guest.queues[REQUESTS].add(&[Buffer::Writable(1)]);
    }
    guest.notify(REQUESTS);
    let mut used = || std::iter::from_fn(|| guest.queues[REQUESTS].take_used()).count();
    assert_eq!(used(), BATCH);
    guest.serve();
    assert_eq!(std::iter::from_fn(|| guest.queues[REQUESTS].take_used()).count(), 1);
}
