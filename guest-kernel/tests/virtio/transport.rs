//! From reset to DRIVER_OK.

use boot::layout;

use super::memory::Window;
use super::options;
use super::virtio::failure::Failure;
use super::virtio::mmio::{Kind, Transport, default_windows};
use super::{BASE, EVENT_IDX, VERSION_1, arena, memory};

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const STATUS: u64 = 0x070;

fn open(windows: &[u64]) -> Result<Transport, Failure> {
    let windows = windows.iter().map(|&base| options::Window { base, gsi: Some(5) });
    Transport::open(Kind::Block, windows, EVENT_IDX | 1 << 5)
}

#[test]
fn takes_the_steps_of_section_3_1_1_in_their_order() {
    memory::place(BASE, Window::new(2, VERSION_1 | EVENT_IDX | 1));
    let transport = open(&[]).expect("a device");
    transport.start();
    let steps = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
    let mut status = 0;
    let expected: Vec<u32> = std::iter::once(0)
        .chain(steps.into_iter().map(|step| {
            status |= step;
            status
        }))
        .collect();
    memory::with(BASE, |window| {
        assert_eq!(window.written(STATUS), expected);
        // Only what both know, in two halves: DriverFeaturesSel and DriverFeatures.
        assert_eq!(window.written(0x024), [0, 1]);
        assert_eq!(window.written(0x020), [1 << 29, 1]);
    });
    assert!(transport.has(EVENT_IDX));
    assert!(!transport.has(1 << 5));
}

#[test]
fn searches_the_windows_of_the_command_line_or_else_those_of_mote() {
    let other = 0xc000_1000;
    memory::place(BASE, Window::new(1, VERSION_1));
    memory::place(BASE + 0x1000, Window::new(2, VERSION_1));
    memory::place(BASE + 0x3000, Window::new(19, VERSION_1));
    memory::place(other, Window::new(2, VERSION_1));
    assert_eq!(open(&[]).expect("mote's").gsi(), Some(17));
    memory::with(BASE + 0x1000, |window| assert!(!window.log.is_empty()));
    memory::with(other, |window| assert!(window.log.is_empty()));
    assert_eq!(open(&[0xc000_0000, other]).expect("the other").gsi(), Some(5));
    memory::with(other, |window| assert!(!window.log.is_empty()));
    // The search ends at the first window that is not there.
    let vsock = Transport::open(Kind::Vsock, [].into_iter(), 0);
    assert_eq!(vsock.err(), Some(Failure::new(b"no-device", b"of-this-type")));
    assert!(open(&[BASE]).is_err(), "of another type");
}

#[test]
fn refuses_a_device_that_will_not_have_it() {
    memory::place(BASE, Window::new(2, EVENT_IDX));
    assert_eq!(open(&[]).err(), Some(Failure::new(b"features", b"no-version-1")));
    memory::place(BASE, Window { refused_status: FEATURES_OK, ..Window::new(2, VERSION_1) });
    assert_eq!(open(&[]).err(), Some(Failure::new(b"features", b"refused")));
    memory::place(BASE, Window { queue_size_max: 128, ..Window::new(2, VERSION_1) });
    let transport = open(&[]).expect("a device");
    let queue = transport.queue(0, 129, &mut arena());
    assert_eq!(queue.err(), Some(Failure::new(b"queue-too-small", b"queue-num-max")));
}

#[test]
fn an_interrupt_is_acknowledged_where_there_is_one() {
    memory::place(BASE, Window::new(2, VERSION_1));
    let transport = open(&[]).expect("a device");
    assert!(!transport.acknowledge());
    memory::with(BASE, |window| {
        assert!(window.written(0x064).is_empty());
        window.registers.insert(0x060, 1);
    });
    assert!(transport.acknowledge());
    memory::with(BASE, |window| assert_eq!(window.written(0x064), [1]));
}

/// The program knows them by heart; nothing else ties its numbers to those of the machine.
#[test]
fn the_default_windows_are_those_of_the_machine() {
    let windows: Vec<_> = default_windows().collect();
    assert!(windows.iter().filter(|window| window.gsi.is_some()).count() >= 5, "interrupts");
    for (slot, window) in (0..).zip(&windows) {
        assert_eq!(window.base, layout::VIRTIO_MMIO_START + slot * layout::VIRTIO_MMIO_SIZE);
        let gsi = layout::VIRTIO_GSIS[slot as usize % layout::VIRTIO_GSIS.len()];
        assert!(window.gsi.is_none_or(|known| u32::from(known) == gsi), "window {slot}: {:?}", window.gsi);
    }
}
