//! The network driver over an interface of the test's, and its frames.

use super::frames::{self, Kind};
use super::memory::Window;
use super::virtio::net::{Interface, Segmentation};
use super::{BASE, VERSION_1, arena, device, memory};

const MAC: [u8; 6] = [6, 0, 0, 0, 0, 2];

/// Sends requests back, with the addresses exchanged.
fn echo(window: &mut Window) {
    while let Some((head, chain)) = device::next_chain(window, 1) {
        let sent = chain[0].read();
        let (header, frame) = sent.split_at(12);
        assert_eq!(header, [0; 12]);
        let back = [header, &frame[6..12], &frame[..6], &frame[12..]].concat();
        let (into, buffers) = device::next_chain(window, 0).expect("a buffer");
        buffers[0].write(&back);
        device::finish(window, 0, into, back.len() as u32);
        device::finish(window, 1, head, 0);
    }
}

fn open(features: u64, on_notify: memory::Handler) -> Interface {
    memory::place(BASE, Window { config: MAC.to_vec(), on_notify, ..Window::new(1, VERSION_1 | features) });
    Interface::open([].into_iter(), &mut arena(), 2, 100).expect("an interface")
}

#[test]
fn a_request_is_answered_more_often_than_there_are_buffers() {
    let mut interface = open(1 << 5, echo);
    assert_eq!(interface.mac(), MAC);
    interface.prepare(0, 60, None);
    for number in 0..500 {
        interface.frame(0).write_bytes(0, &frames::header(MAC, Kind::Request, number));
        interface.send(0);
        interface.publish();
        assert_eq!(interface.wait_sent(), Ok(0));
        let reply = interface.poll_received(|frame| {
            assert_eq!(frame.length(), 60);
            frames::is_reply(&frame.read_bytes(0), MAC, number)
        });
        assert_eq!(reply, Ok(Some(true)));
        assert_eq!(interface.poll_received(|_| ()), Ok(None));
    }
}

#[test]
fn a_frame_that_ends_before_its_header_is_refused() {
    let mut interface = open(0, |_| {});
    memory::with(BASE, |window| {
        let (head, _) = device::next_chain(window, 0).expect("a buffer");
        device::finish(window, 0, head, 11);
    });
    assert!(interface.poll_received(|_| ()).is_err());
    assert_eq!(interface.mac()[0] & 3, 2, "locally administered, one station's");
}

#[test]
fn segmentation_is_asked_for_as_section_5_1_6_2_says() {
    let mut interface = open(1 | 1 << 11, |window| {
        let Some((head, chain)) = device::next_chain(window, 1) else { return };
        assert_eq!(chain[0].length, 12 + 100);
        assert_eq!(chain[0].read()[..12], [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]);
        device::finish(window, 1, head, 0);
    });
    assert!(interface.segments());
    let segmentation = Segmentation { headers: 54, size: 1460, checksum_start: 34, checksum_offset: 16 };
    interface.prepare(1, 100, Some(segmentation));
    interface.send(1);
    interface.publish();
    assert_eq!(interface.wait_sent(), Ok(1));
}

#[test]
fn the_headers_of_a_large_segment_are_right() {
    let sum = |bytes: &[u8]| {
        let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]));
        let sum: u64 = words.sum();
        (sum & 0xffff) + (sum >> 16)
    };
    let frame = frames::tcp_headers(MAC, 54 + 2920);
    assert_eq!(frame[12..16], [8, 0, 0x45, 0]);
    assert_eq!(u16::from_be_bytes([frame[16], frame[17]]), 40 + 2920);
    assert_eq!(sum(&frame[14..34]), 0xffff, "RFC 1071");
    let pseudo = [&frame[26..34], &[0, 6], &(20u16 + 2920).to_be_bytes()].concat();
    assert_eq!(sum(&frame[50..52]), sum(&pseudo));
}
