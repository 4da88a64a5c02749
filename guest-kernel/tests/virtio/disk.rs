//! The disk driver over a disk of the test's.

use std::cell::RefCell;

use super::memory::Window;
use super::virtio::blk::{Direction, Disk};
use super::virtio::failure::Failure;
use super::{BASE, VERSION_1, arena, device, memory};

const SECTORS: u64 = 64;

thread_local! {
    static CONTENT: RefCell<Vec<u8>> = RefCell::new(vec![0; 512 * SECTORS as usize]);
    static FLUSHES: RefCell<u32> = const { RefCell::new(0) };
}

/// 5.2.6: header, data, status.
fn serve(window: &mut Window) {
    while let Some((head, chain)) = device::next_chain(window, 0) {
        let header = chain[0].read();
        let kind = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        let sector = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        let at = 512 * sector as usize;
        let status = CONTENT.with_borrow_mut(|content| match kind {
            0 | 1 if at + chain[1].length as usize > content.len() => 1,
            0 => {
                chain[1].write(&content[at..at + chain[1].length as usize]);
                0
            }
            1 => {
                assert!(!chain[1].writable);
                let data = chain[1].read();
                content[at..at + data.len()].copy_from_slice(&data);
                0
            }
            4 => {
                FLUSHES.with_borrow_mut(|flushes| *flushes += 1);
                0
            }
            _ => 2,
        });
        chain.last().expect("a status").write(&[status]);
        device::finish(window, 0, head, 1);
    }
}

fn open(features: u64, on_notify: memory::Handler) -> Disk {
    let config = SECTORS.to_le_bytes().to_vec();
    memory::place(BASE, Window { config, on_notify, ..Window::new(2, VERSION_1 | features) });
    Disk::open([].into_iter(), &mut arena(), 2, 4096).expect("a disk")
}

#[test]
fn what_is_written_can_be_read() {
    let mut disk = open(1 << 9, serve);
    assert_eq!(disk.sectors(), SECTORS);
    assert!(!disk.is_read_only());
    disk.data(0).write(0, 0x1122_3344_5566_7788u64);
    disk.data(1).write(4088, 42u64);
    disk.request(0, Direction::Write, 8);
    disk.request(1, Direction::Write, 16);
    disk.publish();
    assert_eq!(disk.wait(), Ok((0, true)));
    assert_eq!(disk.wait(), Ok((1, true)));
    assert_eq!((disk.sector(0), disk.sector(1)), (8, 16));
    assert_eq!(disk.poll(), Ok(None));
    assert_eq!(disk.flush(), Ok(()));
    assert_eq!(FLUSHES.take(), 1);
    CONTENT.with_borrow(|content| assert_eq!(content[4096], 0x88));

    disk.request(0, Direction::Read, 16);
    disk.publish();
    assert_eq!(disk.wait(), Ok((0, true)));
    assert_eq!(disk.data(0).read::<u64>(4088), 42);
}

#[test]
fn a_failed_request_is_told_from_a_good_one() {
    let mut disk = open(0, serve);
    disk.request(0, Direction::Read, SECTORS);
    disk.publish();
    assert_eq!(disk.wait(), Ok((0, false)));
    assert_eq!(disk.flush(), Ok(()), "nothing to do without a cache");
    assert_eq!(FLUSHES.take(), 0);
    assert_eq!(disk.notifications(), 1);
    assert!(open(1 << 5, serve).is_read_only());
}

#[test]
fn a_status_that_was_not_written_is_none() {
    let mut disk = open(0, |window| {
        let (head, _) = device::next_chain(window, 0).expect("a chain");
        device::finish(window, 0, head, 0);
    });
    disk.request(0, Direction::Read, 0);
    disk.publish();
    assert_eq!(disk.wait(), Ok((0, false)));
}

#[test]
fn only_what_is_in_flight_can_end() {
    for head in [1, 3, 7] {
        let mut disk = open(0, |_| {});
        disk.request(0, Direction::Read, 0);
        disk.publish();
        memory::with(BASE, |window| device::finish(window, 0, head, 0));
        assert_eq!(disk.wait(), Err(Failure::new(b"bad-used-ring", b"not-in-flight")), "{head}");
    }
}
