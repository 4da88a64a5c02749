//! The registers, against a device that does nothing but take notes (virtio 1.2, sections 2.1, 2.2, 3.1 and 4.2).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::registers as reg;
use super::*;
use crate::testkit::{
    Buffer, CountingTrigger, Descriptor, DriverQueue, FakeReactor, Guest, INDIRECT, NEXT, WRITE,
};
use crate::virtio::spec::{feature, interrupt, status};
use crate::virtio::*;
use crate::{Device, IoError};

const SIZES: [u16; 2] = [256, 16];
const NEGOTIATED: u32 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;

/// Uses every buffer of its first queue, and drains when it is told to.
#[derive(Default)]
struct Probe {
    events: Arc<AtomicUsize>,
    draining: Arc<AtomicBool>,
    refusing: bool,
    config: Option<ConfigSpace>,
    active: Option<Activation>,
}

impl VirtioDevice for Probe {
    fn identity(&self) -> Identity {
        let config = self.config.clone();
        Identity {
            kind: DeviceKind::Entropy,
            features: 1 << 5 | 1 << 40,
            queue_sizes: SIZES.to_vec(),
            config: config.unwrap_or_else(|| ConfigSpace::new((0..10).collect(), 4..8)),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        if self.refusing {
            let source = std::io::ErrorKind::OutOfMemory.into();
            return Err(DeviceError { what: "no ring".to_owned(), source });
        }
        self.active = Some(activation);
        Ok(())
    }

    fn queue_event(&mut self, queue: usize) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let Some(active) = &mut self.active else { return };
        let mut chain = Chain::new();
        loop {
            match active.queues[queue].pop(&mut chain) {
                Ok(true) => active.queues[queue].add_used(chain.head(), length(chain.writable()) as u32),
                Ok(false) => break,
                Err(_) => return active.link.fail(),
            }
        }
        if active.queues[queue].needs_interrupt() {
            active.link.used();
        }
    }

    fn backend_event(&mut self, _token: u32) {}

    fn reset(&mut self) -> Progress {
        if self.draining.load(Ordering::Relaxed) {
            return Progress::Draining;
        }
        self.active = None;
        Progress::Done
    }

    fn queues(&self) -> &[Queue] {
        self.active.as_ref().map(|active| active.queues.as_slice()).unwrap_or_default()
    }
}

fn guest() -> Guest {
    Guest::new(Box::new(Probe::default()))
}

fn ready_guest() -> Guest {
    let mut guest = guest();
    guest.set_up(u64::MAX);
    guest
}

#[test]
fn a_driver_finds_the_device() {
    let mut guest = guest();
    assert_eq!(guest.read(reg::MAGIC_VALUE), 0x7472_6976);
    assert_eq!(guest.read(reg::VERSION), 2);
    assert_eq!(guest.read(reg::DEVICE_ID), 4);
    assert_eq!(guest.read(reg::VENDOR_ID), 0x6574_6f6d);
    assert_eq!(guest.offered(), 1 << 5 | 1 << 40 | feature::OF_TRANSPORT);
    guest.write(reg::DEVICE_FEATURES_SEL, 2);
    assert_eq!(guest.read(reg::DEVICE_FEATURES), 0);
    assert_eq!(guest.read(reg::SHM_LEN_LOW), u32::MAX, "no shared memory: a length of -1");
}

#[test]
fn registers_take_32_bits_and_nothing_else() {
    let mut guest = guest();
    for width in [1, 2, 8] {
        let mut data = vec![0; width];
        assert!(matches!(guest.transport.read(reg::STATUS, &mut data), Err(IoError::Width(_))));
        assert!(matches!(guest.transport.write(reg::STATUS, &data), Err(IoError::Width(_))));
    }
    assert!(matches!(guest.transport.read(reg::QUEUE_NOTIFY, &mut [0; 4]), Err(IoError::Offset(_))));
    assert!(matches!(guest.transport.read(2, &mut [0; 4]), Err(IoError::Offset(_))));
    assert!(matches!(guest.try_write(reg::MAGIC_VALUE, 0), Err(IoError::Offset(_))));
}

#[test]
fn the_configuration_space_takes_any_width_inside_it() {
    let mut guest = guest();
    let mut eight = [0; 8];
    guest.transport.read(reg::CONFIG + 2, &mut eight).unwrap();
    assert_eq!(eight, [2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(guest.transport.read(reg::CONFIG + 3, &mut eight).is_err(), "a byte too far");
    let _ = guest.transport.write(reg::CONFIG + 4, &[42; 4]).unwrap();
    assert!(guest.transport.write(reg::CONFIG + 7, &[0; 2]).is_err(), "the second is not for the driver");
    assert!(guest.transport.write(reg::CONFIG + 3, &[0; 2]).is_err());
    assert_eq!(guest.config(0, 10), [0, 1, 2, 3, 42, 42, 42, 42, 8, 9]);
}

#[test]
fn a_change_of_the_configuration_is_seen_by_its_generation() {
    let config = ConfigSpace::read_only(vec![1, 2]);
    let mut guest = Guest::new(Box::new(Probe { config: Some(config.clone()), ..Probe::default() }));
    let before = guest.read(reg::CONFIG_GENERATION);
    config.update(1, &[7, 8, 9]);
    assert_ne!(guest.read(reg::CONFIG_GENERATION), before);
    assert_eq!(guest.config(0, 2), [1, 7], "an update ends where the space ends");
}

#[test]
fn features_that_are_not_on_offer_are_not_accepted() {
    // Section 2.2.2: the device refuses FEATURES_OK for a set that it cannot work with.
    for accepted in [0, feature::VERSION_1 | 1 << 6, 1 << 5] {
        let mut guest = guest();
        guest.write(reg::STATUS, status::ACKNOWLEDGE);
        guest.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for half in [0, 1] {
            guest.write(reg::DRIVER_FEATURES_SEL, half);
            guest.write(reg::DRIVER_FEATURES, (accepted >> (32 * half)) as u32);
        }
        guest.write(reg::STATUS, NEGOTIATED);
        assert_eq!(guest.read(reg::STATUS), status::ACKNOWLEDGE | status::DRIVER, "accepted {accepted:#x}");
        assert!(guest.try_write(reg::STATUS, NEGOTIATED | status::DRIVER_OK).is_err());
    }
}

#[test]
fn the_status_goes_one_way() {
    let mut guest = ready_guest();
    assert!(matches!(guest.try_write(reg::STATUS, status::ACKNOWLEDGE), Err(IoError::State(_))));
    assert!(matches!(guest.try_write(reg::DRIVER_FEATURES, 0), Err(IoError::State(_))));
    assert!(matches!(guest.try_write(reg::QUEUE_NUM, 8), Err(IoError::State(_))));
    assert!(matches!(guest.try_write(reg::QUEUE_READY, 0), Err(IoError::State(_))));
    let ok = NEGOTIATED | status::DRIVER_OK;
    assert_eq!(guest.read(reg::STATUS), ok);
    guest.write(reg::STATUS, ok | status::FAILED);
    assert_eq!(guest.read(reg::STATUS), ok | status::FAILED);
}

#[test]
fn buffers_go_to_the_device_and_back() {
    let mut guest = ready_guest();
    guest.send(1, &[Buffer::Readable(b"question"), Buffer::Writable(100)]);
    assert_eq!(guest.queues[1].take_used(), Some((0, 100)));
    assert_eq!(guest.line.take(), 1);
    assert_eq!(guest.read(reg::INTERRUPT_STATUS), interrupt::USED_BUFFER);
    guest.write(reg::INTERRUPT_ACK, interrupt::USED_BUFFER);
    assert_eq!(guest.read(reg::INTERRUPT_STATUS), 0);
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    let mut guest = guest();
    guest.set_up(0);
    guest.queues[0].set_flags(1);
    guest.send(0, &[Buffer::Writable(1)]);
    assert!(guest.queues[0].take_used().is_some());
    assert_eq!(guest.line.take(), 0, "VIRTQ_AVAIL_F_NO_INTERRUPT");
    guest.queues[0].set_flags(0);
    guest.send(0, &[Buffer::Writable(1)]);
    assert_eq!(guest.line.take(), 1);
}

#[test]
fn used_event_tells_when_to_interrupt() {
    // Section 2.7.7.2: an interrupt once the entry at used_event was written.
    let mut guest = ready_guest();
    guest.queues[0].set_used_event(2);
    for expected in [0, 0, 1, 0] {
        guest.send(0, &[Buffer::Writable(1)]);
        assert_eq!(guest.line.take(), expected);
    }
}

#[test]
fn a_million_notifications_rouse_the_loop_once() {
    let mut guest = ready_guest();
    guest.take_wakes();
    for _ in 0..1_000_000 {
        guest.write(reg::QUEUE_NOTIFY, 0);
    }
    assert_eq!(guest.take_wakes(), 1);
}

#[test]
fn notifications_out_of_order_are_refused() {
    let mut guest = guest();
    assert!(matches!(guest.try_write(reg::QUEUE_NOTIFY, 0), Err(IoError::State(_))), "before DRIVER_OK");
    guest.set_up(0);
    for queue in [2, 63, 64, u32::MAX] {
        assert!(matches!(guest.try_write(reg::QUEUE_NOTIFY, queue), Err(IoError::State(_))), "queue {queue}");
    }
}

#[test]
fn queues_that_cannot_be_are_refused() {
    let good = QueueSetup {
        size: 16,
        descriptors: 0x1000,
        available: 0x2000,
        used: 0x3000,
        ..QueueSetup::default()
    };
    let end = crate::testkit::MEMORY as u64;
    let bad = [
        QueueSetup { size: 0, ..good },
        QueueSetup { size: 3, ..good },
        QueueSetup { size: 512, ..good },
        QueueSetup { descriptors: 0x1008, ..good },
        QueueSetup { available: 0x2001, ..good },
        QueueSetup { used: 0x3002, ..good },
        QueueSetup { descriptors: end - 16, ..good },
        QueueSetup { available: end, ..good },
        QueueSetup { used: u64::MAX - 3, ..good },
        QueueSetup { used: 0xd000_0000, ..good },
        QueueSetup { descriptors: 0, ..good },
    ];
    for (setup, sound) in bad.iter().map(|setup| (setup, false)).chain([(&good, true)]) {
        let mut guest = guest();
        guest.write(reg::QUEUE_NUM, setup.size.into());
        let parts = [
            (reg::QUEUE_DESC_LOW, setup.descriptors),
            (reg::QUEUE_DRIVER_LOW, setup.available),
            (reg::QUEUE_DEVICE_LOW, setup.used),
        ];
        for (low, address) in parts {
            guest.write(low, address as u32);
            guest.write(low + 4, (address >> 32) as u32);
        }
        guest.write(reg::QUEUE_READY, 1);
        assert_eq!(guest.read(reg::QUEUE_READY), u32::from(sound), "{setup:?}");
        assert_eq!(guest.needs_reset(), !sound, "{setup:?}");
        assert_eq!(guest.line.take(), 0, "no interrupt before DRIVER_OK");
        guest.write(reg::STATUS, 0);
        assert!(!guest.needs_reset(), "a reset mends it");
    }
}

#[test]
fn chains_that_cannot_be_end_in_needs_reset() {
    let at = |address, length, flags, next| Descriptor { address, length, flags, next };
    type Trick = fn(&mut DriverQueue, fn(u64, u32, u16, u16) -> Descriptor);
    let tricks: [(&str, Trick); 12] = [
        ("a loop", |queue, at| {
            queue.set_descriptor(0, at(0x9000, 1, NEXT, 0));
            queue.make_available(0);
        }),
        ("a head beyond the table", |queue, _| queue.make_available(999)),
        ("a next beyond the table", |queue, at| {
            queue.set_descriptor(0, at(0x9000, 1, NEXT, 256));
            queue.make_available(0);
        }),
        ("an index that is far ahead", |queue, _| queue.set_available_index(4000)),
        ("a buffer behind the memory", |queue, at| _ = queue.add_descriptors(&[at(16 << 20, 1, 0, 0)])),
        ("a buffer over the end", |queue, at| _ = queue.add_descriptors(&[at((16 << 20) - 1, 2, 0, 0)])),
        ("a length that wraps", |queue, at| _ = queue.add_descriptors(&[at(u64::MAX, 2, WRITE, 0)])),
        ("a table in a table", |queue, at| _ = queue.add_indirect(&[at(0x9000, 16, INDIRECT, 0)])),
        ("an empty table", |queue, at| _ = queue.add_descriptors(&[at(0x9000, 0, INDIRECT, 0)])),
        ("half a descriptor", |queue, at| _ = queue.add_descriptors(&[at(0x9000, 24, INDIRECT, 0)])),
        ("readable after writable", |queue, at| {
            queue.add_descriptors(&[at(0x9000, 1, WRITE | NEXT, 0), at(0x9000, 1, 0, 0)]);
        }),
        ("a chain longer than the queue", |queue, at| {
            let mut table = vec![at(0x9000, 1, NEXT, 0); 300];
            table.push(at(0x9000, 1, 0, 0));
            queue.add_indirect(&table);
        }),
    ];
    for (name, trick) in tricks {
        let mut guest = ready_guest();
        trick(&mut guest.queues[0], at);
        guest.notify(0);
        assert!(guest.needs_reset(), "{name}");
        assert!(guest.worker.counters().faults > 0, "{name} is counted");
        assert_eq!(guest.read(reg::INTERRUPT_STATUS), interrupt::CONFIGURATION_CHANGE, "{name}");
        assert_eq!(guest.line.take(), 1, "{name}");
        guest.notify(0);
        assert_eq!(guest.line.take(), 0, "{name}: a device that needs a reset does nothing more");
        guest.reset();
        guest.set_up(0);
        guest.send(0, &[Buffer::Writable(1)]);
        assert!(guest.queues[0].take_used().is_some(), "{name}: a reset mends it");
    }
}

#[test]
fn a_reset_with_requests_in_flight_is_over_when_they_are() {
    let probe = Probe::default();
    let draining = Arc::clone(&probe.draining);
    let mut guest = Guest::new(Box::new(probe));
    guest.set_up(0);
    draining.store(true, Ordering::Relaxed);
    guest.reset();
    assert_ne!(guest.read(reg::STATUS), 0, "not yet");
    assert!(guest.try_write(reg::STATUS, status::ACKNOWLEDGE).is_err());
    assert!(guest.try_write(reg::QUEUE_NOTIFY, 0).is_err());
    draining.store(false, Ordering::Relaxed);
    assert!(matches!(guest.worker.backend_event(0), Served::Deactivated));
    assert_eq!(guest.read(reg::STATUS), 0);
    guest.set_up(0);
    guest.send(0, &[Buffer::Writable(1)]);
    assert!(guest.queues[0].take_used().is_some());
}

#[test]
fn a_reset_before_the_device_was_told_of_its_driver() {
    let probe = Probe::default();
    let events = Arc::clone(&probe.events);
    let mut guest = Guest::new(Box::new(probe));
    guest.set_up(0);
    guest.reset();
    events.store(0, Ordering::Relaxed);
    guest.worker.queue_event(0);
    assert_eq!(events.load(Ordering::Relaxed), 0, "an event that comes late is nobody's");
}

#[test]
fn a_host_that_refuses_is_not_the_guests_fault() {
    let mut guest = Guest::new(Box::new(Probe { refusing: true, ..Probe::default() }));
    guest.set_up_queues();
    for status in [1, 3] {
        guest.write(reg::STATUS, status);
    }
    guest.write(reg::DRIVER_FEATURES_SEL, 1);
    guest.write(reg::DRIVER_FEATURES, 1);
    guest.write(reg::STATUS, NEGOTIATED);
    guest.write(reg::STATUS, NEGOTIATED | status::DRIVER_OK);
    assert!(matches!(guest.serve(), Served::Refused(error) if error.what == "no ring"));
    assert!(guest.needs_reset());
    assert_eq!((guest.line.take(), guest.worker.counters().faults), (1, 0));
}

#[test]
fn nobody_waits_for_a_device_that_is_gone() {
    let Guest { mut transport, worker, .. } = ready_guest();
    drop(worker);
    let start = Instant::now();
    let _ = transport.write(reg::STATUS, &[0; 4]).unwrap();
    let mut status = [0xff; 4];
    transport.read(reg::STATUS, &mut status).unwrap();
    assert_eq!(status, [0; 4]);
    assert!(start.elapsed().as_millis() < 900, "not the wait of a device that does not answer");
}

/// Writes what a driver writes to begin with one queue, the first.
fn begin(transport: &mut MmioTransport, queue: &DriverQueue) {
    queue.write(queue.descriptors(), &[0; 0x10000]);
    let ready = [
        (reg::STATUS, status::ACKNOWLEDGE),
        (reg::STATUS, status::ACKNOWLEDGE | status::DRIVER),
        (reg::DRIVER_FEATURES_SEL, 1),
        (reg::DRIVER_FEATURES, (feature::VERSION_1 >> 32) as u32),
        (reg::STATUS, NEGOTIATED),
        (reg::QUEUE_NUM, queue.size().into()),
        (reg::QUEUE_DESC_LOW, queue.descriptors() as u32),
        (reg::QUEUE_DRIVER_LOW, queue.available() as u32),
        (reg::QUEUE_DEVICE_LOW, queue.used() as u32),
        (reg::QUEUE_READY, 1),
        (reg::STATUS, NEGOTIATED | status::DRIVER_OK),
    ];
    for (register, value) in ready {
        let _ = transport.write(register, &u32::to_le_bytes(value)).expect("a write in order");
    }
}

#[test]
fn between_two_threads_no_notification_and_no_reset_is_lost() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let memory = crate::testkit::memory();
    let (sender, wakes) = mpsc::channel();
    let wake = Box::new(move || sender.send(()).unwrap_or_default());
    let line = Box::new(CountingTrigger::default());
    let (mut transport, mut worker) = connect(Box::new(Probe::default()), memory.clone(), line, wake);
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        // The loop looks only when it is roused.
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if wakes.recv_timeout(Duration::from_millis(100)).is_ok() {
                    worker.serve(|| Box::new(FakeReactor::default()));
                }
            }
        });
        let answered = (0..20).all(|_| {
            let mut queue = DriverQueue::new(memory.clone(), DriverQueue::ARENA, 16);
            begin(&mut transport, &queue);
            let answered = (0..500).all(|_| {
                queue.add(&[Buffer::Writable(1)]);
                let _ = transport.write(reg::QUEUE_NOTIFY, &[0; 4]);
                let start = Instant::now();
                while queue.take_used().is_none() {
                    if start.elapsed() > PATIENCE {
                        return false;
                    }
                    thread::yield_now();
                }
                true
            });
            let mut status = [0xff; 4];
            let _ = transport.write(reg::STATUS, &[0; 4]);
            answered && transport.read(reg::STATUS, &mut status).is_ok() && status == [0; 4]
        });
        over.store(true, Ordering::Relaxed);
        assert!(answered);
    });
}

#[test]
fn state_round_trip() {
    let mut guest = ready_guest();
    for _ in 0..20 {
        guest.send(1, &[Buffer::Writable(8)]);
    }
    let state = guest.transport.save(&guest.worker.positions());
    let text = serde_json::to_string(&state).unwrap();
    let state: TransportState = serde_json::from_str(&text).unwrap();

    let Parts { memory, queues } = guest_parts(guest);
    let mut restored = Guest::with_memory(Box::new(Probe::default()), memory);
    restored.transport.restore(&state).unwrap();
    restored.queues = queues;
    assert!(matches!(restored.serve(), Served::Activated));
    assert_eq!(restored.transport.save(&restored.worker.positions()), state);
    restored.send(1, &[Buffer::Writable(77)]);
    let last = std::iter::from_fn(|| restored.queues[1].take_used()).last();
    assert_eq!(last.map(|(_, written)| written), Some(77), "it goes on where it was");
}

struct Parts {
    memory: vm_memory::GuestMemoryMmap,
    queues: Vec<DriverQueue>,
}

fn guest_parts(guest: Guest) -> Parts {
    Parts { memory: guest.memory().clone(), queues: guest.queues }
}

#[test]
fn a_reset_that_is_over_is_saved_as_such() {
    let probe = Probe::default();
    let draining = Arc::clone(&probe.draining);
    let mut guest = Guest::new(Box::new(probe));
    guest.set_up(0);
    draining.store(true, Ordering::Relaxed);
    guest.reset();
    draining.store(false, Ordering::Relaxed);
    guest.worker.backend_event(0);
    let state = guest.transport.save(&guest.worker.positions());
    let mut restored = Guest::with_memory(Box::new(Probe::default()), guest.memory().clone());
    restored.transport.restore(&state).unwrap();
    assert!(matches!(restored.serve(), Served::Nothing), "nothing is activated");
    assert_eq!(restored.read(reg::STATUS), 0);
}

#[test]
fn features_that_were_not_yet_refused_are_saved() {
    let mut guest = guest();
    guest.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
    guest.write(reg::DRIVER_FEATURES, 1 << 7);
    let state = guest.transport.save(&guest.worker.positions());
    let mut restored = Guest::new(Box::new(Probe::default()));
    restored.transport.restore(&state).unwrap();
    restored.write(reg::STATUS, NEGOTIATED);
    assert_eq!(restored.read(reg::STATUS) & status::FEATURES_OK, 0);
}

#[test]
fn buffers_that_were_notified_too_early_are_found() {
    // The driver is quicker than the loop: it has set DRIVER_OK, and its notification comes first.
    let mut guest = ready_guest();
    guest.queues[1].add(&[Buffer::Writable(3)]);
    let state = guest.transport.save(&guest.worker.positions());
    let Parts { memory, queues } = guest_parts(guest);
    let mut late = Guest::with_memory(Box::new(Probe::default()), memory);
    late.queues = queues;
    late.transport.restore(&state).unwrap();
    late.worker.queue_event(1);
    assert!(late.queues[1].take_used().is_none(), "the device is not active yet");
    late.serve();
    assert_eq!(late.queues[1].take_used(), Some((0, 3)));
}

#[test]
fn damaged_states_are_refused() {
    let mut guest = ready_guest();
    let good = serde_json::to_value(guest.transport.save(&guest.worker.positions())).unwrap();
    let damages = [
        ("version", serde_json::json!(2)),
        ("device_id", serde_json::json!(1)),
        ("status", serde_json::json!(1 << 20)),
        ("status", serde_json::json!(status::DRIVER_OK)),
        ("accepted", serde_json::json!(1u64 << 50)),
        ("accepted", serde_json::json!(0)),
        ("interrupt_status", serde_json::json!(4)),
        ("queues", serde_json::json!([])),
        ("config", serde_json::json!([1, 2, 3])),
    ];
    for (field, value) in damages {
        let mut damaged = good.clone();
        damaged[field] = value;
        let state: TransportState = serde_json::from_value(damaged).unwrap();
        let mut fresh = Guest::with_memory(Box::new(Probe::default()), guest.memory().clone());
        assert!(fresh.transport.restore(&state).is_err(), "{field}");
    }
    let mut damaged = good;
    damaged["queues"][0]["descriptors"] = serde_json::json!(u64::MAX - 15);
    let state: TransportState = serde_json::from_value(damaged).unwrap();
    assert!(
        Guest::new(Box::new(Probe::default())).transport.restore(&state).is_err(),
        "a queue outside memory"
    );
}

/// An access as a guest may make it, mostly to registers that exist.
fn access() -> impl Strategy<Value = (bool, u64, Vec<u8>)> {
    let offset = prop_oneof![
        4 => (0u64..0x48).prop_map(|register| register * 4),
        1 => 0u64..0x1000,
    ];
    let data = prop_oneof![
        6 => (0u32..0x1000).prop_map(|value| value.to_le_bytes().to_vec()),
        2 => any::<[u8; 4]>().prop_map(|bytes| bytes.to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..9),
    ];
    (any::<bool>(), offset, data)
}

proptest! {
    /// Whatever is written, nothing panics, a reset brings the device back, and a driver can then set it up.
    #[test]
    fn arbitrary_accesses_are_survived(accesses in proptest::collection::vec(access(), 1..200)) {
        let mut guest = guest();
        for (write, offset, mut data) in accesses {
            // A reset waits for the loop; here that is this thread.
            let reset = write && offset == reg::STATUS && data == [0; 4];
            if reset {
                guest.reset();
            } else if write {
                let _ = guest.transport.write(offset, &data);
            } else {
                let _ = guest.transport.read(offset, &mut data);
            }
            guest.serve();
        }
        guest.reset();
        prop_assert_eq!(guest.read(reg::STATUS), 0);
        guest.set_up(0);
        guest.send(0, &[Buffer::Writable(5)]);
        prop_assert!(guest.queues[0].take_used().is_some());
    }

    /// Section 2.7.5: whatever stands in a descriptor table, a chain that is taken is wholly inside memory, and no longer than the queue.
    #[test]
    fn arbitrary_tables_are_survived(
        table in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u16>(), 0u16..20), 16),
        near in any::<[bool; 16]>(),
        heads in proptest::collection::vec(0u16..20, 1..16),
    ) {
        let memory = crate::testkit::memory();
        let mut driver = DriverQueue::new(memory.clone(), DriverQueue::ARENA, 16);
        for (index, (&(address, length, flags, next), near)) in (0..).zip(table.iter().zip(near)) {
            // Half of them near the truth, for more than the first check to be tested.
            let (address, length) = if near { (address % (16 << 20), length % 4096) } else { (address, length) };
            driver.set_descriptor(index, Descriptor { address, length, flags: flags & 7, next });
        }
        let setup = QueueSetup {
            size: 16, ready: true, descriptors: driver.descriptors(), available: driver.available(),
            used: driver.used(), ..QueueSetup::default()
        };
        let mut queue = Queue::new(&setup, 16, false, memory).unwrap();
        let mut chain = Chain::new();
        for head in heads {
            driver.make_available(head);
            match queue.pop(&mut chain) {
                Ok(taken) => {
                    prop_assert!(taken);
                    let segments = [chain.readable(), chain.writable()].concat();
                    prop_assert!(!segments.is_empty() && segments.len() <= 16);
                    for segment in segments.iter().filter(|segment| !segment.is_empty()) {
                        prop_assert!(segment.address().0 + segment.len() as u64 <= 16 << 20);
                    }
                    queue.add_used(chain.head(), 0);
                    prop_assert_eq!(driver.take_used(), Some((head, 0)));
                }
                Err(_) => break,
            }
        }
    }

    /// Section 2.7.4.2 (message framing): how the driver cuts its request into buffers makes no difference.
    #[test]
    fn any_framing_reads_and_writes_the_same(
        cuts in proptest::collection::vec(0usize..40, 0..10), offset in 0usize..50, count in 0usize..50,
    ) {
        let text: Vec<u8> = (0..40).collect();
        let mut cuts = cuts;
        cuts.extend([0, 40]);
        cuts.sort_unstable();
        let memory = crate::testkit::memory();
        let mut driver = DriverQueue::new(memory.clone(), DriverQueue::ARENA, 64);
        let readable = cuts.windows(2).map(|cut| Buffer::Readable(&text[cut[0]..cut[1]]));
        let writable = cuts.windows(2).map(|cut| Buffer::Writable((cut[1] - cut[0]) as u32));
        let (_, addresses) = driver.add(&readable.chain(writable).collect::<Vec<_>>());
        let setup = QueueSetup {
            size: 64, ready: true, descriptors: driver.descriptors(), available: driver.available(),
            used: driver.used(), ..QueueSetup::default()
        };
        let mut queue = Queue::new(&setup, 64, false, memory.clone()).unwrap();
        let mut chain = Chain::new();
        prop_assert!(queue.pop(&mut chain).unwrap());
        prop_assert_eq!((length(chain.readable()), length(chain.writable())), (40, 40));

        let mut bytes = vec![0; count];
        let fits = offset + count <= 40;
        prop_assert_eq!(chain.read_at(&memory, offset, &mut bytes), fits || count == 0);
        if fits {
            prop_assert_eq!(&bytes, &text[offset..offset + count]);
            prop_assert!(chain.write_at(&memory, offset, &bytes));
            let all: Vec<u8> = cuts.windows(2).zip(&addresses[cuts.len() - 1..])
                .flat_map(|(cut, &address)| driver.read(address, cut[1] - cut[0])).collect();
            prop_assert_eq!(&all[offset..offset + count], &bytes[..]);
        }
        let mut parts = Vec::new();
        prop_assert!(chain.write_last(&memory, 0xa5));
        let mut written = cuts.windows(2).zip(&addresses[cuts.len() - 1..]);
        let last = written.rfind(|(cut, _)| cut[0] < cut[1]);
        prop_assert_eq!(last.map(|(cut, &address)| driver.read(address + (cut[1] - cut[0] - 1) as u64, 1)), Some(vec![0xa5]));
        let got = cut(chain.writable(), offset, count, &mut parts);
        prop_assert_eq!(got, count.min(40usize.saturating_sub(offset)));
        prop_assert_eq!(length(&parts), got);
    }
}
