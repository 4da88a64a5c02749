//! Hosts that fail, drivers that break the rules, and files that are no disks.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::pipe::pipe;

use super::*;
use crate::testkit::{INDIRECT, MEMORY};
use crate::virtio::Served;

#[test]
fn what_is_no_disk_is_refused_in_one_line() {
    let open = |options: &BlockOptions| Block::open(options).map(|_| ()).unwrap_err();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");

    let error = open(&BlockOptions::new(&path));
    let line = format!(
        "cannot open disk {path:?}; check that it is there, and that this user may read and write it"
    );
    assert_eq!(error.to_string(), line);

    let error = open(&BlockOptions::new(directory.path()));
    assert!(matches!(error, BlockError::Kind { .. }), "{error}");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let error = open(&BlockOptions::new(&path));
    assert!(matches!(error, BlockError::Kind { .. }), "and a FIFO is not waited for: {error}");

    let path = directory.path().join("small");
    std::fs::write(&path, [0; 511]).unwrap();
    assert!(matches!(open(&BlockOptions::new(&path)), BlockError::Small { .. }));
    std::fs::write(&path, [0; 1025]).unwrap();
    let disk = Block::open(&BlockOptions::new(&path)).unwrap();
    assert_eq!(disk.ignored_tail(), 1);
    drop(disk);

    for queues in [0, 65] {
        let error = open(&BlockOptions { queues, ..BlockOptions::new(&path) });
        assert!(matches!(error, BlockError::Queues { .. }));
    }
    for id in ["a name of 21 letters.", "tab\t"] {
        let error = open(&BlockOptions { id: Some(id.into()), ..BlockOptions::new(&path) });
        assert!(matches!(error, BlockError::Id { .. }));
    }
}

#[test]
fn there_is_one_writer_or_many_readers() {
    let file = image(1);
    let writer = BlockOptions::new(file.path());
    let reader = BlockOptions { read_only: true, ..writer.clone() };
    let first = Block::open(&writer).unwrap();
    assert!(matches!(Block::open(&writer), Err(BlockError::Locked { .. })));
    assert!(matches!(Block::open(&reader), Err(BlockError::Locked { .. })));
    drop(first);
    let readers = [Block::open(&reader).unwrap(), Block::open(&reader).unwrap()];
    assert!(matches!(Block::open(&writer), Err(BlockError::Locked { .. })));
    drop(readers);
    assert!(Block::open(&writer).is_ok());
}

#[test]
fn a_file_that_shrinks_costs_requests_not_the_guest() {
    for engine in engines() {
        let mut machine = Machine::new(engine);
        machine.file.as_file().set_len(8 * SECTOR + 100).unwrap();
        assert_eq!(machine.read(32, 512).0, status::IOERR);
        assert_eq!(machine.read(8, 512).0, status::IOERR, "a part of the sector is there");
        assert_eq!(machine.read(7, 512).0, status::OK);
        assert_eq!(machine.request(&range(request::DISCARD, 16, 8, 0), 0).0 & !status::UNSUPP, status::OK);
        assert_eq!(machine.content().len(), 8 * 512 + 100, "a discard makes nothing larger");
        assert!(!machine.guest.needs_reset());
    }
}

#[test]
fn a_host_that_fails_costs_requests_not_the_guest() {
    for engine in engines() {
        let mut machine = Machine::new(engine);
        // Writes: no space left on device.
        let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        machine.device().disk.set_file(full);
        assert_eq!(machine.write(0, &[1; 512]), status::IOERR);
        assert_eq!(machine.read(0, 512).0, status::OK);
        // Everything: a descriptor for reading, then one that can do nothing.
        let reading = File::open(machine.file.path()).unwrap();
        machine.device().disk.set_file(reading);
        assert_eq!(machine.write(0, &[1; 512]), status::IOERR);
        assert_eq!(machine.request(&range(request::WRITE_ZEROES, 0, 1, UNMAP), 0).0, status::IOERR);
        assert_eq!(machine.read(0, 512).0, status::OK);
        let (_, writer) = pipe().unwrap();
        machine.device().disk.set_file(writer.into());
        assert_eq!(machine.read(0, 512).0, status::IOERR);
        assert_eq!(machine.flush(), status::IOERR, "a pipe cannot be synchronized");
        assert!(!machine.guest.needs_reset());
        assert_eq!(machine.content(), std::fs::read(image(SECTORS).path()).unwrap(), "untouched");
    }
}

#[test]
fn cache_modes_differ_in_what_a_flush_does() {
    // A file that cannot be synchronized shows who tries.
    let broken = || File::from(pipe().unwrap().1);
    for engine in engines() {
        let mut lazy = Machine::with(engine, ALL, |options| options.cache = CacheMode::Unsafe);
        lazy.device().disk.set_file(broken());
        assert_eq!(lazy.flush(), status::OK);

        // Section 5.2.6.2: without VIRTIO_BLK_F_FLUSH, a write is stable when it is reported complete.
        let null = || OpenOptions::new().write(true).open("/dev/null").unwrap();
        let mut careful = Machine::with(engine, !feature::FLUSH, |_| {});
        careful.device().disk.set_file(null());
        assert_eq!(careful.write(0, &[1; 512]), status::IOERR, "/dev/null cannot be synchronized");
        let mut cached = Machine::new(engine);
        cached.device().disk.set_file(null());
        assert_eq!(cached.write(0, &[1; 512]), status::OK);
    }
}

#[test]
fn direct_io_wants_blocks() {
    for engine in engines() {
        let file = image(SECTORS);
        let options = BlockOptions { direct: true, engine, ..BlockOptions::new(file.path()) };
        let disk = match Block::open(&options) {
            Ok(disk) => disk,
            Err(error) => {
                assert!(matches!(error, BlockError::Direct { .. }), "{error}");
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        let block = disk.disk.block();
        let mut guest = Guest::new(Box::new(disk));
        guest.set_up(ALL);
        let mut machine = Machine { guest, file };
        assert_eq!(machine.guest.config(20, 4), block.to_le_bytes());
        let data = 0x80_0000;
        machine.guest.queues[0].write(data, &vec![7; block as usize]);
        assert_eq!(machine.transfer(request::OUT, data, block), status::OK);
        assert_eq!(machine.content()[..block as usize], vec![7; block as usize]);
        machine.guest.queues[0].write(data, &vec![0; block as usize]);
        assert_eq!(machine.transfer(request::IN, data, block), status::OK);
        assert_eq!(machine.guest.queues[0].read(data, block as usize), vec![7; block as usize]);
        // An odd address: the host may do it or not, and says which.
        let odd = machine.transfer(request::IN, data + 1, block);
        assert!(odd == status::OK || odd == status::IOERR);
        assert!(!machine.guest.needs_reset());
    }
}

impl Machine {
    /// Reads or writes the first `length` bytes of the disk at `address`; returns the status.
    fn transfer(&mut self, kind: u32, address: u64, length: u32) -> u8 {
        let queue = &mut self.guest.queues[0];
        let (place, answer) = (queue.allocate(16), queue.allocate(1));
        queue.write(place, &header(kind, 0));
        let write = if kind == request::IN { WRITE } else { 0 };
        queue.add_descriptors(&[
            Descriptor { address: place, length: 16, flags: NEXT, next: 0 },
            Descriptor { address, length, flags: NEXT | write, next: 0 },
            Descriptor { address: answer, length: 1, flags: WRITE, next: 0 },
        ]);
        self.guest.notify(0);
        self.next(0);
        self.guest.queues[0].read(answer, 1)[0]
    }
}

/// Puts a pipe in the place of the disk, so that a read takes as long as the test wants.
fn stall(machine: &mut Machine) -> OwnedFd {
    let (reader, writer) = pipe().unwrap();
    machine.device().disk.set_file(reader.into());
    machine.guest.send(0, &[Buffer::Readable(&header(request::IN, 0)), Buffer::Writable(513)]);
    machine.turn();
    assert!(machine.guest.queues[0].take_used().is_none(), "the request is in flight");
    writer
}

#[test]
fn a_reset_waits_for_what_is_in_flight() {
    if !engines().contains(&Engine::IoUring) {
        return;
    }
    let mut machine = Machine::new(Engine::IoUring);
    let writer = stall(&mut machine);
    // The vCPU waits a second, and reads a status other than 0 afterwards.
    machine.guest.reset();
    let status = crate::virtio::transport::registers::STATUS;
    assert_ne!(machine.guest.read(status), 0, "the host still has the guest's memory");
    machine.turn();
    assert!(machine.guest.queues[0].take_used().is_none());

    rustix::io::write(&writer, &[7; 100]).unwrap();
    let begun = Instant::now();
    let mut done = false;
    while !done && begun.elapsed() < Duration::from_secs(10) {
        for token in machine.guest.reactor.ready() {
            done |= matches!(machine.guest.worker.backend_event(token), Served::Deactivated);
        }
    }
    assert_eq!(machine.guest.read(status), 0);
    assert!(machine.guest.queues[0].take_used().is_none(), "nobody waits for an answer any more");
    assert!(machine.guest.reactor.watched().is_empty());

    let disk = File::open(machine.file.path()).unwrap();
    machine.device().disk.set_file(disk);
    machine.guest.set_up(ALL);
    assert_eq!(machine.read(0, 512).0, status::OK, "the next driver finds a disk that works");
}

#[test]
fn a_device_that_goes_away_in_flight_waits_for_the_host() {
    if !engines().contains(&Engine::IoUring) {
        return;
    }
    let mut machine = Machine::new(Engine::IoUring);
    let writer = stall(&mut machine);
    let memory = machine.guest.memory().clone();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        rustix::io::write(&writer, &[7; 512]).unwrap()
    });
    drop(machine);
    assert_eq!(waker.join().unwrap(), 512);
    drop(memory);
}

#[test]
fn a_request_without_room_for_its_status_stops_the_device() {
    for engine in engines() {
        let mut machine = Machine::new(engine);
        let read = [Buffer::Readable(&header(request::IN, 0)), Buffer::Writable(513)];
        machine.guest.queues[0].add(&read);
        machine.guest.queues[0].add(&[Buffer::Readable(&header(request::FLUSH, 0))]);
        machine.guest.queues[0].add(&read);
        machine.guest.notify(0);
        assert!(machine.guest.needs_reset());
        assert_eq!(machine.next(0).1, 513, "what came before it is answered");
        machine.turn();
        assert!(machine.guest.queues[0].take_used().is_none());
        machine.guest.reset();
        machine.guest.set_up(ALL);
        assert_eq!(machine.read(0, 512).0, status::OK);
    }
}

#[test]
fn notifications_of_queues_that_do_not_exist_do_nothing() {
    let mut machine = Machine::new(Engine::Sync);
    for queue in [1, 63, usize::MAX] {
        machine.device().queue_event(queue);
    }
    for token in [1, 7, TIMER] {
        machine.device().backend_event(token);
    }
    assert_eq!(machine.read(0, 512).0, status::OK);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is in the queue: no panic, nothing in flight for ever, and every sector that was not written stays.
    #[test]
    fn descriptors_that_mean_nothing_do_no_harm(
        tables in prop::collection::vec(
            prop::collection::vec(
                (0u64..MEMORY as u64 + 4096, prop_oneof![Just(1u32), Just(16), Just(512), any::<u32>()], 0u16..8),
                1..6,
            ),
            1..8,
        ),
        headers in prop::collection::vec((0u32..16, 0..SECTORS + 2), 8),
    ) {
        for engine in engines() {
            let mut machine = Machine::with(engine, ALL, |options| options.read_only = true);
            let before = machine.content();
            for (table, &(kind, sector)) in tables.iter().zip(&headers) {
                let mut descriptors: Vec<_> = table
                    .iter()
                    .map(|&(address, length, flags)| Descriptor {
                        address,
                        length,
                        flags: flags & !INDIRECT,
                        next: 0,
                    })
                    .collect();
                let header = header(kind, sector);
                let queue = &mut machine.guest.queues[0];
                let place = queue.allocate(16);
                queue.write(place, &header);
                descriptors.insert(0, Descriptor { address: place, length: 16, flags: NEXT, next: 0 });
                queue.add_indirect(&descriptors);
                machine.guest.notify(0);
                machine.turn();
            }
            machine.guest.reset();
            machine.turn();
            machine.guest.set_up(ALL);
            prop_assert_eq!(machine.read(0, 512), (status::OK, before[..512].to_vec()));
            prop_assert_eq!(machine.content(), before);
        }
    }
}
