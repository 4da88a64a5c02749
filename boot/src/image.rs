//! What is this file, and what of it goes where?

mod elf;
mod notes;
mod tables;

use std::io::{self, Read, Seek, SeekFrom};

use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryError, Permissions, ReadVolatile};

use crate::bzimage::{HeaderError, SetupHeader};
use crate::{copy, layout};
pub use elf::ElfError;

/// How much of a file is read at once to see what it is: the whole setup header of a bzImage, and nearly always an
/// ELF file's program headers too.
const HEAD_SIZE: usize = 4096;

/// Why a file is not a kernel that can be booted here.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Zero bytes.
    #[error("the kernel image is empty: name an ELF vmlinux or a bzImage")]
    Empty,
    /// A readable text, for example a script or a configuration.
    #[error("the kernel image is a text file: name an ELF vmlinux or a bzImage")]
    Text,
    /// Neither ELF nor bzImage.
    #[error("the kernel image is neither an ELF file nor a bzImage (it starts with {0:02x?})")]
    Unknown(Vec<u8>),
    /// ELF, but not bootable.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A bzImage, but not bootable.
    #[error(transparent)]
    BzImage(#[from] HeaderError),
    /// A segment would lie over what boot itself writes.
    #[error(
        "the kernel image wants memory at {start:#x}, below 1 MiB, where the boot structures are: link it at 1 MiB or \
         above"
    )]
    BelowKernelStart {
        /// The segment's first address.
        start: u64,
    },
    /// A segment reaches into the MMIO gap, or lies above it, where the entry's page tables do not reach.
    #[error(
        "the kernel image wants memory at {start:#x}..{end:#x}, but RAM for kernels ends at 3 GiB: link it lower"
    )]
    AboveGapStart {
        /// The segment's first address.
        start: u64,
        /// The first address behind it.
        end: u64,
    },
    /// A segment ends above the end of RAM.
    #[error("the kernel image needs RAM up to {end:#x}: give the machine at least {} MiB", end.div_ceil(1 << 20))]
    LargerThanRam {
        /// The first address behind the segment.
        end: u64,
    },
    /// The file cannot be read.
    #[error("the kernel image cannot be read")]
    Read(#[from] io::Error),
    /// Copying failed: the file shrank or cannot be read.
    #[error("{size} bytes at offset {offset} of the kernel image could not be copied to guest memory")]
    Load {
        /// Offset in the file.
        offset: u64,
        /// Bytes to copy.
        size: u64,
        /// Why.
        source: GuestMemoryError,
    },
    /// Memory could not be zeroed.
    #[error("guest memory could not be cleared")]
    Scrub(#[source] GuestMemoryError),
}

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An ELF file.
    Elf,
    /// A Linux bzImage (or its older kin, which [`Kernel::parse`] refuses).
    BzImage,
}

/// The start of a file, and how long it is.
struct Head {
    bytes: Vec<u8>,
    file_size: u64,
}

impl Head {
    fn read<I: Read + Seek>(image: &mut I) -> Result<Self, ImageError> {
        let file_size = image.seek(SeekFrom::End(0))?;
        image.rewind()?;
        let mut bytes = Vec::with_capacity(HEAD_SIZE);
        image.by_ref().take(HEAD_SIZE as u64).read_to_end(&mut bytes)?;
        Ok(Self { bytes, file_size })
    }

    fn format(&self) -> Result<Format, ImageError> {
        if self.bytes.is_empty() {
            Err(ImageError::Empty)
        } else if self.bytes.starts_with(elf::MAGIC) {
            Ok(Format::Elf)
        } else if SetupHeader::magic_in(&self.bytes) {
            Ok(Format::BzImage)
        } else if is_text(&self.bytes) {
            Err(ImageError::Text)
        } else {
            Err(ImageError::Unknown(self.bytes[..self.bytes.len().min(8)].to_vec()))
        }
    }
}

/// Whether this is UTF-8, but for a character that may be cut off at the end, without control characters that no
/// text has.
fn is_text(bytes: &[u8]) -> bool {
    let complete = match std::str::from_utf8(bytes) {
        Ok(_) => bytes,
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Err(_) => return false,
    };
    !complete.is_empty() && complete.iter().all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace())
}

/// Tells what `image` is, from its first bytes.
///
/// # Errors
/// [`ImageError`] if it is neither ELF nor bzImage, or cannot be read.
pub fn identify<I: Read + Seek>(image: &mut I) -> Result<Format, ImageError> {
    Head::read(image)?.format()
}

/// One range of guest memory, and what of the file goes to its start. The rest, the kernel's BSS, is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file the bytes are.
    pub file_offset: u64,
    /// How many there are: at most `memory_size`.
    pub file_size: u64,
    /// Where they go.
    pub guest_address: u64,
    /// How much memory the kernel takes there: never 0.
    pub memory_size: u64,
}

impl Segment {
    /// The first address behind the segment.
    pub fn end(&self) -> u64 {
        self.guest_address + self.memory_size
    }

    fn contains(&self, address: u64) -> bool {
        (self.guest_address..self.end()).contains(&address)
    }
}

/// A kernel that can be booted: what goes where, and where it can be entered.
///
/// What holds of every value: there is at least one segment; they are sorted by address, do not overlap or wrap, and
/// their bytes are in the file; there is at least one entry, and each lies in a segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    segments: Vec<Segment>,
    entry64: Option<u64>,
    pvh_entry: Option<u32>,
    setup_header: Option<SetupHeader>,
}

impl Kernel {
    /// Reads the headers of `image` and plans what goes where. An ELF file is planned by its program headers; a
    /// bzImage to run its own decompressor, which is the fallback for those that [`unpack`](crate::unpack) cannot read.
    ///
    /// # Errors
    /// [`ImageError`] if the file is not a 64-bit x86 kernel, or contradicts itself.
    pub fn parse<I: Read + Seek>(image: &mut I) -> Result<Self, ImageError> {
        let head = Head::read(image)?;
        match head.format()? {
            Format::Elf => Ok(elf::parse(&head, image)?),
            Format::BzImage => {
                let header = SetupHeader::parse(&head.bytes, head.file_size)?;
                let segment = header.own_segment(head.file_size)?;
                Ok(Self {
                    entry64: Some(header.own_entry(&segment)),
                    segments: vec![segment],
                    pvh_entry: None,
                    setup_header: Some(header),
                })
            }
        }
    }

    /// What goes where, lowest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whole pages of `image`, the file that was parsed, that the kernel never writes and seldom reads: parts of segments,
    /// for a caller that would rather map them than copy them. Only large ones count, and those that tell nothing of a
    /// guest's secrets to who can see which of them it reads.
    pub fn constant_tables<I: Read + Seek>(&self, image: &mut I) -> Vec<Segment> {
        tables::find(image, &self.segments)
    }

    /// Where the Linux 64-bit protocol enters, if the image has such an entry.
    pub fn entry64(&self) -> Option<u64> {
        self.entry64
    }

    /// Where the PVH protocol enters, if the image has the note.
    pub fn pvh_entry(&self) -> Option<u32> {
        self.pvh_entry
    }

    /// The setup header of a bzImage that unpacks itself.
    pub fn setup_header(&self) -> Option<&SetupHeader> {
        self.setup_header.as_ref()
    }

    /// The first address behind the last segment.
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    /// The address at which an initrd must end at the latest.
    pub(crate) fn initrd_end(&self) -> u64 {
        self.setup_header.as_ref().map_or(u64::MAX, SetupHeader::initrd_end)
    }

    /// The longest command line that the image says its kernel takes.
    pub(crate) fn cmdline_max(&self) -> Option<usize> {
        self.setup_header.as_ref().map(SetupHeader::cmdline_max)
    }

    /// Makes sure that every segment has its place: in RAM, above boot's own structures, below the MMIO gap.
    ///
    /// # Errors
    /// [`ImageError`] names the address that is not available.
    pub fn check<M: GuestMemory>(&self, mem: &M) -> Result<(), ImageError> {
        for segment in &self.segments {
            let (start, end) = (segment.guest_address, segment.end());
            if start < layout::KERNEL_START {
                return Err(ImageError::BelowKernelStart { start });
            }
            if end > layout::MMIO_GAP_START {
                return Err(ImageError::AboveGapStart { start, end });
            }
            if !mem.check_range(GuestAddress(start), segment.memory_size as usize, Permissions::Write) {
                return Err(ImageError::LargerThanRam { end });
            }
        }
        Ok(())
    }

    /// Checks the plan and copies the segments from `image`, the file that was parsed. The BSS is not written: fresh
    /// memory reads as zero (see [`scrub`]). A caller that maps the file's pages instead calls [`check`](Self::check)
    /// and leaves this out.
    ///
    /// # Errors
    /// [`ImageError`] if a segment has no place, or the file cannot be read.
    pub fn load<M, I>(&self, mem: &M, image: &mut I) -> Result<(), ImageError>
    where
        M: GuestMemory,
        I: Seek + ReadVolatile,
    {
        self.check(mem)?;
        for segment in self.segments.iter().filter(|segment| segment.file_size > 0) {
            image.seek(SeekFrom::Start(segment.file_offset))?;
            let (offset, size) = (segment.file_offset, segment.file_size);
            copy::read_exact(mem, GuestAddress(segment.guest_address), size, image)
                .map_err(|source| ImageError::Load { offset, size, source })?;
        }
        Ok(())
    }
}

/// Makes used memory as good as fresh for this kernel: zeroes everything below 1 MiB and the kernel's segments.
///
/// # Errors
/// [`ImageError`] if a segment has no place in `mem`.
pub fn scrub<M: GuestMemory>(mem: &M, kernel: &Kernel) -> Result<(), ImageError> {
    kernel.check(mem)?;
    let low = (0, layout::LOW_RESERVED_START.next_multiple_of(layout::PAGE_SIZE));
    let acpi = (layout::ACPI_START, layout::KERNEL_START);
    let segments = kernel.segments.iter().map(|segment| (segment.guest_address, segment.end()));
    for (start, end) in [low, acpi].into_iter().chain(segments) {
        copy::read_exact(mem, GuestAddress(start), end - start, &mut Zeros).map_err(ImageError::Scrub)?;
    }
    Ok(())
}

/// A source of zeros.
struct Zeros;

impl ReadVolatile for Zeros {
    fn read_volatile<B: vm_memory::bitmap::BitmapSlice>(
        &mut self,
        buf: &mut vm_memory::VolatileSlice<B>,
    ) -> Result<usize, vm_memory::VolatileMemoryError> {
        const CHUNK: [u8; HEAD_SIZE] = [0; HEAD_SIZE];
        let size = buf.len().min(CHUNK.len());
        buf.subslice(0, size)?.copy_from(&CHUNK[..size]);
        Ok(size)
    }
}

#[cfg(test)]
mod tests;
