//! What holds for any framing, any buffers, and any driver.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testkit::{Descriptor, NEXT, WRITE};

/// Lengths with those at the edges more often than chance would have it.
fn lengths(max: usize) -> impl Strategy<Value = usize> {
    prop_oneof![3 => MIN_FRAME..2000, 1 => MIN_FRAME..=max, 1 => Just(MIN_FRAME), 1 => Just(max)]
}

/// Something a driver, sound or not, or the world may do.
#[derive(Clone, Debug)]
enum Step {
    Chain { queue: usize, indirect: bool, descriptors: Vec<(u64, u32, u16, u16)> },
    Index { queue: usize, index: u16 },
    Notify(usize),
    Arrive(usize),
    Event(u32),
    Serve,
    Renew,
}

fn steps() -> impl Strategy<Value = Step> {
    let address = prop_oneof![0u64..(17 << 20), any::<u64>(), Just(u64::MAX)];
    let length = prop_oneof![0u32..4000, 0u32..70_000, any::<u32>()];
    let flags = prop_oneof![4 => Just(0), 4 => Just(WRITE), 4 => Just(NEXT), 4 => Just(NEXT | WRITE), 1 => any::<u16>()];
    let descriptors = vec((address, length, flags, any::<u16>()), 1..6);
    let chain = (0..2usize, any::<bool>(), descriptors)
        .prop_map(|(queue, indirect, descriptors)| Step::Chain { queue, indirect, descriptors });
    prop_oneof![
        6 => chain,
        1 => (0..2usize, any::<u16>()).prop_map(|(queue, index)| Step::Index { queue, index }),
        4 => (0..3usize).prop_map(Step::Notify),
        3 => (1..20_000usize).prop_map(Step::Arrive),
        1 => prop_oneof![Just(WIRE), Just(TIMER), any::<u32>()].prop_map(Step::Event),
        2 => Just(Step::Serve),
        1 => Just(Step::Renew),
    ]
}

fn take(setup: &mut Setup, step: Step) {
    match step {
        Step::Chain { queue, indirect, descriptors } => {
            let descriptors: Vec<_> = descriptors
                .into_iter()
                .map(|(address, length, flags, next)| Descriptor { address, length, flags, next })
                .collect();
            let queue = &mut setup.guest.queues[queue];
            if indirect {
                queue.add_indirect(&descriptors)
            } else {
                queue.add_descriptors(&descriptors)
            };
        }
        Step::Index { queue, index } => setup.guest.queues[queue].set_available_index(index),
        Step::Notify(queue) => setup.guest.notify(queue),
        Step::Arrive(length) => {
            // The socket may be full.
            let _ = rustix::net::send(&setup.peer, &vec![0; length], SendFlags::empty());
            setup.guest.worker.backend_event(WIRE);
        }
        Step::Event(token) => {
            setup.guest.worker.backend_event(token);
        }
        Step::Serve => {
            setup.guest.serve();
        }
        Step::Renew => {
            setup.guest.reset();
            setup.guest.set_up(ALL);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Section 2.7.4.1: "The device MUST NOT make assumptions about the particular arrangement of
    /// descriptors": a frame and its header are what all descriptors together hold.
    #[test]
    fn any_framing_sends_the_same_frame(
        length in lengths(MAX_FRAME),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
        bytewise in 0..60usize,
        indirect: bool,
    ) {
        let mut setup = Setup::new(NetOptions::default(), ALL);
        let frame = frame(length, cuts.len() as u8);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(length)).chain(0..=bytewise.min(length)).collect();
        cuts.push(length);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|ends| &frame[ends[0]..ends[1]]).collect();
        if indirect {
            let queue = &mut setup.guest.queues[TX];
            let descriptors: Vec<_> = pieces.iter().enumerate().map(|(index, piece)| {
                let address = queue.allocate(piece.len() as u32);
                queue.write(address, piece);
                let flags = if index + 1 < pieces.len() { NEXT } else { 0 };
                Descriptor { address, length: piece.len() as u32, flags, next: 0 }
            }).collect();
            queue.add_indirect(&descriptors);
            setup.guest.notify(TX);
        } else {
            let buffers: Vec<_> = pieces.iter().map(|piece| Buffer::Readable(piece)).collect();
            setup.guest.send(TX, &buffers);
        }
        prop_assert_eq!(setup.sent(), Some(frame));
        prop_assert_eq!(setup.sent(), None);
        prop_assert!(setup.guest.queues[TX].take_used().is_some());
    }

    /// Section 5.1.6.4: "num_buffers indicates how many descriptors this packet is spread over", and their
    /// bytes in order are the packet.
    #[test]
    fn any_mix_of_buffers_holds_the_same_bytes(
        lengths in vec(lengths(20_000), 1..20),
        sizes in vec(vec(0..3000u32, 1..4), 1..10),
        at_once in 1..4usize,
        mergeable: bool,
    ) {
        let mut setup = Setup::new(NetOptions::default(), if mergeable { ALL } else { UNSPREAD });
        let mut posted = Posted::default();
        let mut sizes = sizes.into_iter().cycle();
        let mut arrived = 0;
        let frames: Vec<_> = lengths.iter().map(|&length| frame(length, length as u8)).collect();
        let mut wanted = frames.iter();
        // In the end no more frames come, but buffers for those that wait for them.
        for frames in frames.chunks(at_once).chain(frames.iter().map(|_| [].as_slice())) {
            // At most 80 buffers of 3 descriptors each, as many as the queue has.
            while posted.0.len() < 80 {
                let mut pieces = sizes.next().expect("endless");
                pieces[0] += header::LENGTH as u32;
                posted.post(&mut setup.guest, &pieces);
            }
            setup.guest.notify(RX);
            setup.settle();
            for frame in frames {
                setup.put(frame);
            }
            setup.guest.worker.backend_event(WIRE);
            setup.settle();
            while let Some(got) = posted.take(&mut setup.guest) {
                let buffers = u16::from_le_bytes([got[10], got[11]]);
                let found = wanted.any(|frame| delivered(frame, buffers) == got);
                prop_assert!(found, "a frame that was not sent, or out of order");
                arrived += 1;
            }
        }
        let dropped = setup.net().counters().rx.dropped;
        prop_assert_eq!(arrived + dropped, lengths.len() as u64, "each frame is delivered whole or dropped");
        prop_assert!(!setup.guest.needs_reset());
    }

    #[test]
    fn no_driver_brings_the_device_down(steps in vec(steps(), 1..60), features: u64) {
        let mut setup = Setup::new(NetOptions::default(), features);
        for step in steps {
            take(&mut setup, step);
            let watched = setup.guest.reactor.watched().len();
            prop_assert!(watched <= 1);
        }
        // Whatever was done: the next driver finds a device that works.
        while setup.sent().is_some() {}
        setup.guest.reset();
        setup.guest.set_up(ALL);
        setup.guest.send(TX, &[Buffer::Readable(&frame(100, 1))]);
        prop_assert_eq!(setup.sent(), Some(frame(100, 1)));
    }
}
