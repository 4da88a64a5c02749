//! Frames to the guest.

use super::*;

#[test]
fn a_frame_fills_as_many_buffers_as_it_takes() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let mut posted = Posted::default();
    for _ in 0..120 {
        posted.post(&mut setup.guest, &[USUAL]);
    }
    setup.guest.notify(RX);
    // The first is longer than any before it and takes a detour; the second is offered all the room it needs.
    for seed in [1, 2] {
        let large = frame(MAX_FRAME, seed);
        setup.arrive(&large);
        assert_eq!(posted.take(&mut setup.guest), Some(delivered(&large, 43)));
    }
    setup.arrive(&frame(MIN_FRAME, 3));
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(MIN_FRAME, 3), 1)));
    let counters = setup.net().counters().rx;
    assert_eq!((counters.frames, counters.dropped), (3, 0));
    assert_eq!(counters.bytes, (2 * MAX_FRAME + MIN_FRAME - 3 * header::LENGTH) as u64);
}

#[test]
fn without_buffers_frames_stay_where_they_are() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    setup.guest.take_wakes();
    setup.arrive(&frame(100, 1));
    setup.arrive(&frame(200, 2));
    assert_eq!(setup.guest.take_wakes(), 0, "nothing to do, and nothing is done");
    assert_eq!(setup.guest.line.take(), 0);

    let mut posted = Posted::default();
    posted.post(&mut setup.guest, &[USUAL]);
    posted.post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(100, 1), 1)));
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(200, 2), 1)));
    assert_eq!(setup.guest.line.take(), 1, "one interrupt for what came together");
}

#[test]
fn a_frame_waits_for_buffers_that_the_driver_owes() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let mut posted = Posted::default();
    for _ in 0..4 {
        posted.post(&mut setup.guest, &[USUAL]);
    }
    setup.guest.notify(RX);
    setup.arrive(&frame(2000, 1));
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(2000, 1), 2)));
    // Two are left, two are the driver's to post again.
    setup.arrive(&frame(5000, 2));
    assert!(posted.take(&mut setup.guest).is_none());
    posted.post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    assert!(posted.take(&mut setup.guest).is_none());
    posted.post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(5000, 2), 4)));
    assert_eq!(setup.net().counters().rx.dropped, 0);
}

#[test]
fn a_frame_that_will_never_fit_is_dropped() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let mut posted = Posted::default();
    posted.post(&mut setup.guest, &[USUAL]);
    posted.post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    setup.arrive(&frame(5000, 1));
    setup.arrive(&frame(100, 2));
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(100, 2), 1)));
    assert_eq!(setup.net().counters().rx.dropped, 1);
}

/// Section 5.1.6.4.1: without MRG_RXBUF a frame is in one buffer, and num_buffers is 1.
#[test]
fn without_merging_a_frame_is_in_one_buffer_or_dropped() {
    let mut setup = Setup::new(NetOptions::default(), UNSPREAD);
    let mut posted = Posted::default();
    posted.post(&mut setup.guest, &[12, 100, 0, 1424]);
    posted.post(&mut setup.guest, &[12, MAX_FRAME as u32 - 12]);
    setup.guest.notify(RX);
    setup.arrive(&frame(1537, 1));
    setup.arrive(&frame(1536, 2));
    setup.arrive(&frame(MAX_FRAME, 3));
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(1536, 2), 1)));
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(MAX_FRAME, 3), 1)));
    assert_eq!(setup.net().counters().rx.dropped, 1, "one byte too long");
}

/// Section 5.1.6.4.1: what the driver did not accept does not reach it, and the MTU that it accepted holds.
#[test]
fn frames_that_the_driver_cannot_take_are_dropped() {
    let options = NetOptions { mtu: Some(1000), ..NetOptions::default() };
    let mut setup = Setup::new(options, feature::MRG_RXBUF | feature::MTU | feature::GUEST_TSO4);
    let mut posted = Posted::default();
    for _ in 0..9 {
        posted.post(&mut setup.guest, &[USUAL]);
    }
    setup.guest.notify(RX);
    let with = |flags, gso_type, length| {
        let mut frame = frame(length, gso_type);
        (frame[header::FLAGS], frame[header::GSO_TYPE]) = (flags, gso_type);
        frame
    };
    let refused = [
        with(header::NEEDS_CSUM, 0, 100),
        with(0, header::GSO_TCPV6, 100),
        with(0, header::GSO_UDP, 100),
        with(0, header::GSO_TCPV4 | header::GSO_ECN, 100),
        with(0, 77, 100),
        with(0, 0, 12 + 18 + 1001),
        with(0, 0, MIN_FRAME - 1),
    ];
    for frame in &refused {
        setup.arrive(frame);
    }
    assert_eq!(setup.net().counters().rx.dropped, refused.len() as u64);
    setup.arrive(&with(0, header::GSO_TCPV4, 3000));
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&with(0, header::GSO_TCPV4, 3000), 2)));
    // That the checksum was verified is no news for a driver that did not ask.
    setup.arrive(&with(2, 0, 12 + 18 + 1000));
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&with(0, 0, 12 + 18 + 1000), 1)));
}

#[test]
fn more_frames_than_a_batch_come_in_several() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let mut posted = Posted::default();
    for _ in 0..100 {
        posted.post(&mut setup.guest, &[128]);
        setup.put(&frame(64, 1));
    }
    setup.guest.notify(RX);
    let mut count = || std::iter::from_fn(|| posted.take(&mut setup.guest)).count();
    assert_eq!(count(), BATCH_FRAMES);
    setup.guest.serve();
    assert_eq!(std::iter::from_fn(|| posted.take(&mut setup.guest)).count(), 100 - BATCH_FRAMES);
}

#[test]
fn the_driver_says_when_it_wants_an_interrupt() {
    let mut setup = Setup::new(NetOptions::default(), common::RING_EVENT_IDX | feature::MRG_RXBUF);
    let mut posted = Posted::default();
    for _ in 0..20 {
        posted.post(&mut setup.guest, &[100]);
    }
    // The tenth buffer is in the middle of those of the second frame.
    setup.guest.queues[RX].set_used_event(9);
    setup.guest.notify(RX);
    setup.arrive(&frame(800, 1));
    assert_eq!(setup.guest.line.take(), 0);
    setup.arrive(&frame(500, 2));
    assert_eq!(setup.guest.line.take(), 1);
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(800, 1), 8)));
}

#[test]
fn a_buffer_without_room_for_the_header_ends_it() {
    for pieces in [&[11][..], &[0], &[5, 6]] {
        let mut setup = Setup::new(NetOptions::default(), ALL);
        Posted::default().post(&mut setup.guest, pieces);
        setup.guest.notify(RX);
        assert!(setup.guest.needs_reset());
        setup.arrive(&frame(100, 1));
        assert!(setup.guest.queues[RX].take_used().is_none(), "a device that has to be reset does nothing");
    }
}

#[test]
fn a_wire_that_is_gone_is_tried_again_now_and_then() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    Posted::default().post(&mut setup.guest, &[USUAL]);
    setup.peer = cable().1;
    setup.guest.take_wakes();
    let before = Instant::now();
    setup.guest.worker.backend_event(WIRE);
    assert_eq!(setup.net().counters().rx.errors, 1);
    assert!(setup.guest.reactor.timer().expect("another time") >= before + RETRY);
    assert_eq!(setup.guest.take_wakes(), 0);
}
