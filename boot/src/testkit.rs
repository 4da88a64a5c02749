//! What the tests share: small images made to measure, and guest memory to load them into.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{RamRegions, ram_regions};

pub(crate) const MIB: u64 = 1 << 20;

/// The kernel of `fixtures/kernel.S`, linked by real tools.
pub(crate) const KERNEL: &[u8] = include_bytes!("../fixtures/kernel.elf");
/// Where it can be entered.
pub(crate) const KERNEL_ENTRY64: u64 = 0x10_0017;
pub(crate) const KERNEL_ENTRY_PVH: u32 = 0x10_0014;

/// A machine's RAM.
pub(crate) fn machine(size: u64) -> (GuestMemoryMmap, RamRegions) {
    let ram = ram_regions(size).unwrap();
    let ranges: Vec<_> =
        ram.iter().map(|region| (GuestAddress(region.start), region.size as usize)).collect();
    (GuestMemoryMmap::from_ranges(&ranges).unwrap(), ram)
}

/// What guest memory holds.
pub(crate) fn bytes_at(mem: &GuestMemoryMmap, address: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    mem.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// A program header with the fields that matter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phdr {
    pub(crate) kind: u32,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) file_size: u64,
    pub(crate) memory_size: u64,
}

/// PT_LOAD of `file_size` bytes from `offset` at `address`, and some BSS.
pub(crate) fn load(offset: u64, address: u64, file_size: u64, memory_size: u64) -> Phdr {
    Phdr { kind: 1, offset, address, file_size, memory_size }
}

/// Where the contents of an image made by [`elf`] start, whatever its headers are.
pub(crate) const CONTENTS: u64 = 0x400;

/// An x86-64 executable with these program headers, and `contents` from [`CONTENTS`] on.
pub(crate) fn elf(entry: u64, headers: &[Phdr], contents: &[u8]) -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend(2u16.to_le_bytes()); // ET_EXEC
    image.extend(62u16.to_le_bytes()); // EM_X86_64
    image.extend(1u32.to_le_bytes());
    image.extend(entry.to_le_bytes());
    image.extend(64u64.to_le_bytes()); // e_phoff
    image.extend([0; 12]); // e_shoff, e_flags
    image.extend(64u16.to_le_bytes());
    image.extend(56u16.to_le_bytes()); // e_phentsize
    image.extend((headers.len() as u16).to_le_bytes());
    image.resize(64, 0);
    for header in headers {
        image.extend(header.kind.to_le_bytes());
        image.extend(7u32.to_le_bytes());
        image.extend(header.offset.to_le_bytes());
        image.extend(header.address.to_le_bytes()); // p_vaddr
        image.extend(header.address.to_le_bytes());
        image.extend(header.file_size.to_le_bytes());
        image.extend(header.memory_size.to_le_bytes());
        image.extend(4u64.to_le_bytes());
    }
    assert!(image.len() <= CONTENTS as usize);
    image.resize(CONTENTS as usize, 0);
    image.extend(contents);
    image
}

/// An ELF note: owner, type, value.
pub(crate) fn note(owner: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((owner.len() as u32).to_le_bytes());
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    for part in [owner, value] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Fields of a bzImage that tests change, by their offset in the file (boot.rst, "The Real-Mode Kernel Header").
pub(crate) mod field {
    pub(crate) const SETUP_SECTS: usize = 0x1f1;
    pub(crate) const SYSSIZE: usize = 0x1f4;
    pub(crate) const BOOT_FLAG: usize = 0x1fe;
    pub(crate) const JUMP: usize = 0x200;
    pub(crate) const MAGIC: usize = 0x202;
    pub(crate) const VERSION: usize = 0x206;
    pub(crate) const LOADFLAGS: usize = 0x211;
    pub(crate) const INITRD_ADDR_MAX: usize = 0x22c;
    pub(crate) const XLOADFLAGS: usize = 0x236;
    pub(crate) const CMDLINE_SIZE: usize = 0x238;
    pub(crate) const PAYLOAD_OFFSET: usize = 0x248;
    pub(crate) const PAYLOAD_LENGTH: usize = 0x24c;
    pub(crate) const PREF_ADDRESS: usize = 0x258;
    pub(crate) const INIT_SIZE: usize = 0x260;
}

/// Overwrites bytes of an image.
pub(crate) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Where the protected-mode code of [`bzimage`] starts in the file, and its payload in that.
pub(crate) const BZIMAGE_CODE: usize = 5 * 512;
pub(crate) const BZIMAGE_PAYLOAD: usize = 0x400;

/// A bzImage of protocol 2.15 around a payload.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; BZIMAGE_CODE + BZIMAGE_PAYLOAD];
    image.extend(payload);
    image.resize(image.len().next_multiple_of(512), 0);
    let paragraphs = ((image.len() - BZIMAGE_CODE) / 16) as u32;
    put(&mut image, field::SETUP_SECTS, &[4]);
    put(&mut image, field::SYSSIZE, &paragraphs.to_le_bytes());
    put(&mut image, field::BOOT_FLAG, &[0x55, 0xaa]);
    put(&mut image, field::JUMP, &[0xeb, 0x6a]); // the header ends at 0x26c
    put(&mut image, field::MAGIC, b"HdrS");
    put(&mut image, field::VERSION, &0x020fu16.to_le_bytes());
    put(&mut image, field::LOADFLAGS, &[1]);
    put(&mut image, field::INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
    put(&mut image, field::XLOADFLAGS, &0x3u16.to_le_bytes());
    put(&mut image, field::CMDLINE_SIZE, &2047u32.to_le_bytes());
    put(&mut image, field::PAYLOAD_OFFSET, &(BZIMAGE_PAYLOAD as u32).to_le_bytes());
    put(&mut image, field::PAYLOAD_LENGTH, &(payload.len() as u32).to_le_bytes());
    put(&mut image, field::PREF_ADDRESS, &0x20_0000u64.to_le_bytes());
    put(&mut image, field::INIT_SIZE, &0x10_0000u32.to_le_bytes());
    image
}
