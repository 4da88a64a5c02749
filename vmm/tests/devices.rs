//! Virtio devices on this host's KVM, driven by the embedded guest's own drivers.

#[macro_use]
mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use support::{Finished, Mote};

const MIB: u64 = 1 << 20;

/// An image of 64-bit words, each its own index exclusive-or `seed`: what the guest's `verify=1` expects.
fn image(path: &Path, size: u64, seed: u64) {
    let words: Vec<u8> = (0..size / 8).flat_map(|index| (index ^ seed).to_le_bytes()).collect();
    std::fs::write(path, words).expect("the image is written");
}

fn with_disk(disk: &str, more: &[&str], cmdline: &str) -> Finished {
    let mut arguments = vec!["--disk", disk, "--cmdline", cmdline];
    arguments.extend(more);
    Mote::run(&arguments).finish()
}

fn assert_done(end: &Finished) {
    assert_eq!(end.code(), 0, "{end:?}");
    assert!(end.stdout.contains(" errors=0 "), "{end:?}");
}

#[test]
fn a_disk_delivers_what_it_holds() {
    need_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    image(&path, 4 * MIB, 0);
    let disk = path.to_str().unwrap();
    for job in ["op=read n=200", "op=read depth=32 n=2000", "op=seqread depth=4 n=64"] {
        for more in [&[][..], &["--virtio-cmdline", "--rng"], &["--io-threads", "1"]] {
            assert_done(&with_disk(disk, more, &format!("mode=blk verify=1 {job}")));
        }
    }
    // The check finds one wrong bit.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * MIB as usize] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let end = with_disk(disk, &[], "mode=blk verify=1 op=seqread n=32");
    assert_eq!(end.code(), 5, "{end:?}");
    assert!(end.stdout.contains("blk corrupt_offset=0x300000\n"), "{end:?}");
}

#[test]
fn a_disk_keeps_what_is_written() {
    need_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let (path, expected) = (directory.path().join("disk"), directory.path().join("expected"));
    std::fs::write(&path, vec![0xff; 4 * MIB as usize]).unwrap();
    image(&expected, 4 * MIB, 77);
    let disk = path.to_str().unwrap();
    assert_done(&with_disk(disk, &[], "mode=blk verify=1 seed=77 op=seqwrite depth=8 n=32"));
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&expected).unwrap(), "the image");
    assert_done(&with_disk(disk, &[], "mode=blk verify=1 seed=77 op=write depth=32 n=2000"));
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&expected).unwrap(), "the image, once more");
}

#[test]
fn a_disk_that_is_read_only_says_so() {
    need_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    image(&path, MIB, 0);
    let disk = format!("{},readonly", path.display());
    assert_done(&with_disk(&disk, &[], "mode=blk verify=1 n=100"));
    let end = with_disk(&disk, &[], "mode=blk op=write n=100");
    assert_eq!(end.code(), 5, "{end:?}");
    assert!(end.stdout.contains("error=read-only detail=disk\n"), "{end:?}");
}

#[test]
fn a_stream_to_the_host_carries_all_bytes_and_ends() {
    need_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vsock");
    let vsock = format!("cid=3,uds={}", socket.display());
    let listen = |port: u32| UnixListener::bind(directory.path().join(format!("vsock_{port}"))).unwrap();
    let run = |cmdline: &str| Mote::run(&["--vsock", &vsock, "--cmdline", cmdline]).finish();

    let listener = listen(1);
    let echo = std::thread::spawn(move || copy_back(listener.accept().unwrap().0));
    assert_done(&run("mode=vsock op=echo port=1 n=300 size=5000 verify=1"));
    assert_eq!(echo.join().unwrap(), 300 * 5000);

    let listener = listen(2);
    let sink = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap()
    });
    assert_done(&run("mode=vsock op=stream port=2 mb=8"));
    assert_eq!(sink.join().unwrap() as u64, 8 * MIB);

    let end = run("mode=vsock port=3");
    assert_eq!(end.code(), 5, "{end:?}");
    assert!(end.stdout.contains("error=connection detail=refused\n"), "{end:?}");
}

/// Sends back all that comes. Returns how much that was.
fn copy_back(mut stream: UnixStream) -> usize {
    let mut buffer = [0; 4096];
    let mut total = 0;
    loop {
        let count = stream.read(&mut buffer).expect("the stream is read");
        if count == 0 {
            return total;
        }
        stream.write_all(&buffer[..count]).expect("the stream is written");
        total += count;
    }
}
