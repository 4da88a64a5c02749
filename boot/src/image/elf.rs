//! ELF64 executables for x86-64: the plan is their PT_LOAD program headers, by physical address.
//!
//! Field names and rules: System V ABI, chapter 5, "Program Header".

use std::io::{Read, Seek, SeekFrom};

use linux_loader::elf::{
    EM_X86_64, ET_CORE, ET_DYN, ET_EXEC, ET_REL, Elf64_Ehdr, Elf64_Phdr, PT_INTERP, PT_LOAD, PT_NOTE,
};
use thiserror::Error;
use vm_memory::ByteValued;

use super::{Head, ImageError, Kernel, Segment, notes};

pub(super) const MAGIC: &[u8] = b"\x7fELF";

/// Where `e_ident` tells class and byte order (System V ABI, chapter 4).
const EI_CLASS: usize = 4;
const EI_DATA: usize = 5;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;

const EHDR_SIZE: usize = size_of::<Elf64_Ehdr>();
const PHDR_SIZE: usize = size_of::<Elf64_Phdr>();

/// More than any kernel has (Linux: 5), and few enough to be read and sorted at once.
const PHDR_COUNT_MAX: u16 = 128;

/// Why an ELF file is not a kernel that can be booted here.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ElfError {
    /// Something that a header points to lies behind the end of the file.
    #[error("the kernel image is truncated: its {part} ends at byte {needed}, the file at byte {size}")]
    Truncated {
        /// What is cut off.
        part: &'static str,
        /// The first byte behind it.
        needed: u128,
        /// The file's size in bytes.
        size: u64,
    },
    /// EI_CLASS is not ELFCLASS64.
    #[error("the kernel image is a 32-bit ELF file (class {0}): a 64-bit kernel is needed")]
    NotClass64(u8),
    /// EI_DATA is not ELFDATA2LSB.
    #[error("the kernel image is a big-endian ELF file (data encoding {0}): an x86-64 kernel is needed")]
    NotLittleEndian(u8),
    /// e_machine is not EM_X86_64.
    #[error("the kernel image is for another machine ({}): an x86-64 kernel is needed", machine_name(*.0))]
    OtherMachine(u16),
    /// e_type is not ET_EXEC.
    #[error("the kernel image is {}: an executable linked at a fixed address is needed", type_name(*.0))]
    NotExecutable(u16),
    /// PT_INTERP: it is made for an operating system, not a machine.
    #[error("the kernel image asks for a dynamic linker: it is a program, not a kernel")]
    Interpreter,
    /// e_phentsize is not what ELF64 has.
    #[error("the program headers of the kernel image are {0} bytes each: ELF64 has 56")]
    HeaderSize(u16),
    /// e_phnum is beyond what any kernel has.
    #[error("the kernel image has {0} program headers: {PHDR_COUNT_MAX} are the most that are read")]
    HeaderCount(u16),
    /// p_filesz exceeds p_memsz.
    #[error(
        "program header {index} of the kernel image has {file_size} bytes in the file but {memory_size} in memory"
    )]
    FileLargerThanMemory {
        /// Which program header.
        index: usize,
        /// p_filesz.
        file_size: u64,
        /// p_memsz.
        memory_size: u64,
    },
    /// p_paddr + p_memsz exceeds 64 bits.
    #[error(
        "program header {index} of the kernel image wraps around the end of the address space: {memory_size} bytes \
         at {address:#x}"
    )]
    Wraps {
        /// Which program header.
        index: usize,
        /// p_paddr.
        address: u64,
        /// p_memsz.
        memory_size: u64,
    },
    /// Two segments share an address.
    #[error("two segments of the kernel image overlap: one ends at {end:#x}, the next starts at {start:#x}")]
    Overlap {
        /// The first address behind the lower segment.
        end: u64,
        /// The first address of the higher one.
        start: u64,
    },
    /// No PT_LOAD with memory.
    #[error("the kernel image has no loadable segment: it is not a linked kernel")]
    NoSegment,
    /// The notes are larger than any kernel's.
    #[error("the kernel image has {size} bytes of notes: {} are the most that are read", notes::SIZE_MAX)]
    NotesTooLarge {
        /// p_filesz of PT_NOTE.
        size: u64,
    },
    /// A note reaches beyond its segment.
    #[error("the note at byte {offset} of the kernel image reaches beyond the end of its segment")]
    BadNote {
        /// Offset in the file.
        offset: u64,
    },
    /// The PVH note holds no 32-bit address.
    #[error(
        "the PVH note of the kernel image has {size} bytes and the value {value:#x}: a 32-bit address is needed"
    )]
    BadPvhNote {
        /// Size of the note's descriptor.
        size: u32,
        /// Its value, where it has 4 or 8 bytes.
        value: u64,
    },
    /// An entry point that no segment contains.
    #[error("the {protocol} entry {address:#x} of the kernel image is outside every segment")]
    EntryOutside {
        /// Which entry.
        protocol: &'static str,
        /// Its address.
        address: u64,
    },
}

fn machine_name(machine: u16) -> String {
    use linux_loader::elf::{EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390};
    let name = match machine {
        EM_386 => "32-bit x86",
        EM_AARCH64 => "64-bit Arm",
        EM_ARM => "32-bit Arm",
        EM_RISCV => "RISC-V",
        EM_PPC64 => "PowerPC",
        EM_S390 => "S/390",
        _ => return format!("number {machine}"),
    };
    name.to_owned()
}

fn type_name(elf_type: u16) -> String {
    let name = match elf_type {
        ET_REL => "an object file, not linked",
        ET_DYN => "a position-independent executable or shared library",
        ET_CORE => "a core dump",
        _ => return format!("an ELF file of type {elf_type}"),
    };
    name.to_owned()
}

/// Makes the plan for an ELF file.
pub(super) fn parse<I: Read + Seek>(head: &Head, image: &mut I) -> Result<Kernel, ImageError> {
    let header = file_header(head)?;
    let program_headers = program_headers(&header, head, image)?;
    let segments = segments(&program_headers, head.file_size)?;
    let pvh_entry = pvh_entry(&program_headers, head, image)?;

    let in_segment = |address: u64| segments.iter().any(|segment| segment.contains(address));
    if let Some(address) = pvh_entry.map(u64::from).filter(|address| !in_segment(*address)) {
        return Err(ElfError::EntryOutside { protocol: "PVH", address }.into());
    }
    // Kernels that are entered through PVH alone may have a virtual address here.
    let entry64 = Some(header.e_entry).filter(|address| in_segment(*address));
    if entry64.is_none() && pvh_entry.is_none() {
        return Err(ElfError::EntryOutside { protocol: "ELF", address: header.e_entry }.into());
    }
    Ok(Kernel { segments, entry64, pvh_entry, setup_header: None })
}

/// Reads the ELF header and refuses what is not an x86-64 executable.
fn file_header(head: &Head) -> Result<Elf64_Ehdr, ElfError> {
    let bytes = &head.bytes;
    let truncated =
        ElfError::Truncated { part: "ELF header", needed: EHDR_SIZE as u128, size: head.file_size };
    // The class and byte order first: the other fields depend on them.
    if let Some(class) = bytes.get(EI_CLASS).filter(|class| **class != CLASS_64) {
        return Err(ElfError::NotClass64(*class));
    }
    if let Some(encoding) = bytes.get(EI_DATA).filter(|encoding| **encoding != LITTLE_ENDIAN) {
        return Err(ElfError::NotLittleEndian(*encoding));
    }
    let header = Elf64_Ehdr::read_exact_from(&bytes[..]).map_err(|_| truncated)?;
    if header.e_machine != EM_X86_64 {
        return Err(ElfError::OtherMachine(header.e_machine));
    }
    if header.e_type != ET_EXEC {
        return Err(ElfError::NotExecutable(header.e_type));
    }
    Ok(header)
}

/// Reads the program header table.
fn program_headers<I: Read + Seek>(
    header: &Elf64_Ehdr,
    head: &Head,
    image: &mut I,
) -> Result<Vec<Elf64_Phdr>, ImageError> {
    let count = header.e_phnum;
    if count == 0 {
        return Err(ElfError::NoSegment.into());
    }
    if usize::from(header.e_phentsize) != PHDR_SIZE {
        return Err(ElfError::HeaderSize(header.e_phentsize).into());
    }
    if count > PHDR_COUNT_MAX {
        return Err(ElfError::HeaderCount(count).into());
    }
    let size = usize::from(count) * PHDR_SIZE;
    let table = read_part(head, image, "program header table", header.e_phoff, size as u64)?;
    let headers = table.chunks_exact(PHDR_SIZE).map(Elf64_Phdr::read_exact_from).collect::<Result<_, _>>()?;
    Ok(headers)
}

/// Reads a part of the file, from the bytes that are already here if it lies in them.
fn read_part<I: Read + Seek>(
    head: &Head,
    image: &mut I,
    part: &'static str,
    offset: u64,
    size: u64,
) -> Result<Vec<u8>, ImageError> {
    let needed = u128::from(offset) + u128::from(size);
    if needed > u128::from(head.file_size) {
        return Err(ElfError::Truncated { part, needed, size: head.file_size }.into());
    }
    // Both fit now: the file is as large.
    if let Some(bytes) = head.bytes.get(offset as usize..(offset + size) as usize) {
        return Ok(bytes.to_vec());
    }
    image.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; size as usize];
    image.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The PT_LOAD entries as a plan: sorted, and checked against the file and one another.
fn segments(program_headers: &[Elf64_Phdr], file_size: u64) -> Result<Vec<Segment>, ElfError> {
    let mut segments = Vec::new();
    for (index, header) in program_headers.iter().enumerate() {
        match header.p_type {
            PT_LOAD if header.p_memsz > 0 || header.p_filesz > 0 => {
                segments.push(segment(index, header, file_size)?);
            }
            PT_INTERP => return Err(ElfError::Interpreter),
            _ => {}
        }
    }
    segments.sort_unstable_by_key(|segment| segment.guest_address);
    for pair in segments.windows(2) {
        let (end, start) = (pair[0].end(), pair[1].guest_address);
        if end > start {
            return Err(ElfError::Overlap { end, start });
        }
    }
    if segments.is_empty() { Err(ElfError::NoSegment) } else { Ok(segments) }
}

fn segment(index: usize, header: &Elf64_Phdr, file_size: u64) -> Result<Segment, ElfError> {
    if header.p_filesz > header.p_memsz {
        return Err(ElfError::FileLargerThanMemory {
            index,
            file_size: header.p_filesz,
            memory_size: header.p_memsz,
        });
    }
    let needed = u128::from(header.p_offset) + u128::from(header.p_filesz);
    if needed > u128::from(file_size) {
        return Err(ElfError::Truncated { part: "segment", needed, size: file_size });
    }
    if header.p_paddr.checked_add(header.p_memsz).is_none() {
        return Err(ElfError::Wraps { index, address: header.p_paddr, memory_size: header.p_memsz });
    }
    Ok(Segment {
        file_offset: header.p_offset,
        file_size: header.p_filesz,
        guest_address: header.p_paddr,
        memory_size: header.p_memsz,
    })
}

/// Looks for the PVH note in every PT_NOTE.
fn pvh_entry<I: Read + Seek>(
    program_headers: &[Elf64_Phdr],
    head: &Head,
    image: &mut I,
) -> Result<Option<u32>, ImageError> {
    for header in program_headers.iter().filter(|header| header.p_type == PT_NOTE) {
        if header.p_filesz > notes::SIZE_MAX {
            return Err(ElfError::NotesTooLarge { size: header.p_filesz }.into());
        }
        let bytes = read_part(head, image, "note segment", header.p_offset, header.p_filesz)?;
        if let Some(entry) = notes::pvh_entry(&bytes, header.p_offset, header.p_align)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
