use std::io::{Cursor, Write as _};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestMemoryMmap};

use super::*;
use crate::testkit::{
    CONTENTS, KERNEL, KERNEL_ENTRY_PVH, KERNEL_ENTRY64, MIB, Phdr, bytes_at, bzimage, elf, field, load,
    machine, note, put,
};

fn parse(image: &[u8]) -> Result<Kernel, ImageError> {
    Kernel::parse(&mut Cursor::new(image))
}

/// The error's text, which is what a user sees.
fn refusal(image: &[u8]) -> String {
    parse(image).unwrap_err().to_string()
}

/// One segment of `contents` at 2 MiB.
fn one_segment(contents: &[u8]) -> Vec<u8> {
    let size = contents.len() as u64;
    elf(2 * MIB, &[load(CONTENTS, 2 * MIB, size, size + 100)], contents)
}

#[test]
fn a_linked_kernel_has_both_entries_and_arrives_in_memory() {
    let kernel = parse(KERNEL).unwrap();
    assert_eq!(kernel.entry64(), Some(KERNEL_ENTRY64));
    assert_eq!(kernel.pvh_entry(), Some(KERNEL_ENTRY_PVH));
    assert_eq!(kernel.setup_header(), None);
    let [text, data] = kernel.segments() else { panic!("two segments: {kernel:?}") };
    assert_eq!((text.guest_address, data.guest_address), (0x10_0000, 0x10_1000));
    assert_eq!(data.memory_size, data.file_size + 64);
    assert_eq!(kernel.end(), data.end());

    let (mem, _) = machine(16 * MIB);
    kernel.load(&mem, &mut Cursor::new(KERNEL)).unwrap();
    assert_loaded(&mem, &kernel, KERNEL);

    // The same from a file, which is read into guest memory without a copy in between.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(KERNEL).unwrap();
    assert_eq!(Kernel::parse(&mut file).unwrap(), kernel);
    let (mem, _) = machine(16 * MIB);
    kernel.load(&mem, &mut file).unwrap();
    assert_loaded(&mem, &kernel, KERNEL);
}

fn assert_loaded(mem: &GuestMemoryMmap, kernel: &Kernel, image: &[u8]) {
    for segment in kernel.segments() {
        let memory = bytes_at(mem, segment.guest_address, segment.memory_size as usize);
        let (content, bss) = memory.split_at(segment.file_size as usize);
        let offset = segment.file_offset as usize;
        assert_eq!(content, &image[offset..offset + content.len()]);
        assert!(bss.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn used_memory_is_scrubbed() {
    let (mem, _) = machine(16 * MIB);
    for address in [0x7000, 0x9_ffff, layout::ACPI_START, 0x10_1000 + 0x300] {
        mem.write_slice(&[0xff; 1], GuestAddress(address)).unwrap();
    }
    let kernel = parse(KERNEL).unwrap();
    scrub(&mem, &kernel).unwrap();
    kernel.load(&mem, &mut Cursor::new(KERNEL)).unwrap();
    assert_loaded(&mem, &kernel, KERNEL);
    assert!(bytes_at(&mem, 0, 0x10_0000).iter().all(|byte| *byte == 0));
}

#[test]
fn files_that_are_no_kernels_are_told_apart() {
    assert_eq!(refusal(b""), "the kernel image is empty: name an ELF vmlinux or a bzImage");
    let text = "the kernel image is a text file: name an ELF vmlinux or a bzImage";
    assert_eq!(refusal(b"#!/bin/sh\necho hello\n"), text);
    assert_eq!(refusal("größe\n".as_bytes()), text);
    // A character that the end of what is read at once cuts in two.
    assert_eq!(refusal(format!("x{}", "ü".repeat(HEAD_SIZE)).as_bytes()), text);
    assert_eq!(
        refusal(&[0xff, 0xd8, 0xff, 0xe0, 0]),
        "the kernel image is neither an ELF file nor a bzImage (it starts with [ff, d8, ff, e0, 00])"
    );
    // A boot sector without a setup header.
    let mut sector = vec![0; 512];
    put(&mut sector, field::BOOT_FLAG, &[0x55, 0xaa]);
    assert!(matches!(parse(&sector), Err(ImageError::Unknown(_))));
}

#[test]
fn identify_tells_the_formats() {
    assert_eq!(identify(&mut Cursor::new(KERNEL)).unwrap(), Format::Elf);
    assert_eq!(identify(&mut Cursor::new(bzimage(b""))).unwrap(), Format::BzImage);
}

#[test]
fn headers_of_other_kinds_of_elf_file_are_refused_by_name() {
    let changed = |at: usize, bytes: &[u8]| {
        let mut image = one_segment(b"code");
        put(&mut image, at, bytes);
        refusal(&image)
    };
    assert!(changed(4, &[1]).contains("32-bit ELF file"));
    assert!(changed(5, &[2]).contains("big-endian"));
    assert!(changed(18, &183u16.to_le_bytes()).contains("another machine (64-bit Arm)"));
    assert!(changed(18, &999u16.to_le_bytes()).contains("another machine (number 999)"));
    assert!(changed(16, &1u16.to_le_bytes()).contains("an object file, not linked"));
    assert!(changed(16, &3u16.to_le_bytes()).contains("a position-independent executable"));
    assert!(changed(16, &4u16.to_le_bytes()).contains("a core dump"));
    assert!(changed(16, &7u16.to_le_bytes()).contains("an ELF file of type 7"));
    assert!(changed(54, &32u16.to_le_bytes()).contains("32 bytes each: ELF64 has 56"));
    assert!(changed(56, &0u16.to_le_bytes()).contains("no loadable segment"));
    assert!(changed(56, &0xffffu16.to_le_bytes()).contains("65535 program headers: 128"));
    assert!(changed(32, &(1u64 << 60).to_le_bytes()).contains("its program header table ends at byte"));
    assert!(changed(32, &u64::MAX.to_le_bytes()).contains("truncated"));
    assert!(changed(24, &0u64.to_le_bytes()).contains("the ELF entry 0x0 of the kernel image is outside"));
}

#[test]
fn every_truncation_is_noticed() {
    let mut image = one_segment(&[0xcc; 600]);
    put(&mut image, 8, &[0xff; 8]); // so that no prefix is a text
    for size in 4..image.len() {
        let error = parse(&image[..size]).unwrap_err();
        assert!(matches!(error, ImageError::Elf(ElfError::Truncated { .. })), "{size}: {error}");
    }
    assert!(parse(&image).is_ok());
}

/// Tools may put the program headers anywhere: here, behind everything that is read at once.
#[test]
fn the_header_table_may_be_at_the_end() {
    let mut image = one_segment(&[0x90; 2 * HEAD_SIZE]);
    let table = image[64..64 + 56].to_vec();
    let offset = image.len() as u64;
    put(&mut image, 32, &offset.to_le_bytes());
    put(&mut image, 64, &[0; 56]);
    image.extend(table);
    let (mem, _) = machine(16 * MIB);
    let kernel = parse(&image).unwrap();
    kernel.load(&mem, &mut Cursor::new(&image)).unwrap();
    assert_loaded(&mem, &kernel, &image);
    image.pop();
    assert!(refusal(&image).contains("its program header table ends at byte 9272, the file at byte 9271"));
}

#[test]
fn segments_that_contradict_one_another_are_refused() {
    let with = |headers: &[Phdr]| refusal(&elf(2 * MIB, headers, &[0; 64]));
    assert!(with(&[load(CONTENTS, 2 * MIB, 8, 4)]).contains("has 8 bytes in the file but 4 in memory"));
    assert!(
        with(&[load(CONTENTS, 2 * MIB, 65, 65)])
            .contains("its segment ends at byte 1089, the file at byte 1088")
    );
    assert!(with(&[load(u64::MAX, 2 * MIB, 1, 1)]).contains("truncated"));
    assert!(with(&[load(CONTENTS, u64::MAX, 1, 2)]).contains("wraps around the end of the address space"));
    assert!(with(&[load(CONTENTS, 2 * MIB, 1 << 60, 1 << 60)]).contains("truncated"));
    let overlap = [load(CONTENTS, 2 * MIB + 4, 8, 8), load(CONTENTS, 2 * MIB, 5, 5)];
    assert!(with(&overlap).contains("overlap: one ends at 0x200005, the next starts at 0x200004"));
    assert!(with(&[load(CONTENTS, 2 * MIB, 0, 0)]).contains("no loadable segment"));
    let interpreter = Phdr { kind: 3, ..load(CONTENTS, 0, 8, 8) };
    assert!(with(&[load(CONTENTS, 2 * MIB, 8, 8), interpreter]).contains("asks for a dynamic linker"));
}

#[test]
fn segments_must_have_a_place_in_ram() {
    let (mem, _) = machine(16 * MIB);
    let refusal = |address: u64, size: u64| {
        let image = elf(address, &[load(CONTENTS, address, 1, size)], &[0]);
        let kernel = parse(&image).unwrap();
        kernel.load(&mem, &mut Cursor::new(image)).unwrap_err().to_string()
    };
    assert!(refusal(0xf_ffff, 1).contains("wants memory at 0xfffff, below 1 MiB"));
    assert!(
        refusal(15 * MIB, MIB + 1).contains("needs RAM up to 0x1000001: give the machine at least 17 MiB")
    );
    assert!(refusal(MIB, 1 << 60).contains("but RAM for kernels ends at 3 GiB"));
    assert!(refusal(0xd000_0000, 1).contains("wants memory at 0xd0000000..0xd0000001"));
    assert!(refusal(1 << 32, 1).contains("but RAM for kernels ends at 3 GiB"));
    assert!(refusal(MIB, 2 << 30).contains("give the machine at least 2049 MiB"));
}

#[test]
fn a_file_that_shrank_since_it_was_parsed_is_an_error() {
    let image = one_segment(&[1; 64]);
    let kernel = parse(&image).unwrap();
    let (mem, _) = machine(16 * MIB);
    let error = kernel.load(&mem, &mut Cursor::new(&image[..image.len() - 1])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "64 bytes at offset 1024 of the kernel image could not be copied to guest memory"
    );
}

/// An image with one segment and these notes.
fn with_notes(notes: &[u8]) -> Vec<u8> {
    let size = notes.len() as u64;
    let headers = [
        load(CONTENTS, 2 * MIB, size, size + 4096),
        Phdr { kind: 4, offset: CONTENTS, address: 2 * MIB, file_size: size, memory_size: size },
    ];
    elf(0xffff_ffff_8000_0000, &headers, notes)
}

/// `XEN_ELFNOTE_PHYS32_ENTRY`: "the value is the 32-bit physical address at which to enter" (Xen, public/elfnote.h).
#[test]
fn the_pvh_note_is_found_among_others() {
    let mut notes = note(b"GNU\0", 3, &[0xab; 20]);
    notes.extend(note(b"Xen\0", 6, b"linux"));
    notes.extend(note(b"GNU\0", 18, &[0; 4]));
    notes.extend(note(b"Xen\0", 18, &0x20_0010u64.to_le_bytes()));
    let kernel = parse(&with_notes(&notes)).unwrap();
    assert_eq!(kernel.pvh_entry(), Some(0x20_0010));
    // The ELF entry is a virtual address there.
    assert_eq!(kernel.entry64(), None);
    // Four bytes will do, too.
    let kernel = parse(&with_notes(&note(b"Xen\0", 18, &0x20_0020u32.to_le_bytes()))).unwrap();
    assert_eq!(kernel.pvh_entry(), Some(0x20_0020));
}

#[test]
fn notes_that_lead_nowhere_are_refused() {
    let pvh = |value: &[u8]| refusal(&with_notes(&note(b"Xen\0", 18, value)));
    assert!(pvh(&[1, 2]).contains("has 2 bytes and the value 0x0: a 32-bit address is needed"));
    assert!(pvh(&(1u64 << 32).to_le_bytes()).contains("the value 0x100000000"));
    assert!(
        pvh(&0x10_0000u32.to_le_bytes()).contains("the PVH entry 0x100000 of the kernel image is outside")
    );
    let mut beyond = note(b"Xen\0", 18, &[0; 4]);
    put(&mut beyond, 4, &u32::MAX.to_le_bytes());
    assert!(
        refusal(&with_notes(&beyond)).contains("the note at byte 1024 of the kernel image reaches beyond")
    );
    let mut name = note(b"Xen\0", 18, &[0; 4]);
    put(&mut name, 0, &u32::MAX.to_le_bytes());
    assert!(refusal(&with_notes(&name)).contains("reaches beyond the end of its segment"));
    assert!(refusal(&with_notes(&vec![0; 70_000])).contains("has 70000 bytes of notes: 65536 are the most"));
    // Without a note, the ELF entry must be good.
    assert!(refusal(&with_notes(&note(b"Xen\0", 17, &[0; 4]))).contains("the ELF entry"));
}

#[test]
fn a_bzimage_is_planned_to_unpack_itself() {
    let image = bzimage(&[7; 1000]);
    let kernel = parse(&image).unwrap();
    let code = (image.len() - 5 * 512) as u64;
    assert_eq!(
        kernel.segments(),
        [Segment { file_offset: 5 * 512, file_size: code, guest_address: 2 * MIB, memory_size: MIB }]
    );
    assert_eq!((kernel.entry64(), kernel.pvh_entry()), (Some(2 * MIB + 0x200), None));
    assert!(kernel.setup_header().is_some());
    let (mem, _) = machine(16 * MIB);
    kernel.load(&mem, &mut Cursor::new(&image)).unwrap();
    assert_loaded(&mem, &kernel, &image);
}

/// A few program headers around each other and around the limits.
fn headers() -> impl Strategy<Value = Vec<Phdr>> {
    let address = prop_oneof![
        4 => 0x1f_fff0u64..0x20_0030,
        1 => prop::sample::select(vec![0, 0xf_ffff, 0xbfff_fff0, u64::MAX - 4]),
    ];
    let header = (prop::sample::select(vec![1, 1, 1, 0, 2]), 0u64..80, address, 0u64..20, 0u64..24).prop_map(
        |(kind, offset, address, file_size, memory_size)| Phdr {
            kind,
            offset: CONTENTS + offset,
            address,
            file_size,
            memory_size,
        },
    );
    prop::collection::vec(header, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// System V ABI, chapter 5, PT_LOAD: "The bytes from the file are mapped to the beginning of the memory segment.
    /// If the segment's memory size (p_memsz) is larger than the file size (p_filesz), the 'extra' bytes are defined to
    /// hold the value 0 ... The file size may not be larger than the memory size." Whatever the headers say, an image
    /// is accepted exactly if that can be done, and then it is done.
    #[test]
    fn images_are_accepted_exactly_if_they_can_be_loaded(
        headers in headers(),
        entry in 0x1f_fff0u64..0x20_0040,
    ) {
        let contents: Vec<u8> = (1..=90).collect();
        let image = elf(entry, &headers, &contents);
        let loads: Vec<_> =
            headers.iter().filter(|h| h.kind == 1 && (h.memory_size > 0 || h.file_size > 0)).collect();
        let sane = |h: &&Phdr| h.file_size <= h.memory_size
            && h.offset + h.file_size <= image.len() as u64
            && h.address.checked_add(h.memory_size).is_some();
        let ends = |h: &Phdr| h.address + h.memory_size;
        let good = !loads.is_empty()
            && loads.iter().all(sane)
            && loads.iter().enumerate().all(|(i, a)| {
                loads[i + 1..].iter().all(|b| ends(a) <= b.address || ends(b) <= a.address)
            })
            && loads.iter().any(|h| h.address <= entry && entry < ends(h));
        let parsed = parse(&image);
        prop_assert_eq!(parsed.is_ok(), good, "{:?}", parsed);

        let Ok(kernel) = parsed else { return Ok(()) };
        let (mem, _) = machine(16 * MIB);
        let placed = loads.iter().all(|h| h.address >= MIB && ends(h) <= 16 * MIB);
        let loaded = kernel.load(&mem, &mut Cursor::new(&image));
        prop_assert_eq!(loaded.is_ok(), placed, "{:?}", loaded);
        if placed {
            assert_loaded(&mem, &kernel, &image);
        }
    }

    /// The arithmetic of the program header table: "e_phnum * e_phentsize gives the table's size in bytes" from
    /// e_phoff on (System V ABI, chapter 4). No value makes the parser read elsewhere, panic or allocate what the file
    /// does not have.
    #[test]
    fn the_header_table_is_in_the_file_or_refused(
        offset in prop_oneof![0u64..3000, any::<u64>(), u64::MAX - 200..=u64::MAX],
        count in prop_oneof![0u16..20, any::<u16>()],
        size in prop_oneof![Just(56u16), any::<u16>()],
    ) {
        let mut image = one_segment(&[0x90; 900]);
        put(&mut image, 32, &offset.to_le_bytes());
        put(&mut image, 54, &size.to_le_bytes());
        put(&mut image, 56, &count.to_le_bytes());
        let in_file = u128::from(offset) + u128::from(count) * 56 <= image.len() as u128;
        if let Err(ImageError::Elf(ElfError::Truncated { part: "program header table", needed, size })) = parse(&image) {
            prop_assert!(!in_file);
            prop_assert_eq!(needed, u128::from(offset) + u128::from(count) * 56);
            prop_assert_eq!(size, image.len() as u64);
        } else if size == 56 && (1..=128).contains(&count) {
            prop_assert!(in_file);
        }
    }

    /// Any bytes at all, with either magic before them.
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), kind in 0..3) {
        let mut image = match kind {
            0 => b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec(),
            1 => bzimage(b"")[..0x206].to_vec(),
            _ => Vec::new(),
        };
        image.extend(bytes);
        let _ = parse(&image);
    }
}
