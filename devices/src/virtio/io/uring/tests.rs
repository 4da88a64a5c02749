//! The ring with files that answer at once, and with a pipe that answers when the test says so.

use std::io::{Read, Seek, Write};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FallocateFlags;
use rustix::pipe::pipe;
use vm_memory::{Bytes, GuestAddress, GuestRegionMmap};

use super::*;
use crate::testkit;

/// A ring, unless the host has none.
fn ring(entries: u16) -> Option<Ring> {
    match Ring::new(entries) {
        Ok(mut ring) => {
            assert!(ring.set_memory(Some(testkit::memory())));
            Some(ring)
        }
        Err(error) => {
            eprintln!("SKIPPED: this host has no io_uring: {error}");
            None
        }
    }
}

fn segment(address: u64, length: u32) -> Segment {
    Segment::new(&testkit::memory(), address, length).unwrap()
}

/// Waits for the next completion.
fn next(ring: &mut Ring) -> Completion {
    for _ in 0..100 {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        let mut fds = [PollFd::new(ring, PollFlags::IN)];
        poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).unwrap();
    }
    panic!("nothing completed in ten seconds");
}

#[test]
fn files_are_read_written_synchronized_and_punched() {
    let Some(mut ring) = ring(4) else { return };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b'x'; 8192]).unwrap();
    let file = Arc::new(file);
    let hole = Operation::Allocate {
        flags: FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        offset: 0,
        length: 4096,
    };
    ring.start(0, Arc::clone(&file), hole, &[]).unwrap();
    ring.submit().unwrap();
    let completion = next(&mut ring);
    if completion.result.is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP)) {
        eprintln!("SKIPPED: this filesystem has no holes");
        return;
    }

    // Two pieces from both sides of the hole's end, then one piece.
    let pieces = [segment(0x1000, 4), segment(0x2000, 2)];
    ring.start(1, Arc::clone(&file), Operation::Read(4094), &pieces).unwrap();
    ring.start(2, Arc::clone(&file), Operation::Read(8190), &[segment(0x3000, 16)]).unwrap();
    assert_eq!(ring.in_flight(), 2);
    ring.submit().unwrap();
    let mut results = [next(&mut ring), next(&mut ring)].map(|it| (it.tag, it.result.unwrap()));
    results.sort_unstable();
    assert_eq!(results, [(1, 6), (2, 2)], "the file ends after two bytes");
    let memory = ring.memory.clone().unwrap();
    assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x1000)).unwrap(), *b"\0\0xx");
    assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x2000)).unwrap(), *b"xx\0\0");

    memory.write_slice(b"guest", GuestAddress(0x4000)).unwrap();
    ring.start(1, Arc::clone(&file), Operation::Write(10), &[segment(0x4000, 5)]).unwrap();
    ring.submit().unwrap();
    assert_eq!(next(&mut ring).result.unwrap(), 5);
    ring.start(1, Arc::clone(&file), Operation::Write(20), &[segment(0x4000, 1), segment(0x4002, 1)])
        .unwrap();
    ring.submit().unwrap();
    assert_eq!(next(&mut ring).result.unwrap(), 2);
    ring.start(1, Arc::clone(&file), Operation::Sync, &[]).unwrap();
    ring.submit().unwrap();
    assert_eq!(next(&mut ring).result.unwrap(), 0);
    assert_eq!(ring.in_flight(), 0);
    let mut bytes = [0; 22];
    (&*file).rewind().unwrap();
    (&*file).read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0\0\0\0\0\0guest\0\0\0\0\0ge");
}

#[test]
fn what_cannot_be_started_is_given_back() {
    let Some(mut ring) = ring(2) else { return };
    let (reader, _writer) = pipe().unwrap();
    let pipe = Arc::new(File::from(reader));
    let mut refusal = |tag, operation, segments: &[Segment]| {
        let completion = ring.start(tag, Arc::clone(&pipe), operation, segments).unwrap_err();
        completion.result.unwrap_err().raw_os_error()
    };
    let one = [segment(0x1000, 1)];
    assert_eq!(refusal(2, Operation::Read(0), &one), Some(libc::EINVAL), "the ring has the tags 0 and 1");
    assert_eq!(
        refusal(0, Operation::Read(u64::MAX), &one),
        Some(libc::EINVAL),
        "that would be the file's position"
    );
    assert_eq!(refusal(0, Operation::Write(u64::MAX), &one), Some(libc::EINVAL));
    let outside = GuestMemoryMmap::from_ranges(&[(GuestAddress(1 << 40), 4096)]).unwrap();
    let outside = Segment::new(&outside, 1 << 40, 1).unwrap();
    assert_eq!(refusal(0, Operation::Read(0), &[outside]), Some(libc::EFAULT));

    ring.start(0, Arc::clone(&pipe), Operation::Read(0), &one).unwrap();
    let again = ring.start(0, pipe, Operation::Read(0), &one).unwrap_err();
    assert_eq!(again.result.unwrap_err().raw_os_error(), Some(libc::EINVAL), "the tag is in flight");
    assert_eq!(ring.in_flight(), 1);
}

#[test]
fn memory_stays_while_anything_is_in_flight() {
    let Some(mut ring) = ring(2) else { return };
    let memory = ring.memory.clone().unwrap();
    let (reader, writer) = pipe().unwrap();
    ring.start(0, Arc::new(reader.into()), Operation::Read(0), &[segment(0x1000, 8)]).unwrap();
    assert!(!ring.set_memory(None), "not even submitted yet");
    ring.submit().unwrap();
    assert!(ring.next_completion().is_none());
    assert!(!ring.set_memory(None));
    rustix::io::write(&writer, b"late").unwrap();
    assert_eq!(next(&mut ring).result.unwrap(), 4);
    assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x1000)).unwrap(), *b"late");
    assert!(ring.set_memory(None));
}

/// The mapping that is the ring's memory; its owners can be counted.
fn mapping(ring: &Ring) -> Arc<GuestRegionMmap> {
    ring.memory.as_ref().unwrap().remove_region(GuestAddress(0), testkit::MEMORY as u64).unwrap().1
}

#[test]
fn a_ring_that_is_dropped_waits() {
    let Some(mut ring) = ring(2) else { return };
    let memory = ring.memory.clone().unwrap();
    let (reader, writer) = pipe().unwrap();
    ring.start(0, Arc::new(reader.into()), Operation::Read(0), &[segment(0x1000, 8)]).unwrap();
    ring.submit().unwrap();
    std::thread::scope(|scope| {
        let dropping = scope.spawn(move || drop(ring));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!dropping.is_finished());
        rustix::io::write(&writer, b"late").unwrap();
        dropping.join().unwrap();
    });
    assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x1000)).unwrap(), *b"late");
}

#[test]
fn a_host_that_hangs_keeps_the_memory() {
    let Some(mut ring) = ring(2) else { return };
    let idle = self::ring(2).unwrap();
    let (kept, freed) = (mapping(&ring), mapping(&idle));
    let (reader, _writer) = pipe().unwrap();
    ring.start(0, Arc::new(reader.into()), Operation::Read(0), &[segment(0x1000, 8)]).unwrap();
    ring.submit().unwrap();
    drop((ring, idle));
    assert_eq!(Arc::strong_count(&freed), 1);
    assert_eq!(Arc::strong_count(&kept), 2, "nobody may reuse what the kernel may still write");
}

#[test]
fn the_ring_does_nothing_but_its_operations() {
    let Some(mut ring) = ring(2) else { return };
    // SAFETY: a no-op refers to nothing.
    unsafe { ring.ring.submission().push(&opcode::Nop::new().build()) }.unwrap();
    ring.ring.submit().unwrap();
    let entry = ring.ring.completion().next().unwrap();
    assert_eq!(entry.result(), -libc::EACCES);
    assert!(ring.ring.submitter().register_files(&[0]).is_err(), "it cannot be changed any more");
}
