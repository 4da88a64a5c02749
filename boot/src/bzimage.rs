//! Linux bzImages: the setup header, and the kernel that is compressed inside.
//!
//! Fields and offsets: Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".

mod lz4;
mod unpack;

use std::ops::Range;

use linux_loader::bootparam::{LOADED_HIGH, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64, setup_header};
use thiserror::Error;
use vm_memory::ByteValued;

use crate::{Segment, layout};
pub use unpack::{UNPACK_LIMIT, UnpackError, unpack};

/// Offsets in the file.
const SETUP_HEADER: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const JUMP_DISTANCE: usize = 0x201;
const MAGIC: usize = 0x202;

const BOOT_FLAG_BYTES: &[u8] = &[0x55, 0xaa];
const MAGIC_BYTES: &[u8] = b"HdrS";

/// Protocol versions that brought a field: payload_offset and payload_length, xloadflags.
const VERSION_PAYLOAD: u16 = 0x0208;
const VERSION_XLOADFLAGS: u16 = 0x020c;

const SECTOR: u64 = 512;
/// "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
const DEFAULT_SETUP_SECTS: u8 = 4;
/// syssize counts these.
const PARAGRAPH: u64 = 16;
/// "The 64-bit entry point: load address plus 0x200."
const ENTRY64_OFFSET: u64 = 0x200;

/// Why a bzImage's header cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// The file ends within its header.
    #[error("the bzImage is truncated: its setup header ends at byte {needed}, the file at byte {size}")]
    TruncatedHeader {
        /// The first byte behind the header.
        needed: u64,
        /// The file's size in bytes.
        size: u64,
    },
    /// The file has no protected-mode part.
    #[error(
        "the bzImage is truncated or damaged: its {sectors} setup sectors end at byte {needed}, the file at byte {size}"
    )]
    SetupSects {
        /// setup_sects.
        sectors: u8,
        /// The first byte behind the sectors.
        needed: u64,
        /// The file's size in bytes.
        size: u64,
    },
    /// An older boot protocol.
    #[error(
        "the bzImage is too old: it has boot protocol {}.{:02}, 2.{needed:02} is needed for {purpose}; boot its vmlinux \
         instead",
        version >> 8,
        version & 0xff
    )]
    TooOld {
        /// Its version: major in the upper byte, minor in the lower.
        version: u16,
        /// The minor version that is needed.
        needed: u16,
        /// What for.
        purpose: &'static str,
    },
    /// LOADED_HIGH is not set: a zImage.
    #[error("the kernel image is a zImage, which loads below 1 MiB: build a bzImage or use its vmlinux")]
    LoadedLow,
    /// XLF_KERNEL_64 is not set: a 32-bit kernel.
    #[error("the bzImage has no 64-bit entry: a 64-bit kernel is needed")]
    NoEntry64,
    /// payload_offset and payload_length point outside the file.
    #[error(
        "the bzImage is truncated or damaged: its payload is at bytes {start}..{end} of a file of {size} bytes"
    )]
    Payload {
        /// The first byte of the payload.
        start: u64,
        /// The first byte behind it.
        end: u64,
        /// The file's size in bytes.
        size: u64,
    },
    /// syssize is larger than the file, or too small to hold the entry.
    #[error(
        "the bzImage is truncated or damaged: its code is {stated} bytes long by its header, {found} in the file"
    )]
    CodeSize {
        /// Bytes by syssize.
        stated: u64,
        /// Bytes behind the setup sectors.
        found: u64,
    },
    /// pref_address + init_size exceeds 64 bits.
    #[error(
        "the bzImage is damaged: {size:#x} bytes at {address:#x} wrap around the end of the address space"
    )]
    Wraps {
        /// pref_address.
        address: u64,
        /// init_size.
        size: u64,
    },
}

/// The setup header of a bzImage, at least protocol 2.08, loaded high, with code behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct SetupHeader {
    raw: setup_header,
    /// Where the protected-mode code starts in the file.
    code_start: u64,
}

impl SetupHeader {
    /// Whether this is the start of a bzImage.
    pub(crate) fn magic_in(head: &[u8]) -> bool {
        let has = |at, bytes: &[u8]| head.get(at..at + bytes.len()) == Some(bytes);
        has(BOOT_FLAG, BOOT_FLAG_BYTES) && has(MAGIC, MAGIC_BYTES)
    }

    /// Reads the header from the first bytes of a file of `file_size` bytes that has the magic.
    pub(crate) fn parse(head: &[u8], file_size: u64) -> Result<Self, HeaderError> {
        // "The size of the header: 0x202 + the byte at 0x201." A later protocol may have fields we do not know, an
        // earlier one lacks some, which then are not header but code.
        let end = MAGIC + usize::from(head.get(JUMP_DISTANCE).copied().unwrap_or(0));
        let end = end.min(SETUP_HEADER + size_of::<setup_header>());
        let Some(bytes) = head.get(SETUP_HEADER..end) else {
            return Err(HeaderError::TruncatedHeader { needed: end as u64, size: file_size });
        };
        let mut raw = setup_header::default();
        raw.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);

        if raw.version < VERSION_PAYLOAD {
            let needed = VERSION_PAYLOAD & 0xff;
            return Err(HeaderError::TooOld {
                version: raw.version,
                needed,
                purpose: "the place of its payload",
            });
        }
        if raw.loadflags & LOADED_HIGH == 0 {
            return Err(HeaderError::LoadedLow);
        }
        let sectors = if raw.setup_sects == 0 { DEFAULT_SETUP_SECTS } else { raw.setup_sects };
        let code_start = (u64::from(sectors) + 1) * SECTOR;
        if code_start >= file_size {
            return Err(HeaderError::SetupSects { sectors, needed: code_start, size: file_size });
        }
        Ok(Self { raw, code_start })
    }

    /// Where in the file the compressed kernel is.
    fn payload(&self, file_size: u64) -> Result<Range<u64>, HeaderError> {
        // 32-bit values and a few sectors: no sum overflows.
        let start = self.code_start + u64::from(self.raw.payload_offset);
        let end = start + u64::from(self.raw.payload_length);
        if end > file_size {
            return Err(HeaderError::Payload { start, end, size: file_size });
        }
        Ok(start..end)
    }

    /// The plan for an image that unpacks itself: its code at the address that it prefers, with the memory it needs
    /// to unpack.
    pub(crate) fn own_segment(&self, file_size: u64) -> Result<Segment, HeaderError> {
        let version = self.raw.version;
        if version < VERSION_XLOADFLAGS {
            let needed = VERSION_XLOADFLAGS & 0xff;
            return Err(HeaderError::TooOld { version, needed, purpose: "its 64-bit entry" });
        }
        if self.raw.xloadflags & XLF_KERNEL_64 == 0 {
            return Err(HeaderError::NoEntry64);
        }
        let stated = u64::from(self.raw.syssize) * PARAGRAPH;
        let found = file_size - self.code_start;
        if stated > found || stated <= ENTRY64_OFFSET {
            return Err(HeaderError::CodeSize { stated, found });
        }
        let address = if self.raw.pref_address == 0 { layout::KERNEL_START } else { self.raw.pref_address };
        let size = u64::from(self.raw.init_size).max(stated);
        if address.checked_add(size).is_none() {
            return Err(HeaderError::Wraps { address, size });
        }
        Ok(Segment {
            file_offset: self.code_start,
            file_size: stated,
            guest_address: address,
            memory_size: size,
        })
    }

    /// The 64-bit entry of code loaded as `segment`.
    pub(crate) fn own_entry(&self, segment: &Segment) -> u64 {
        segment.guest_address + ENTRY64_OFFSET
    }

    /// The address at which the initrd must end at the latest.
    pub(crate) fn initrd_end(&self) -> u64 {
        if self.raw.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G == 0 {
            u64::from(self.raw.initrd_addr_max) + 1
        } else {
            u64::MAX
        }
    }

    /// The longest command line that this kernel reads, in bytes without the NUL.
    pub(crate) fn cmdline_max(&self) -> usize {
        self.raw.cmdline_size as usize
    }

    /// The header as `boot_params` wants it.
    pub(crate) fn raw(&self) -> setup_header {
        self.raw
    }
}

#[cfg(test)]
mod tests;
