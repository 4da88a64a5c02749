//! Files on one side, scattered guest memory on the other.

use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestRegionMmap};

use super::*;
use crate::testkit;

#[test]
fn scattered_memory_is_filled_from_a_file_and_written_to_it() {
    let memory = testkit::memory();
    let segments = [
        Segment::new(&memory, 0x1000, 3).unwrap(),
        Segment::new(&memory, 0, 0).unwrap(),
        Segment::new(&memory, 0x3001, 5).unwrap(),
    ];
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"..abcdefgh").unwrap();

    let mut vectors = Vectors::new();
    assert_eq!(vectors.read_at(&memory, &segments, file.as_fd(), 2).unwrap(), 8);
    let mut bytes = [0; 5];
    memory.read_slice(&mut bytes, GuestAddress(0x3001)).unwrap();
    assert_eq!(&bytes, b"defgh");

    assert_eq!(vectors.write_at(&memory, &segments, file.as_fd(), 10).unwrap(), 8);
    file.rewind().unwrap();
    assert_eq!(vectors.write(&memory, &segments[..1], file.as_fd()).unwrap(), 3);
    assert_eq!(
        vectors.read(&memory, &segments[..1], file.as_fd()).unwrap(),
        3,
        "the file's next three bytes"
    );
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abcbcdefghabcdefgh");
}

#[test]
fn what_no_call_can_take_is_an_error() {
    let memory = testkit::memory();
    let segment = Segment::new(&memory, 0x1000, 1).unwrap();
    let file = tempfile::tempfile().unwrap();
    let mut vectors = Vectors::new();
    let error = vectors.read_at(&memory, &[segment], file.as_fd(), u64::MAX).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let many = vec![segment; MAX_VECTORS + 1];
    let error = vectors.write_at(&memory, &many, file.as_fd(), 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn only_whole_pages_are_discarded() {
    // Two regions that touch: a segment may lie in both.
    let regions = [(GuestAddress(0), 0x4000), (GuestAddress(0x4000), 0x4000)];
    let memory = GuestMemoryMmap::from_ranges(&regions).unwrap();
    memory.write_slice(&[0xa5; 0x8000], GuestAddress(0)).unwrap();
    let discard = |start, length| {
        discard(&memory, Segment::new(&memory, start, length).unwrap(), HostPage::Small).unwrap()
    };
    assert_eq!(discard(1, 0x1ffe), 0, "no page is whole");
    assert_eq!(discard(0x1fff, 0), 0);
    assert_eq!(discard(0x1fff, 0x4002), 0x4000);
    let held = |page: u64| memory.read_obj::<u8>(GuestAddress(page * 0x1000 + 0xfff)).unwrap() != 0;
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(held), [true, true, false, false, false, false, true, true]);
}

#[test]
fn huge_pages_are_discarded_whole() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    let region = MmapRegionBuilder::new(4 << 20)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags)
        .build();
    let Ok(region) = region else {
        println!("SKIPPED: the host has not two free huge pages of 2 MiB");
        return;
    };
    let region = GuestRegionMmap::new(region, GuestAddress(0)).unwrap();
    let memory = GuestMemoryMmap::from_regions(vec![region]).unwrap();
    memory.write_slice(&[0xa5; 4 << 20], GuestAddress(0)).unwrap();
    let segment = Segment::new(&memory, 4096, (4 << 20) - 4096).unwrap();
    assert_eq!(discard(&memory, segment, HostPage::Huge).unwrap(), 2 << 20);
    let held = |address: u64| memory.read_obj::<u8>(GuestAddress(address)).unwrap() != 0;
    assert!(held(0) && held((2 << 20) - 1) && !held(2 << 20) && !held((4 << 20) - 1));
}

#[test]
fn locked_memory_is_refused_by_the_host() {
    let memory = testkit::memory();
    let slice = memory.get_slice(GuestAddress(0x1000), 0x1000).unwrap();
    // SAFETY: locking a page changes nothing that Rust sees.
    let locked = unsafe { libc::mlock(slice.ptr_guard().as_ptr().cast(), 0x1000) };
    assert_eq!(locked, 0, "one page is within every limit");
    let segment = Segment::new(&memory, 0x1000, 0x1000).unwrap();
    let error = discard(&memory, segment, HostPage::Small).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}
