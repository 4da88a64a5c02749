//! The split virtqueue.

use super::dma::Shared;
use super::memory::Window;
use super::virtio::failure::Failure;
use super::virtio::queue::{Part, Queue, Used};
use super::{BASE, NOTIFY, VERSION_1, arena, memory};

const SIZE: u16 = 4;

/// The device's side: the rings where the queue says that they are.
struct Device {
    memory: Shared,
    available: u64,
    used: u64,
    next: u16,
}

impl Device {
    fn available_index(&self) -> u16 {
        self.memory.read(self.available + 2)
    }

    fn used_event(&self) -> u16 {
        self.memory.read(self.available + 4 + 2 * u64::from(SIZE))
    }

    fn set_available_event(&self, index: u16) {
        self.memory.write(self.used + 4 + 8 * u64::from(SIZE), index);
    }

    fn set_no_notify(&self, flag: u16) {
        self.memory.write(self.used, flag);
    }

    fn finish(&mut self, head: u32, length: u32) {
        let entry = self.used + 4 + 8 * u64::from(self.next % SIZE);
        self.memory.write(entry, head);
        self.memory.write(entry + 4, length);
        self.next = self.next.wrapping_add(1);
        self.memory.write(self.used + 2, self.next);
    }
}

fn queue(event_index: bool) -> (Queue, Device) {
    memory::place(BASE, Window::new(2, VERSION_1));
    let length = Queue::memory_needed(SIZE);
    let shared = arena().take(length, 16).expect("room");
    let queue = Queue::new(shared, SIZE, event_index, (BASE + NOTIFY, 7));
    let [descriptors, available, used] = queue.addresses().map(|address| address - shared.address());
    assert_eq!(descriptors, 0);
    // 2.7: alignment 2 and 4; nothing overlaps.
    assert!(available >= 64 && available.is_multiple_of(2));
    assert!(used >= available + 6 + 2 * 4 && used.is_multiple_of(4));
    assert_eq!(length, used + 6 + 8 * 4);
    (queue, Device { memory: shared, available, used, next: 0 })
}

fn notified() -> usize {
    memory::with(BASE, |window| {
        assert!(window.written(NOTIFY).iter().all(|&value| value == 7));
        window.written(NOTIFY).len()
    })
}

#[test]
fn a_chain_is_linked_as_section_2_7_5_says() {
    let (mut queue, device) = queue(false);
    let parts = arena().take(64, 16).expect("room");
    let part = |index, device_writes| Part { memory: parts.piece(index, 16), device_writes };
    queue.describe(1, &[part(0, false), part(1, true), part(2, true)]);
    let descriptor = |index: u64| {
        let at = 16 * index;
        let flags: u16 = device.memory.read(at + 12);
        let next: u16 = device.memory.read(at + 14);
        (device.memory.read::<u64>(at), device.memory.read::<u32>(at + 8), flags, next)
    };
    assert_eq!(descriptor(1), (parts.address(), 16, 1, 2));
    assert_eq!(descriptor(2), (parts.address() + 16, 16, 1 | 2, 3));
    let (address, length, flags, _) = descriptor(3);
    assert_eq!((address, length, flags), (parts.address() + 32, 16, 2));
}

#[test]
fn the_device_sees_nothing_before_it_is_published() {
    let (mut queue, device) = queue(false);
    queue.push(2);
    assert_eq!((device.available_index(), notified()), (0, 0));
    queue.publish();
    assert_eq!((device.available_index(), notified()), (1, 1));
    queue.publish();
    assert_eq!(notified(), 1, "nothing new");
    device.set_no_notify(1);
    queue.push(2);
    queue.publish();
    assert_eq!((device.available_index(), notified()), (2, 1));
    assert_eq!(queue.notifications(), 1);
}

#[test]
fn half_a_ring_is_worth_a_notification() {
    let (mut queue, device) = queue(false);
    queue.push(0);
    queue.publish_half();
    assert_eq!(device.available_index(), 0);
    queue.push(1);
    queue.publish_half();
    assert_eq!(device.available_index(), 2);
}

#[test]
fn interrupts_are_not_wanted() {
    let (_, device) = queue(false);
    assert_eq!(device.memory.read::<u16>(device.available), 1, "VIRTQ_AVAIL_F_NO_INTERRUPT");
    let (mut queue, mut device) = queue(true);
    assert_eq!(device.memory.read::<u16>(device.available), 0, "2.7.7.1");
    // vring_need_event of 2.7.7.2: no step of the device's, however long, passes the event.
    for _ in 0..70_000 {
        for step in 1..=SIZE {
            let (old, new) = (device.next, device.next.wrapping_add(step));
            let distance = new.wrapping_sub(device.used_event()).wrapping_sub(1);
            assert!(distance >= new.wrapping_sub(old));
        }
        device.finish(0, 0);
        assert!(queue.pop().expect("a good ring").is_some());
    }
}

#[test]
fn an_interrupt_is_wanted_for_one_chain() {
    for event_index in [false, true] {
        let (mut queue, mut device) = queue(event_index);
        let wanted = |device: &Device| {
            let flag = device.memory.read::<u16>(device.available) == 0;
            if event_index { device.used_event() == device.next } else { flag }
        };
        assert!(!wanted(&device));
        queue.interrupt_once();
        assert!(wanted(&device));
        device.finish(0, 0);
        assert!(queue.pop().expect("a good ring").is_some());
        assert!(!wanted(&device));
    }
}

#[test]
fn event_indexes_say_when_to_notify() {
    let (mut queue, device) = queue(true);
    let mut index = 0u16;
    // Once around, so that all counters wrap.
    for _ in 0..0x8000 {
        let before = notified();
        // The device waits for the entry after next.
        device.set_available_event(index.wrapping_add(1));
        queue.push(0);
        queue.publish();
        assert_eq!(notified(), before);
        queue.push(0);
        queue.publish();
        assert_eq!(notified(), before + 1);
        index = index.wrapping_add(2);
        memory::with(BASE, |window| window.log.clear());
    }
    assert_eq!(device.available_index(), index);
}

#[test]
fn what_is_used_comes_back_in_order() {
    let (mut queue, mut device) = queue(false);
    assert_eq!(queue.pop(), Ok(None));
    device.finish(3, 10);
    device.finish(0, 11);
    assert_eq!(queue.pop(), Ok(Some(Used { head: 3, length: 10 })));
    assert_eq!(queue.wait(), Ok(Used { head: 0, length: 11 }));
    assert_eq!(queue.pop(), Ok(None));
}

#[test]
fn no_descriptor_is_believed_that_does_not_exist() {
    for head in [u32::from(SIZE), 0x1_0000, u32::MAX] {
        let (mut queue, mut device) = queue(false);
        device.finish(head, 0);
        assert_eq!(queue.pop(), Err(Failure::new(b"bad-used-ring", b"descriptor")));
    }
}
