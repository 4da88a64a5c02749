//! The lz4 "legacy" frame, which is what the kernel's build writes: a magic number, then blocks, each with its
//! compressed size before it and at most 8 MiB unpacked (lz4, doc/lz4_Frame_format.md, "Legacy frame").

use std::io::{self, Read, Write};

use super::UnpackError;
use super::unpack::Sink;

/// The magic number, which also may stand where a block's size is: another frame follows.
const MAGIC: u32 = 0x184c_2102;

/// What a block holds at most when it is unpacked.
const BLOCK_MAX: usize = 8 << 20;

/// What 8 MiB take at most when they are packed: incompressible bytes, one more in 255, and some.
const PACKED_MAX: usize = BLOCK_MAX + BLOCK_MAX / 255 + 16;

/// Decodes frames until the end of `stream`.
pub(super) fn decode<R: Read, O: Write>(mut stream: R, sink: &mut Sink<'_, O>) -> Result<(), UnpackError> {
    let mut packed = Vec::new();
    let mut block = vec![0; BLOCK_MAX];
    // Every round takes 4 bytes or more from the stream, which is finite.
    while let Some(size) = next_word(&mut stream).map_err(|error| sink.damaged(error))? {
        if size == MAGIC {
            continue;
        }
        let size = size as usize;
        if size == 0 || size > PACKED_MAX {
            return Err(sink.damaged(io::Error::other(format!("it has a block of {size} bytes"))));
        }
        packed.clear();
        stream.by_ref().take(size as u64).read_to_end(&mut packed).map_err(|error| sink.damaged(error))?;
        if packed.len() < size {
            return Err(sink.damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        let unpacked = lz4_flex::block::decompress_into(&packed, &mut block)
            .map_err(|error| sink.damaged(io::Error::other(error)))?;
        sink.take(&block[..unpacked])?;
    }
    Ok(())
}

/// The next little-endian word, or none at the end of the stream.
fn next_word<R: Read>(stream: &mut R) -> io::Result<Option<u32>> {
    let mut bytes = [0; 4];
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(size) => filled += size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(u32::from_le_bytes(bytes)))
}
