use std::io::{Cursor, Write as _};

use proptest::prelude::*;

use super::*;
use crate::testkit::{MIB, bytes_at, bzimage, elf, field, load, machine, put};

fn kernel(segments: &[(u64, u64)]) -> Kernel {
    let headers: Vec<_> = segments.iter().map(|(start, size)| load(0, *start, 0, *size)).collect();
    Kernel::parse(&mut Cursor::new(elf(segments[0].0, &headers, &[]))).unwrap()
}

#[test]
fn an_initrd_goes_to_the_end_of_low_ram() {
    let kernel = kernel(&[(MIB, MIB)]);
    let (_, ram) = machine(128 * MIB);
    let initrd = Initrd::place(5000, &kernel, &ram).unwrap();
    assert_eq!(initrd, Initrd { address: GuestAddress(128 * MIB - 8192), size: 5000 });
    let (_, ram) = machine(8 << 30);
    assert_eq!(Initrd::place(4096, &kernel, &ram).unwrap().address.0, (3 << 30) - 4096);
}

#[test]
fn a_kernel_at_the_end_of_ram_is_gone_around() {
    let kernel = kernel(&[(4 * MIB, MIB), (14 * MIB, 2 * MIB)]);
    let (_, ram) = machine(16 * MIB);
    assert_eq!(Initrd::place(9 * MIB, &kernel, &ram).unwrap().address.0, 5 * MIB);
    let Err(InitrdError::NoRoom { size, free }) = Initrd::place(9 * MIB + 1, &kernel, &ram) else {
        panic!("it does not fit");
    };
    assert_eq!((size, free), (9 * MIB + 1, 9 * MIB));
}

#[test]
fn a_kernel_that_unpacks_itself_may_want_it_lower() {
    let mut image = bzimage(b"");
    put(&mut image, field::XLOADFLAGS, &1u16.to_le_bytes());
    put(&mut image, field::INITRD_ADDR_MAX, &0xff_ffffu32.to_le_bytes());
    let kernel = Kernel::parse(&mut Cursor::new(&image)).unwrap();
    let (_, ram) = machine(64 * MIB);
    assert_eq!(Initrd::place(MIB, &kernel, &ram).unwrap().address.0, 15 * MIB);
}

#[test]
fn sizes_that_cannot_be_placed() {
    let kernel = kernel(&[(MIB, MIB)]);
    let (_, ram) = machine(16 * MIB);
    assert!(matches!(Initrd::place(0, &kernel, &ram), Err(InitrdError::Empty)));
    assert!(matches!(Initrd::place(u64::MAX, &kernel, &ram), Err(InitrdError::NoRoom { .. })));
    let error = Initrd::place(20 * MIB, &kernel, &ram).unwrap_err().to_string();
    assert!(
        error.starts_with("the initrd of 20971520 bytes does not fit: beside the kernel, 14680064 bytes")
    );
}

#[test]
fn load_copies_from_a_slice_and_from_a_file() {
    let (mem, ram) = machine(16 * MIB);
    let content: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    let initrd = Initrd::place(content.len() as u64, &kernel(&[(MIB, MIB)]), &ram).unwrap();
    initrd.load(&mem, &mut &content[..]).unwrap();
    assert_eq!(bytes_at(&mem, initrd.address.0, content.len()), content);

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let lower = Initrd { address: GuestAddress(2 * MIB), ..initrd };
    std::io::Seek::rewind(&mut file).unwrap();
    lower.load(&mem, &mut file).unwrap();
    assert_eq!(bytes_at(&mem, 2 * MIB, content.len()), content);
}

/// A pipe: a read yields what is there, not what was asked for.
#[test]
fn load_goes_on_after_short_reads() {
    let (mut reader, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let (mem, _) = machine(16 * MIB);
    let initrd = Initrd { address: GuestAddress(2 * MIB), size: 300_000 };
    let writing = std::thread::spawn(move || {
        for _ in 0..3 {
            writer.write_all(&[7; 100_000]).unwrap();
        }
    });
    initrd.load(&mem, &mut reader).unwrap();
    writing.join().unwrap();
    assert_eq!(bytes_at(&mem, 2 * MIB, 300_001), [vec![7; 300_000], vec![0]].concat());
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    let (mem, _) = machine(16 * MIB);
    let initrd = Initrd { address: GuestAddress(2 * MIB), size: 11 };
    let error = initrd.load(&mem, &mut &b"0123456789"[..]).unwrap_err();
    assert_eq!(error.to_string(), "the initrd of 11 bytes could not be copied to 0x200000");
}

proptest! {
    /// Where a place is found it is free RAM on a page boundary, and no higher page would do; where none is found, none
    /// was there.
    #[test]
    fn the_place_is_free_and_the_highest(
        size in 1..20 * MIB,
        ram in 4u64..8,
        starts in prop::collection::btree_set(1u64..32, 1..4),
    ) {
        const PAGE: u64 = layout::PAGE_SIZE;
        let segments: Vec<_> = starts.iter().map(|start| (start * MIB, 700_000)).collect();
        let (_, ram) = machine(ram * 4 * MIB);
        let end = ram.low().end();
        let is_free = |at: u64| at + size <= end
            && segments.iter().all(|(start, len)| at >= start + len || at + size <= *start);
        let highest = (MIB / PAGE..end / PAGE).rev().map(|page| page * PAGE).find(|at| is_free(*at));
        match Initrd::place(size, &kernel(&segments), &ram) {
            Ok(initrd) => prop_assert_eq!(Some(initrd.address.0), highest),
            Err(_) => prop_assert_eq!(highest, None),
        }
    }
}
