//! Rate limits of both directions.

use super::*;

/// A hundred bytes a minute.
const SLOW: RateLimits =
    RateLimits { bandwidth: Some(Limit { size: 100, refill_ms: 60_000, burst: 0 }), operations: None };
#[test]
fn frames_to_the_guest_wait_for_their_time() {
    let mut setup = Setup::new(NetOptions { rx: SLOW, ..NetOptions::default() }, ALL);
    let mut posted = Posted::default();
    posted.post(&mut setup.guest, &[USUAL]);
    posted.post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    let before = Instant::now();
    setup.arrive(&frame(162, 1));
    setup.arrive(&frame(100, 2));
    assert!(posted.take(&mut setup.guest).is_some());
    assert!(posted.take(&mut setup.guest).is_none());
    let deadline = setup.guest.reactor.timer().expect("a time to go on");
    assert!(deadline >= before + Duration::from_secs(29), "50 bytes of debt are half a minute");
    setup.guest.worker.backend_event(TIMER);
    assert!(posted.take(&mut setup.guest).is_none(), "a timer that rings early changes nothing");
    assert!(setup.guest.reactor.timer().is_some(), "and is set again");

    setup.net().set_limits(RateLimits::default(), RateLimits::default());
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(100, 2), 1)));
    assert_eq!(setup.guest.reactor.timer(), None);
}

#[test]
fn frames_from_the_guest_wait_for_theirs() {
    let mut setup = Setup::new(NetOptions { tx: SLOW, ..NetOptions::default() }, ALL);
    for seed in [1, 2] {
        setup.guest.send(TX, &[Buffer::Readable(&frame(162, seed))]);
    }
    assert_eq!(setup.sent(), Some(frame(162, 1)));
    assert_eq!(setup.sent(), None);
    assert!(setup.guest.reactor.timer().is_some());

    let soon = Limit { size: 1, refill_ms: 1, burst: 0 };
    setup.net().set_limits(SLOW, RateLimits { bandwidth: None, operations: Some(soon) });
    assert_eq!(setup.sent(), Some(frame(162, 2)));
    setup.guest.send(TX, &[Buffer::Readable(&frame(100, 3))]);
    std::thread::sleep(Duration::from_millis(2));
    setup.guest.worker.backend_event(TIMER);
    assert_eq!(setup.sent(), Some(frame(100, 3)), "the timer goes on with what waits");
}

#[test]
fn one_direction_does_not_hold_up_the_other() {
    let mut setup = Setup::new(NetOptions { tx: SLOW, ..NetOptions::default() }, ALL);
    for seed in [1, 2] {
        setup.guest.send(TX, &[Buffer::Readable(&frame(162, seed))]);
    }
    let mut posted = Posted::default();
    posted.post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    setup.arrive(&frame(100, 3));
    assert!(posted.take(&mut setup.guest).is_some());
    assert!(setup.guest.reactor.timer().is_some(), "the other one still waits");
}
