//! The whole device against real files, with both engines.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::spec::{SECTOR, UNMAP, feature, request, status};
use super::*;
use crate::rate_limiter::Limit;
use crate::testkit::{Buffer, Descriptor, Guest, NEXT, WRITE};
use crate::virtio::spec::feature as transport;

mod trouble;

/// All features but the one that holds back interrupts.
const ALL: u64 = !transport::RING_EVENT_IDX;
/// The sectors of the disks here.
const SECTORS: u64 = 64;

/// A guest with a disk.
struct Machine {
    guest: Guest,
    file: NamedTempFile,
}

/// The engines that this host has.
fn engines() -> Vec<Engine> {
    match crate::virtio::io::Ring::new(2) {
        Ok(_) => vec![Engine::Sync, Engine::IoUring],
        Err(error) => {
            eprintln!("SKIPPED: no test of the io_uring engine: {error}");
            vec![Engine::Sync]
        }
    }
}

fn image(sectors: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..sectors * SECTOR).map(|at| (at / SECTOR) as u8 ^ at as u8).collect();
    file.as_file().write_all_at(&bytes, 0).unwrap();
    file
}

impl Machine {
    fn new(engine: Engine) -> Self {
        Self::with(engine, ALL, |_| {})
    }

    fn with(engine: Engine, features: u64, change: impl FnOnce(&mut BlockOptions)) -> Self {
        let file = image(SECTORS);
        let mut options = BlockOptions { engine, ..BlockOptions::new(file.path()) };
        change(&mut options);
        let mut guest = Guest::new(Box::new(Block::open(&options).unwrap()));
        guest.set_up(features);
        Self { guest, file }
    }

    fn device(&mut self) -> &mut Block {
        let device: &mut dyn std::any::Any = self.guest.worker.device();
        device.downcast_mut().expect("the device made above")
    }

    fn content(&self) -> Vec<u8> {
        std::fs::read(self.file.path()).unwrap()
    }

    /// What the driver has been given back, once the event loop has turned.
    fn next(&mut self, queue: usize) -> (u16, u32) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if let Some(used) = self.guest.queues[queue].take_used() {
                return used;
            }
            self.turn();
            std::thread::yield_now();
        }
        panic!("no answer in ten seconds");
    }

    /// One turn of the event loop.
    fn turn(&mut self) {
        self.guest.serve();
        for token in self.guest.reactor.ready() {
            self.guest.worker.backend_event(token);
        }
    }

    /// Sends a request and waits; returns the status, what the device has put into its data room, and what it says it has written.
    fn request(&mut self, sent: &[u8], room: u32) -> (u8, Vec<u8>, u32) {
        let sent = Buffer::Readable(sent);
        let addresses = self.guest.send(0, &[sent, Buffer::Writable(room), Buffer::Writable(1)]);
        let (_, written) = self.next(0);
        let queue = &self.guest.queues[0];
        (queue.read(addresses[2], 1)[0], queue.read(addresses[1], room as usize), written)
    }

    fn read(&mut self, sector: u64, room: u32) -> (u8, Vec<u8>) {
        let (status, data, _) = self.request(&header(request::IN, sector), room);
        (status, data)
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.request(&[&header(request::OUT, sector), data].concat(), 0).0
    }

    fn flush(&mut self) -> u8 {
        self.request(&header(request::FLUSH, 0), 0).0
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(kind: u32, sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let range = [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat();
    [header(kind, 0), range].concat()
}

#[test]
fn a_driver_learns_what_the_disk_is() {
    let mut machine = Machine::with(Engine::Sync, ALL, |options| options.queues = 3);
    let offered = machine.guest.offered() & !transport::OF_TRANSPORT;
    let writable = feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES;
    assert_eq!(offered, writable | feature::SIZE_MAX | feature::SEG_MAX | feature::BLK_SIZE | feature::MQ);
    assert_eq!(machine.guest.queues.len(), 3);
    let config = machine.guest.config(0, spec::config::LENGTH);
    assert_eq!(config[..8], SECTORS.to_le_bytes());
    assert_eq!(config[8..16], [0, 0, 1, 0, 254, 0, 0, 0], "segments of 64 KiB, 254 of them");
    assert_eq!(config[20..24], 512u32.to_le_bytes());
    assert_eq!(config[34..36], [3, 0]);
    assert_eq!(config[36..48], [0, 0, 2, 0, 1, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(config[48..57], [0, 0, 2, 0, 1, 0, 0, 0, 1]);

    let mut machine = Machine::with(Engine::Sync, ALL, |options| options.read_only = true);
    let offered = machine.guest.offered() & !transport::OF_TRANSPORT;
    assert_eq!(offered, feature::RO | feature::SIZE_MAX | feature::SEG_MAX | feature::BLK_SIZE);
    assert_eq!(machine.guest.config(36, 24), [0; 24]);
}

#[test]
fn sectors_are_read_and_written() {
    for engine in engines() {
        let mut machine = Machine::new(engine);
        assert_eq!(machine.device().engine(), Some(engine));
        let before = machine.content();
        assert_eq!(machine.read(3, 1024), (status::OK, before[1536..2560].to_vec()));
        let data: Vec<u8> = (0..1024).map(|at| (at / 3) as u8).collect();
        assert_eq!(machine.write(5, &data), status::OK);
        assert_eq!(machine.content()[2560..3584], data);
        assert_eq!(machine.read(5, 1024), (status::OK, data));
        assert_eq!(machine.flush(), status::OK);
        assert_eq!(machine.read(SECTORS - 1, 512).0, status::OK);
        assert_eq!(machine.read(SECTORS, 512).0, status::IOERR);
        assert_eq!(machine.guest.worker.counters().faults, 1);
        assert!(!machine.guest.needs_reset());
        assert!(machine.guest.line.take() >= 6);
    }
}

#[test]
fn what_is_discarded_or_zeroed_reads_as_zeros() {
    for engine in engines() {
        let mut machine = Machine::new(engine);
        let discard = machine.request(&range(request::DISCARD, 8, 8, 0), 0).0;
        if discard == status::UNSUPP {
            eprintln!("SKIPPED: this filesystem has no holes");
            return;
        }
        assert_eq!(discard, status::OK);
        assert_eq!(machine.read(8, 4096), (status::OK, vec![0; 4096]));
        assert_eq!(machine.request(&range(request::WRITE_ZEROES, 24, 3, UNMAP), 0).0, status::OK);
        assert_eq!(machine.read(24, 1536), (status::OK, vec![0; 1536]));
        let kept = machine.request(&range(request::WRITE_ZEROES, 32, 1, 0), 0).0;
        assert!(kept == status::OK || kept == status::UNSUPP, "not every filesystem zeroes in place");
        let sector = machine.read(32, 512).1;
        assert_eq!(sector == [0; 512], kept == status::OK);
        assert_eq!(machine.request(&range(request::DISCARD, 0, 0, 0), 0).0, status::OK, "nothing to do");
        assert_eq!(machine.content().len() as u64, SECTORS * SECTOR);
    }
}

#[test]
fn the_disk_has_a_name() {
    let mut machine = Machine::with(Engine::Sync, ALL, |options| options.id = Some("root-1".into()));
    let (answer, name, written) = machine.request(&header(request::GET_ID, 0), 20);
    assert_eq!((answer, written), (status::OK, 21));
    assert_eq!(name, *b"root-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(machine.request(&header(request::GET_ID, 0), 4).1, *b"root");
    // Behind the name is a gap: the status byte does not count.
    assert_eq!(machine.request(&header(request::GET_ID, 0), 30).2, 20);
    let mut other = Machine::new(Engine::Sync);
    let (_, name, _) = other.request(&header(request::GET_ID, 0), 20);
    assert_ne!(name, [0; 20], "without a name given, the file's numbers are it");
}

#[test]
fn the_length_that_is_reported_covers_only_what_was_written() {
    let mut machine = Machine::new(Engine::Sync);
    assert_eq!(machine.request(&header(request::IN, 0), 512).2, 513);
    assert_eq!(machine.request(&header(request::IN, SECTORS), 512).2, 0, "the data are missing");
    assert_eq!(machine.request(&header(request::FLUSH, 0), 0).2, 1);
    assert_eq!(machine.request(&header(request::OUT, SECTORS), 0).2, 1);
}

#[test]
fn more_requests_than_the_ring_holds_are_all_answered() {
    for engine in engines() {
        let mut machine = Machine::with(engine, u64::MAX, |options| options.queues = 2);
        for sector in 0..70 {
            for queue in [0, 1] {
                let header = header(request::IN, sector % SECTORS);
                machine.guest.queues[queue].add(&[Buffer::Readable(&header), Buffer::Writable(513)]);
            }
        }
        for queue in [0, 1] {
            machine.guest.notify(queue);
        }
        for queue in [0, 1] {
            for _ in 0..70 {
                assert_eq!(machine.next(queue).1, 513);
            }
            assert!(machine.guest.queues[queue].take_used().is_none());
        }
    }
}

#[test]
fn limits_hold_and_can_be_lifted() {
    for engine in engines() {
        let limit = Limit { size: 600, refill_ms: 7_200_000, burst: 0 };
        let limits = RateLimits { bandwidth: Some(limit), operations: None };
        let mut machine = Machine::with(engine, ALL, |options| options.limits = limits);
        for _ in 0..3 {
            machine.guest.queues[0].add(&[Buffer::Readable(&header(request::IN, 0)), Buffer::Writable(513)]);
        }
        machine.guest.notify(0);
        assert_eq!([machine.next(0).1, machine.next(0).1], [513; 2]);
        let timer = machine.guest.reactor.timer().expect("a time to go on");
        assert!(timer > Instant::now() + Duration::from_secs(3600));
        machine.guest.worker.backend_event(TIMER);
        assert!(machine.guest.queues[0].take_used().is_none(), "it is not time yet");
        machine.device().set_limits(RateLimits::default());
        assert_eq!(machine.next(0).1, 513);
    }
}

#[test]
fn the_file_can_be_changed() {
    for engine in engines() {
        let mut machine = Machine::with(engine, ALL, |options| options.id = Some("kept".into()));
        let other = image(2 * SECTORS);
        other.as_file().write_all_at(b"other", 0).unwrap();
        let generation = machine.guest.read(crate::virtio::transport::registers::CONFIG_GENERATION);
        let _ = machine.guest.line.take();
        machine.device().replace_backing(other.path()).unwrap();
        assert_eq!(machine.guest.line.take(), 1);
        assert_ne!(machine.guest.read(crate::virtio::transport::registers::CONFIG_GENERATION), generation);
        assert_eq!(machine.guest.config(0, 8), (2 * SECTORS).to_le_bytes());
        assert_eq!(machine.read(0, 512).1[..5], *b"other");
        assert_eq!(machine.read(2 * SECTORS - 1, 512).0, status::OK);

        // The same file again, after it has grown.
        other.as_file().set_len(3 * SECTORS * SECTOR).unwrap();
        machine.device().replace_backing(other.path()).unwrap();
        assert_eq!(machine.guest.config(0, 8), (3 * SECTORS).to_le_bytes());

        let missing = machine.device().replace_backing(Path::new("/nonexistent/disk"));
        assert!(matches!(missing, Err(BlockError::Open { .. })));
        assert_eq!(machine.read(0, 512).1[..5], *b"other", "the guest goes on with what it had");
        let taken = Block::open(&BlockOptions::new(other.path()));
        assert!(matches!(taken, Err(BlockError::Locked { .. })), "and it is still locked");
        assert!(Block::open(&BlockOptions::new(machine.file.path())).is_ok(), "the first one is not");
    }
}

#[test]
fn files_in_memory_are_read_by_system_calls() {
    let memory = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memory, 4096).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    let mut block = Block::open(&BlockOptions::new(path)).unwrap();
    assert_eq!(block.engine(), None, "nothing is made before it is needed");
    // A kernel that learns not to wait for a tmpfs may choose otherwise.
    let waits_apart = block.disk.waits_apart();
    let expected =
        if waits_apart && engines().contains(&Engine::IoUring) { Engine::IoUring } else { Engine::Sync };
    assert_eq!(block.prepare().unwrap(), expected);
    assert_eq!(block.engine(), Some(expected));
}

/// What a driver does, for the comparison with a model.
#[derive(Clone, Debug)]
enum Deed {
    Read(u64, u64),
    Write(u64, u64, u8),
    Discard(u64, u64),
    Zero(u64, u64, bool),
    Flush,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let place = || (0..SECTORS, 0u64..9).prop_map(|(sector, count)| (sector, count.min(SECTORS - sector)));
    let deed = prop_oneof![
        place().prop_map(|(sector, count)| Deed::Read(sector, count)),
        (place(), any::<u8>()).prop_map(|((sector, count), fill)| Deed::Write(sector, count, fill)),
        place().prop_map(|(sector, count)| Deed::Discard(sector, count)),
        (place(), any::<bool>()).prop_map(|((sector, count), unmap)| Deed::Zero(sector, count, unmap)),
        Just(Deed::Flush),
    ];
    prop::collection::vec(deed, 1..40)
}

impl Machine {
    /// Sends `sent` and room for `room` bytes and a status, cut into descriptors of `cut` bytes.
    fn cut_request(&mut self, sent: &[u8], room: u32, cut: usize) -> (u8, Vec<u8>) {
        let queue = &mut self.guest.queues[0];
        let readable = queue.allocate(sent.len() as u32);
        let writable = queue.allocate(room + 1);
        queue.write(readable, sent);
        let mut descriptors = Vec::new();
        for (start, total, flags) in [(readable, sent.len(), 0), (writable, room as usize + 1, WRITE)] {
            for done in (0..total).step_by(cut) {
                let length = cut.min(total - done) as u32;
                let address = start + done as u64;
                descriptors.push(Descriptor { address, length, flags: flags | NEXT, next: 0 });
            }
        }
        descriptors.last_mut().unwrap().flags &= !NEXT;
        queue.add_indirect(&descriptors);
        self.guest.notify(0);
        self.next(0);
        let queue = &self.guest.queues[0];
        (queue.read(writable + u64::from(room), 1)[0], queue.read(writable, room as usize))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_disk_is_an_array(deeds in deeds(), cut in 50usize..5000, flushes in any::<bool>()) {
        for engine in engines() {
            let features = if flushes { ALL } else { !feature::FLUSH };
            let mut machine = Machine::with(engine, features, |_| {});
            let mut model = machine.content();
            let bytes = |sector: u64, count: u64| {
                (sector * SECTOR) as usize..((sector + count) * SECTOR) as usize
            };
            for deed in &deeds {
                match *deed {
                    Deed::Read(sector, count) => {
                        let length = (count * SECTOR) as u32;
                        let answer = machine.cut_request(&header(request::IN, sector), length, cut);
                        prop_assert_eq!(answer, (status::OK, model[bytes(sector, count)].to_vec()));
                    }
                    Deed::Write(sector, count, fill) => {
                        model[bytes(sector, count)].fill(fill);
                        let data = vec![fill; (count * SECTOR) as usize];
                        let sent = [header(request::OUT, sector), data].concat();
                        prop_assert_eq!(machine.cut_request(&sent, 0, cut).0, status::OK);
                    }
                    Deed::Discard(sector, count) => {
                        let sent = range(request::DISCARD, sector, count as u32, 0);
                        if machine.cut_request(&sent, 0, cut).0 == status::OK {
                            model[bytes(sector, count)].fill(0);
                        }
                    }
                    Deed::Zero(sector, count, unmap) => {
                        let sent = range(request::WRITE_ZEROES, sector, count as u32, unmap.into());
                        if machine.cut_request(&sent, 0, cut).0 == status::OK {
                            model[bytes(sector, count)].fill(0);
                        }
                    }
                    Deed::Flush => prop_assert_eq!(machine.flush(), status::OK),
                }
            }
            prop_assert_eq!(machine.content(), model);
        }
    }
}
