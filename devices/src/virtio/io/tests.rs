//! Files on one side, scattered guest memory on the other.

use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;

use vm_memory::{Bytes, GuestAddress};

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
