//! Requests in every framing, and bytes that are none (virtio 1.2, section 5.2.6).

use proptest::prelude::*;
use vm_memory::GuestMemoryMmap;

use super::*;
use crate::testkit::{self, Descriptor, DriverQueue, NEXT, WRITE};
use crate::virtio::transport::QueueSetup;
use crate::virtio::{Queue, length};

const BOUNDS: Bounds = Bounds { sectors: 1000, read_only: false };
const READ_ONLY: Bounds = Bounds { read_only: true, ..BOUNDS };

/// The chain of `sent` and room for `room` bytes, cut into descriptors of `cuts` bytes; what is left is one more.
fn chain(sent: &[u8], room: u32, cuts: &[u32]) -> (Chain, GuestMemoryMmap) {
    let memory = testkit::memory();
    let mut driver = DriverQueue::new(memory.clone(), DriverQueue::ARENA, 256);
    let mut cuts = cuts.iter().copied();
    let mut descriptors = Vec::new();
    for (address, total, flags) in [(0x40_0000, sent.len() as u32, 0), (0x60_0000, room, WRITE)] {
        driver.write(0x40_0000, sent);
        let mut done = 0;
        while done < total {
            let length = cuts.next().unwrap_or(u32::MAX).min(total - done);
            let address = address + u64::from(done);
            descriptors.push(Descriptor { address, length, flags: flags | NEXT, next: 0 });
            done += length;
        }
    }
    descriptors.last_mut().expect("a chain is not empty").flags &= !NEXT;
    driver.add_indirect(&descriptors);
    let setup = QueueSetup {
        size: 256,
        ready: true,
        descriptors: driver.descriptors(),
        available: driver.available(),
        used: driver.used(),
        ..QueueSetup::default()
    };
    let mut queue = Queue::new(&setup, 256, false, memory.clone()).unwrap();
    let mut chain = Chain::new();
    assert_eq!(queue.pop(&mut chain), Ok(true));
    (chain, memory)
}

fn parse(bounds: Bounds, sent: &[u8], room: u32) -> Result<Request, Refused> {
    let (chain, memory) = chain(sent, room, &[16, 4096]);
    Request::parse(&chain, &memory, bounds)
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn write(sector: u64, length: usize) -> Vec<u8> {
    [header(request::OUT, sector), vec![1; length]].concat()
}

fn range(kind: u32, sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let range = [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat();
    [header(kind, 0), range].concat()
}

#[test]
fn sound_requests_are_understood() {
    let all = [
        (header(request::IN, 3), 1025, Request::Read { offset: 1536, length: 1024 }),
        (write(999, 512), 1, Request::Write { offset: 999 * 512, length: 512 }),
        (header(request::FLUSH, 0), 1, Request::Flush),
        (header(request::GET_ID, 0), 21, Request::GetId),
        (range(request::DISCARD, 8, 16, 0), 1, Request::Discard { offset: 4096, length: 8192 }),
        (
            range(request::WRITE_ZEROES, 992, 8, UNMAP),
            1,
            Request::WriteZeroes { offset: 992 * 512, length: 4096, unmap: true },
        ),
        (
            range(request::WRITE_ZEROES, 0, 1000, 0),
            1,
            Request::WriteZeroes { offset: 0, length: 512_000, unmap: false },
        ),
    ];
    for (sent, room, request) in all {
        assert_eq!(parse(BOUNDS, &sent, room), Ok(request));
    }
}

#[test]
fn requests_that_make_no_sense_fail() {
    let beyond = u64::from(u32::MAX) << 32;
    let all = [
        ("no whole sectors", header(request::IN, 0), 1024),
        ("a sector too far", header(request::IN, 999), 1025),
        ("a sector number that wraps", header(request::IN, u64::MAX), 513),
        ("an offset that wraps", header(request::IN, 1 << 55), 513),
        ("data in a read", [header(request::IN, 0), vec![0; 512]].concat(), 513),
        ("no whole sectors", write(0, 511), 1),
        ("a sector too far", write(1000, 512), 1),
        ("room in a write", write(0, 512), 2),
        ("half a header", vec![0; 15], 513),
        ("no range", header(request::DISCARD, 0), 1),
        ("half a range", range(request::DISCARD, 0, 1, 0)[..24].to_vec(), 1),
        ("two ranges", [range(request::DISCARD, 0, 1, 0), vec![0; 16]].concat(), 1),
        ("a range too far", range(request::DISCARD, 999, 2, 0), 1),
        ("a range that wraps", range(request::WRITE_ZEROES, beyond, u32::MAX, 0), 1),
    ];
    for (what, sent, room) in all {
        assert_eq!(parse(BOUNDS, &sent, room), Err(Refused::Status(status::IOERR)), "{what}");
    }
    let wide = Bounds { sectors: 1 << 40, ..BOUNDS };
    let long = range(request::DISCARD, 0, MAX_RANGE_SECTORS + 1, 0);
    assert_eq!(parse(wide, &long, 1), Err(Refused::Status(status::IOERR)));
    assert!(wide.transfer(0, MAX_TRANSFER).is_ok());
    assert_eq!(wide.transfer(0, MAX_TRANSFER + 512), Err(Refused::Status(status::IOERR)));
}

#[test]
fn what_the_device_does_not_do_is_not_supported() {
    // Section 5.2.6.2: "The device MUST set the status byte to VIRTIO_BLK_S_UNSUPP for discard, secure erase and write zeroes
    // commands if any unknown flag is set. Furthermore, the device MUST set the status byte to VIRTIO_BLK_S_UNSUPP for
    // discard commands if the unmap flag is set."
    let all = [
        range(request::DISCARD, 0, 1, UNMAP),
        range(request::DISCARD, 0, 1, 1 << 31),
        range(request::WRITE_ZEROES, 0, 1, 2),
        header(request::GET_ID + 1, 0),
        header(u32::MAX, 0),
    ];
    for sent in all {
        assert_eq!(parse(BOUNDS, &sent, 1), Err(Refused::Status(status::UNSUPP)));
    }
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    // Section 5.2.6.2: "A device MUST set the status byte to VIRTIO_BLK_S_IOERR for a write request if the VIRTIO_BLK_F_RO
    // feature if offered, and MUST NOT write any data."
    let changes = [write(0, 512), range(request::DISCARD, 0, 1, 0), range(request::WRITE_ZEROES, 0, 1, 0)];
    for sent in changes {
        assert_eq!(parse(READ_ONLY, &sent, 1), Err(Refused::Status(status::IOERR)));
    }
    assert!(parse(READ_ONLY, &header(request::IN, 0), 513).is_ok());
}

#[test]
fn without_room_for_a_status_there_is_no_answer() {
    assert_eq!(parse(BOUNDS, &header(request::FLUSH, 0), 0), Err(Refused::Unanswerable));
    assert_eq!(parse(BOUNDS, &write(0, 512), 0), Err(Refused::Unanswerable));
}

proptest! {
    /// Section 2.7.4.1: "The device MUST NOT make assumptions about the particular arrangement of descriptors."
    #[test]
    fn framing_makes_no_difference(
        kind in prop_oneof![0u32..16, any::<u32>()],
        sector in prop_oneof![0u64..1010, any::<u64>()],
        data in 0usize..2000,
        room in 0u32..2000,
        cuts in prop::collection::vec(20u32..700, 1..8),
        first in prop::collection::vec(1u32..5, 16..20),
    ) {
        let sent = [header(kind, sector), vec![0; data]].concat();
        let cuts = [first, cuts].concat();
        let (chain, memory) = chain(&sent, room, &cuts);
        prop_assert_eq!(Request::parse(&chain, &memory, BOUNDS), parse(BOUNDS, &sent, room));
    }

    /// Whatever is asked for: what is carried out is inside the disk, and its data is where the driver put it.
    #[test]
    fn nothing_outside_the_disk_is_reached(
        kind in 0u32..16,
        sector in prop_oneof![0u64..1010, any::<u64>()],
        payload in prop::collection::vec(any::<u8>(), 0..64),
        room in 0u32..20_000,
        sectors in prop_oneof![0u64..100, any::<u64>().prop_map(|sectors| sectors >> 10)],
    ) {
        let sent = [header(kind, sector), payload].concat();
        let (chain, memory) = chain(&sent, room, &[7, 4096]);
        let bounds = Bounds { sectors, read_only: false };
        if let Ok(request) = Request::parse(&chain, &memory, bounds) {
            let mut data = Vec::new();
            request.data(&chain, &mut data);
            prop_assert_eq!(length(&data), request.transfer() as usize);
            if let Request::Read { offset, length }
            | Request::Write { offset, length }
            | Request::Discard { offset, length }
            | Request::WriteZeroes { offset, length, .. } = request
            {
                prop_assert!(offset.is_multiple_of(SECTOR) && u64::from(length).is_multiple_of(SECTOR));
                prop_assert!(u128::from(offset) + u128::from(length) <= u128::from(sectors) * 512);
            }
        }
    }
}
