//! A driver that does anything at all: registers, rings, descriptors and buffers of its choice, in any order.
//!
//! Whatever it does, nothing panics, and after a reset the device can be set up and used as if nothing had happened.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use devices::Device;
use devices::testkit::{Descriptor, DriverQueue, Guest};
use devices::virtio::transport::registers as reg;
use devices::virtio::{TIMER, VirtioDevice};

/// So many steps are one input at most: beyond, nothing new happens.
const STEPS: usize = 128;
/// A reset that takes more milliseconds does not end.
const RESET_LOOKS: u32 = 5000;

#[derive(Debug, Arbitrary)]
enum Step {
    Read { offset: u16, width: u8 },
    Write { offset: u16, bytes: [u8; 8], width: u8 },
    WriteRegister { index: u8, value: u32 },
    SetUp { features: u64 },
    Describe { queue: u8, index: u8, place: Place, length: Length, flags: u8, next: u8 },
    Offer { queue: u8, head: u8 },
    SetIndex { queue: u8, index: u16 },
    Fill { queue: u8, at: u16, bytes: [u8; 48] },
    Notify { queue: u8 },
    Backend { token: u8 },
    Expire,
    Reset,
}

/// Where a buffer is.
#[derive(Debug, Arbitrary)]
enum Place {
    /// Among the queue's data.
    Data(u16),
    /// In its rings.
    Rings(u16),
    Anywhere(u64),
}

#[derive(Debug, Arbitrary)]
enum Length {
    Short(u8),
    Long(u16),
    Any(u32),
}

/// Runs one input against a device.
pub(crate) fn check(data: &[u8], device: Box<dyn VirtioDevice>) {
    let mut input = Unstructured::new(data);
    let mut guest = Guest::new(device);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match Step::arbitrary(&mut input) {
            Ok(step) => run(&mut guest, &step),
            Err(_) => break,
        }
    }
    reset(&mut guest);
    assert_eq!(guest.read(reg::STATUS), 0, "a reset ends");
    guest.set_up(0);
    assert!(!guest.needs_reset(), "and mends everything");
    guest.reset();
}

fn run(guest: &mut Guest, step: &Step) {
    match *step {
        Step::Read { offset, width } => {
            let mut data = [0; 8];
            let width = 1 + usize::from(width % 8);
            let _ = guest.transport.read((offset % 0x1000).into(), &mut data[..width]);
        }
        Step::Write { offset, bytes, width } => {
            let (offset, width) = (u64::from(offset % 0x1000), 1 + usize::from(width % 8));
            write(guest, offset, &bytes[..width]);
        }
        Step::WriteRegister { index, value } => {
            write(guest, u64::from(index % 64) * 4, &value.to_le_bytes());
        }
        Step::SetUp { features } => {
            reset(guest);
            guest.set_up(features);
        }
        Step::Notify { queue } => guest.notify(queue.into()),
        Step::Backend { token } => _ = guest.worker.backend_event(token.into()),
        Step::Expire => _ = guest.worker.backend_event(TIMER),
        Step::Reset => reset(guest),
        _ => run_on_queue(guest, step),
    }
    guest.serve();
}

/// Resets the device and, as drivers do, looks until that is over: the write waits for a second at most, which is not
/// enough where the host has given the event loop no processor for so long.
fn reset(guest: &mut Guest) {
    guest.reset();
    for _ in 0..RESET_LOOKS {
        if guest.read(reg::STATUS) == 0 {
            break;
        }
        guest.serve();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Steps that need a queue; before the device is set up there is none.
fn run_on_queue(guest: &mut Guest, step: &Step) {
    match *step {
        Step::Describe { queue, index, ref place, ref length, flags, next } => {
            let Some(queue) = pick(guest, queue) else { return };
            let address = match *place {
                Place::Data(offset) => queue.descriptors() + 0x10000 + u64::from(offset),
                Place::Rings(offset) => queue.descriptors() + u64::from(offset),
                Place::Anywhere(address) => address,
            };
            let length = match *length {
                Length::Short(length) => length.into(),
                Length::Long(length) => length.into(),
                Length::Any(length) => length,
            };
            let descriptor = Descriptor { address, length, flags: u16::from(flags & 7), next: next.into() };
            queue.set_descriptor(index.into(), descriptor);
        }
        Step::Offer { queue, head } => {
            if let Some(queue) = pick(guest, queue) {
                queue.make_available(head.into());
            }
        }
        Step::SetIndex { queue, index } => {
            if let Some(queue) = pick(guest, queue) {
                queue.set_available_index(index);
            }
        }
        Step::Fill { queue, at, ref bytes } => {
            if let Some(queue) = pick(guest, queue) {
                queue.write(queue.descriptors() + 0x10000 + u64::from(at), bytes);
            }
        }
        _ => {}
    }
}

fn pick(guest: &mut Guest, queue: u8) -> Option<&mut DriverQueue> {
    let index = usize::from(queue).checked_rem(guest.queues.len())?;
    guest.queues.get_mut(index)
}

/// A write to the registers; one that resets the device waits for it, and so needs the event loop beside it.
fn write(guest: &mut Guest, offset: u64, data: &[u8]) {
    if offset == reg::STATUS && data == [0; 4] {
        reset(guest);
    } else {
        let _ = guest.transport.write(offset, data);
    }
}
