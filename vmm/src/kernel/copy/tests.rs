use std::io::Write;
use std::os::unix::fs::FileExt;

use vm_memory::Bytes;

use super::*;
use crate::config::PageBacking;

/// An ELF with one segment whose bytes start at `offset` in the file and go to 2 MiB in memory.
fn image(offset: u64, bytes: &[u8]) -> (File, Kernel) {
    let mut elf = vec![0; 0x78];
    elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2u16.to_le_bytes()); // e_type: ET_EXEC
    put(18, &62u16.to_le_bytes()); // e_machine: EM_X86_64
    put(20, &1u32.to_le_bytes());
    put(24, &0x20_0000u64.to_le_bytes()); // e_entry
    put(32, &64u64.to_le_bytes()); // e_phoff
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes()); // e_phnum
    put(64, &1u32.to_le_bytes()); // p_type: PT_LOAD
    put(68, &7u32.to_le_bytes());
    put(72, &offset.to_le_bytes());
    put(80, &0x20_0000u64.to_le_bytes()); // p_vaddr
    put(88, &0x20_0000u64.to_le_bytes()); // p_paddr
    put(96, &(bytes.len() as u64).to_le_bytes());
    put(104, &(bytes.len() as u64 + 0x1000).to_le_bytes());
    put(112, &0x1000u64.to_le_bytes());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&elf).unwrap();
    file.set_len(offset + bytes.len() as u64).unwrap();
    // Holes stay holes: only what is not zero is written.
    for (index, page) in bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|&byte| byte != 0))
    {
        file.write_all_at(page, offset + index as u64 * 4096).unwrap();
    }
    let plan = Kernel::parse(&mut file).unwrap();
    (file, plan)
}

fn loaded(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let (mut file, plan) = image(offset, bytes);
    let ram = GuestRam::map(&boot::ram_regions(16 << 20).unwrap(), PageBacking::Host, false).unwrap();
    load(&plan, &ram, &mut file, &[]).unwrap();
    let mut seen = vec![0xaa; bytes.len() + 4096];
    ram.memory().read_slice(&mut seen, GuestAddress(0x20_0000)).unwrap();
    seen
}

#[test]
fn data_is_copied_and_holes_stay_zero() {
    let mut bytes: Vec<u8> = (0..300_123u32).map(|index| (index % 251) as u8).collect();
    bytes[100_000..200_000].fill(0);
    for offset in [0x1000, 0x1800, 0x2000] {
        let seen = loaded(offset, &bytes);
        assert!(seen[..bytes.len()] == bytes[..], "offset {offset:#x}");
        assert!(seen[bytes.len()..].iter().all(|&byte| byte == 0), "offset {offset:#x}");
    }
}

#[test]
fn a_segment_that_is_one_hole_needs_no_copy() {
    let seen = loaded(0x1000, &vec![0; 1 << 20]);
    assert!(seen.iter().all(|&byte| byte == 0));
}

/// Where `bytes` of [`image`] can be mapped.
fn table(offset: u64, start: u64, size: u64) -> Segment {
    Segment {
        file_offset: offset + start,
        file_size: size,
        guest_address: 0x20_0000 + start,
        memory_size: size,
    }
}

#[test]
fn a_table_is_a_private_mapping_of_the_file() {
    let bytes: Vec<u8> = (0..0x10_0000u32).map(|index| (index % 251) as u8).collect();
    let (mut file, plan) = image(0x1000, &bytes);
    let ram = GuestRam::map(&boot::ram_regions(16 << 20).unwrap(), PageBacking::Host, false).unwrap();
    let tables = [table(0x1000, 0x4000, 0x8000), table(0x1000, 0xf_0000, 0x1_0000)];
    load(&plan, &ram, &mut file, &tables).unwrap();
    let mut seen = vec![0; bytes.len()];
    ram.memory().read_slice(&mut seen, GuestAddress(0x20_0000)).unwrap();
    assert!(seen == bytes);

    // The file's page shows through until the guest writes to it.
    file.write_all_at(b"changed", 0x1000 + 0x5000).unwrap();
    ram.memory().read_slice(&mut seen[..7], GuestAddress(0x20_5000)).unwrap();
    assert_eq!(&seen[..7], b"changed");
    ram.memory().write_slice(b"written", GuestAddress(0x20_5000)).unwrap();
    file.read_exact_at(&mut seen[..7], 0x1000 + 0x5000).unwrap();
    assert_eq!(&seen[..7], b"changed");
}

#[test]
fn where_huge_or_filled_pages_are_asked_for_nothing_is_mapped() {
    let bytes = vec![7; 0x10_0000];
    for (backing, prefault) in [(PageBacking::Transparent, false), (PageBacking::Host, true)] {
        let (mut file, plan) = image(0x1000, &bytes);
        let ram = GuestRam::map(&boot::ram_regions(16 << 20).unwrap(), backing, prefault).unwrap();
        load(&plan, &ram, &mut file, &[table(0x1000, 0x4000, 0x8000)]).unwrap();
        file.write_all_at(b"changed", 0x1000 + 0x5000).unwrap();
        let mut seen = [0; 7];
        ram.memory().read_slice(&mut seen, GuestAddress(0x20_5000)).unwrap();
        assert_eq!(seen, [7; 7]);
    }
}
