//! Decompresses the kernel inside a bzImage on the host, where it costs a tenth of what it would in the guest, and is
//! paid once.
//!
//! The kernel's build appends the unpacked size to every format but gzip, which ends with it anyway (Linux,
//! arch/x86/boot/compressed/mkpiggy.c). So the size is known, and checked against the limit, before anything is
//! unpacked; a stream that yields more or less is refused.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};

use lzma_rust2::{LzmaReader, XzReader};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use thiserror::Error;

use super::{HeaderError, SetupHeader, lz4};

/// A limit for [`unpack`] that no kernel comes near: distributions' take 50 to 100 MiB.
pub const UNPACK_LIMIT: u64 = 512 << 20;

/// The largest dictionary or window that a stream may ask for: what `xz_wrap.sh` and `zstd --ultra -22` of the kernel's
/// build use at most. It bounds the memory of the decoders.
const WINDOW_MAX: u64 = 128 << 20;

/// What the decoders need besides: probability models, Huffman tables, one block.
const WINDOW_OVERHEAD: u64 = 1 << 20;

/// The size that the build appends to the payload.
const TRAILER_SIZE: u64 = 4;

/// Bytes that tell the formats apart.
const MAGIC_SIZE: usize = 6;

const COPY_SIZE: usize = 128 << 10;

/// Why a bzImage cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// Not a bzImage, or its header is damaged.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It does not start like one.
    #[error("the kernel image is not a bzImage: there is nothing to unpack")]
    NotBzImage,
    /// The image cannot be read.
    #[error("the bzImage cannot be read")]
    Read(#[source] io::Error),
    /// The output cannot be written.
    #[error("the unpacked kernel cannot be written")]
    Write(#[source] io::Error),
    /// No format that Linux uses.
    #[error("the bzImage is compressed in an unknown way (its payload starts with {0:02x?})")]
    UnknownFormat(Vec<u8>),
    /// The size that it states exceeds the caller's limit.
    #[error("the bzImage unpacks to {size} bytes by its trailer: the limit is {limit}")]
    TooLarge {
        /// What it states.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The stream contradicts itself, or wants more memory than any kernel's does.
    #[error("the {format} stream in the bzImage is damaged")]
    Damaged {
        /// The format.
        format: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// The stream ended early, or did not end.
    #[error(
        "the {format} stream in the bzImage has {found} bytes unpacked, its trailer says {stated}: it is damaged"
    )]
    Size {
        /// The format.
        format: &'static str,
        /// What the trailer says.
        stated: u64,
        /// What came out before it was stopped.
        found: u64,
    },
}

/// Decompresses the kernel in `image` to `out`, which needs no buffering, and returns its size in bytes.
///
/// Memory stays below the window that the stream asks for, at most 128 MiB, and some 20 MiB.
///
/// # Errors
/// [`UnpackError`]; bytes may have been written before a damaged stream is noticed.
pub fn unpack<I, O>(image: &mut I, out: &mut O, limit: u64) -> Result<u64, UnpackError>
where
    I: Read + Seek,
    O: Write,
{
    let payload = Payload::open(image)?;
    if payload.unpacked_size > limit {
        return Err(UnpackError::TooLarge { size: payload.unpacked_size, limit });
    }
    let format = Format::of(&payload.magic)?;
    // gzip's trailer is its own, and its decoder checks it.
    let trailer = if format == Format::Gzip { 0 } else { TRAILER_SIZE };
    image.seek(SeekFrom::Start(payload.start)).map_err(UnpackError::Read)?;
    let stream = BufReader::with_capacity(COPY_SIZE, image.take(payload.size - trailer));

    let mut sink = Sink { out, format: format.name(), stated: payload.unpacked_size, found: 0 };
    format.decode(stream, &mut sink)?;
    sink.finish()
}

/// The compressed kernel in an image.
struct Payload {
    start: u64,
    size: u64,
    magic: [u8; MAGIC_SIZE],
    unpacked_size: u64,
}

impl Payload {
    fn open<I: Read + Seek>(image: &mut I) -> Result<Self, UnpackError> {
        const HEAD_SIZE: u64 = 1024;
        let file_size = image.seek(SeekFrom::End(0)).map_err(UnpackError::Read)?;
        image.rewind().map_err(UnpackError::Read)?;
        let mut head = Vec::with_capacity(HEAD_SIZE as usize);
        image.by_ref().take(HEAD_SIZE).read_to_end(&mut head).map_err(UnpackError::Read)?;
        if !SetupHeader::magic_in(&head) {
            return Err(UnpackError::NotBzImage);
        }
        let range = SetupHeader::parse(&head, file_size)?.payload(file_size)?;
        let size = range.end - range.start;
        if size < MAGIC_SIZE as u64 + TRAILER_SIZE {
            return Err(HeaderError::Payload { start: range.start, end: range.end, size: file_size }.into());
        }
        let mut magic = [0; MAGIC_SIZE];
        read_at(image, range.start, &mut magic)?;
        let mut trailer = [0; TRAILER_SIZE as usize];
        read_at(image, range.end - TRAILER_SIZE, &mut trailer)?;
        Ok(Self { start: range.start, size, magic, unpacked_size: u64::from(u32::from_le_bytes(trailer)) })
    }
}

fn read_at<I: Read + Seek>(image: &mut I, offset: u64, bytes: &mut [u8]) -> Result<(), UnpackError> {
    image.seek(SeekFrom::Start(offset)).map_err(UnpackError::Read)?;
    image.read_exact(bytes).map_err(UnpackError::Read)
}

/// What Linux compresses kernels with (boot.rst, "payload_offset").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lz4,
    Zstd,
}

impl Format {
    fn of(magic: &[u8; MAGIC_SIZE]) -> Result<Self, UnpackError> {
        match magic {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [b'B', b'Z', b'h', ..] => Ok(Self::Bzip2),
            [0x5d, 0x00, 0x00, ..] => Ok(Self::Lzma),
            [0xfd, b'7', b'z', b'X', b'Z', 0x00] => Ok(Self::Xz),
            [0x02, 0x21, 0x4c, 0x18, ..] => Ok(Self::Lz4),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            _ => Err(UnpackError::UnknownFormat(magic.to_vec())),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    fn decode<R: BufRead, O: Write>(self, stream: R, sink: &mut Sink<'_, O>) -> Result<(), UnpackError> {
        const MEMORY_KIB: u32 = ((WINDOW_MAX + WINDOW_OVERHEAD) >> 10) as u32;
        match self {
            Self::Gzip => sink.pump(flate2::bufread::GzDecoder::new(stream)),
            Self::Bzip2 => sink.pump(bzip2::bufread::BzDecoder::new(stream)),
            Self::Lzma => {
                let decoder = LzmaReader::new_mem_limit(stream, MEMORY_KIB, None);
                sink.pump(decoder.map_err(|error| sink.damaged(error))?)
            }
            Self::Xz => sink.pump(XzReader::new_mem_limit(stream, false, MEMORY_KIB)),
            Self::Lz4 => lz4::decode(stream, sink),
            Self::Zstd => zstd(stream, sink),
        }
    }
}

fn zstd<R: Read, O: Write>(stream: R, sink: &mut Sink<'_, O>) -> Result<(), UnpackError> {
    let mut frames = FrameDecoder::new();
    frames.set_max_window_size(WINDOW_MAX);
    let mut decoder = StreamingDecoder::new_with_decoder(stream, frames)
        .map_err(|error| sink.damaged(io::Error::other(error)))?;
    sink.pump(&mut decoder)?;
    // The decoder computes the checksum, but does not compare it.
    let stored = decoder.decoder.get_checksum_from_data();
    if stored.is_some() && stored != decoder.decoder.get_calculated_checksum() {
        return Err(sink.damaged(io::Error::new(io::ErrorKind::InvalidData, "its checksum does not match")));
    }
    Ok(())
}

/// Takes what a decoder yields, and stops it at the size that the trailer states.
pub(super) struct Sink<'a, O> {
    out: &'a mut O,
    format: &'static str,
    stated: u64,
    found: u64,
}

impl<O: Write> Sink<'_, O> {
    /// Takes everything that `decoder` has.
    fn pump<R: Read>(&mut self, mut decoder: R) -> Result<(), UnpackError> {
        let mut buffer = vec![0; COPY_SIZE];
        loop {
            match decoder.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(size) => self.take(&buffer[..size])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.damaged(error)),
            }
        }
    }

    /// Takes some bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        self.found += bytes.len() as u64;
        if self.found > self.stated {
            return Err(self.wrong_size());
        }
        self.out.write_all(bytes).map_err(UnpackError::Write)
    }

    /// The stream contradicts itself.
    pub(super) fn damaged(&self, source: io::Error) -> UnpackError {
        UnpackError::Damaged { format: self.format, source }
    }

    fn wrong_size(&self) -> UnpackError {
        UnpackError::Size { format: self.format, stated: self.stated, found: self.found }
    }

    fn finish(self) -> Result<u64, UnpackError> {
        if self.found == self.stated { Ok(self.found) } else { Err(self.wrong_size()) }
    }
}

#[cfg(test)]
mod tests;
