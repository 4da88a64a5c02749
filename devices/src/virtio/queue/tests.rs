//! What a device may do with buffers between popping and using them.

use super::*;
use crate::testkit::{self, Buffer, DriverQueue};

const SIZE: u16 = 8;

fn pair(event_idx: bool) -> (DriverQueue, Queue) {
    let memory = testkit::memory();
    let driver = DriverQueue::new(memory.clone(), 0x10_0000, SIZE);
    let setup = QueueSetup {
        size: SIZE,
        ready: true,
        descriptors: driver.descriptors(),
        available: driver.available(),
        used: driver.used(),
        ..QueueSetup::default()
    };
    (driver, Queue::new(&setup, SIZE, event_idx, memory).expect("a sound queue"))
}

/// Pops all buffers; their heads.
fn pop_all(queue: &mut Queue) -> Vec<u16> {
    let mut chain = Chain::new();
    std::iter::from_fn(|| queue.pop(&mut chain).expect("sound chains").then(|| chain.head())).collect()
}

#[test]
fn buffers_used_together_come_in_order_also_where_the_ring_wraps() {
    let (mut driver, mut queue) = pair(false);
    for round in 0..5u32 {
        for _ in 0..5 {
            driver.add(&[Buffer::Writable(16)]);
        }
        assert_eq!(queue.available(), 5);
        let heads = pop_all(&mut queue);
        assert_eq!(queue.available(), 0);
        let used: Vec<_> = heads.iter().map(|&head| (head, u32::from(head) + round)).collect();
        queue.add_used_together(used.iter().copied());
        assert_eq!(std::iter::from_fn(|| driver.take_used()).collect::<Vec<_>>(), used);
        assert_eq!(queue.position(), (5 * (round as u16 + 1), 5 * (round as u16 + 1)));
    }
    queue.add_used_together([]);
    assert_eq!(driver.take_used(), None);
}

/// Section 2.7.7.2: an interrupt when the entry at used_event was used, which may be any of those used together.
#[test]
fn an_interrupt_is_due_for_any_of_the_buffers_used_together() {
    for (event, due) in [(0, true), (1, true), (2, true), (3, false), (u16::MAX, false)] {
        let (mut driver, mut queue) = pair(true);
        for _ in 0..3 {
            driver.add(&[Buffer::Writable(16)]);
        }
        driver.set_used_event(event);
        let used: Vec<_> = pop_all(&mut queue).into_iter().map(|head| (head, 1)).collect();
        queue.add_used_together(used.iter().copied());
        assert_eq!(queue.needs_interrupt(), due, "used_event {event}");
        assert!(!queue.needs_interrupt(), "once");
    }
}

#[test]
fn a_saved_position_makes_kept_buffers_available_again() {
    let (mut driver, mut queue) = pair(false);
    for _ in 0..3 {
        driver.add(&[Buffer::Writable(16)]);
    }
    let heads = pop_all(&mut queue);
    queue.add_used(heads[0], 1);
    queue.keep(2);
    assert_eq!(queue.position(), (1, 1));
}

/// What the driver's index says is believed as far as it can be true.
#[test]
fn no_more_buffers_are_available_than_the_queue_holds() {
    let (mut driver, queue) = pair(false);
    driver.set_available_index(60_000);
    assert_eq!(queue.available(), SIZE);
}
