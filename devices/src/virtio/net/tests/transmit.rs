//! Frames from the guest.

use super::*;

fn send(setup: &mut Setup, frame: &[u8]) {
    setup.guest.send(TX, &[Buffer::Readable(frame)]);
}

#[test]
fn a_frame_is_sent_with_its_header_and_the_buffer_comes_back() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let mut large = frame(MAX_FRAME, 1);
    (large[header::FLAGS], large[header::GSO_TYPE]) = (header::NEEDS_CSUM, header::GSO_TCPV4);
    for frame in [frame(MIN_FRAME, 2), large] {
        send(&mut setup, &frame);
        assert_eq!(setup.sent().as_ref(), Some(&frame));
        assert_eq!(setup.guest.queues[TX].take_used().map(|(_, written)| written), Some(0));
    }
    let counters = setup.net().counters().tx;
    assert_eq!((counters.frames, counters.bytes), (2, (MIN_FRAME + MAX_FRAME - 24) as u64));
    assert_eq!(setup.guest.worker.counters().faults, 0);
}

#[test]
fn what_is_no_frame_is_dropped_and_counted() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let huge = frame(MAX_FRAME + 1, 1);
    let wrong = [&[][..], &[0; MIN_FRAME - 1], &huge];
    for frame in wrong {
        send(&mut setup, frame);
    }
    setup.guest.send(TX, &[Buffer::Writable(2000)]);
    assert_eq!(setup.sent(), None);
    assert_eq!(std::iter::from_fn(|| setup.guest.queues[TX].take_used()).count(), 4);
    assert_eq!(setup.guest.worker.counters().faults, 4);
    assert_eq!(setup.net().counters().tx.dropped, 4);
    assert!(!setup.guest.needs_reset());
    send(&mut setup, &frame(100, 2));
    assert_eq!(setup.sent(), Some(frame(100, 2)), "the next one is sent all the same");
}

#[test]
fn a_wire_without_room_is_waited_for() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let frames: Vec<_> = (0..40).map(|seed| frame(20_000, seed)).collect();
    for frame in &frames {
        setup.guest.queues[TX].add(&[Buffer::Readable(frame)]);
    }
    setup.guest.notify(TX);
    setup.settle();
    assert_eq!(
        setup.interest(),
        Some(Interest::Write),
        "without buffers of the driver, frames are not waited for"
    );
    Posted::default().post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    assert_eq!(setup.interest(), Some(Interest::Both), "with them, they are");

    let mut received = Vec::new();
    while received.len() < frames.len() {
        received.extend(std::iter::from_fn(|| setup.sent()));
        setup.guest.worker.backend_event(WIRE);
        setup.settle();
    }
    assert!(received == frames, "each frame once, and in order");
    assert_eq!(setup.interest(), Some(Interest::ReadEdge));
    assert_eq!(setup.net().counters().tx.dropped, 0);
}

#[test]
fn a_wire_that_is_gone_costs_frames_and_nothing_else() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    setup.peer = cable().1;
    send(&mut setup, &frame(100, 1));
    assert!(setup.guest.queues[TX].take_used().is_some());
    let counters = setup.net().counters().tx;
    assert_eq!((counters.frames, counters.dropped, counters.errors), (0, 1, 1));
    assert!(!setup.guest.needs_reset());
}

#[test]
fn more_frames_than_a_batch_go_in_several_with_an_interrupt_each() {
    let mut setup = Setup::new(NetOptions::default(), ALL & !common::RING_EVENT_IDX);
    for _ in 0..100 {
        setup.guest.queues[TX].add(&[Buffer::Readable(&frame(100, 1))]);
    }
    setup.guest.notify(TX);
    assert_eq!(std::iter::from_fn(|| setup.sent()).count(), BATCH_FRAMES);
    assert_eq!(setup.guest.line.take(), 1);
    setup.settle();
    assert_eq!(std::iter::from_fn(|| setup.sent()).count(), 100 - BATCH_FRAMES);
    assert_eq!(setup.guest.line.take(), 1);
}

#[test]
fn notifications_without_frames_are_harmless() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    for _ in 0..10_000 {
        setup.guest.notify(TX);
    }
    assert_eq!(setup.guest.worker.counters().faults, 0);
    assert_eq!(setup.guest.line.take(), 0);
}
