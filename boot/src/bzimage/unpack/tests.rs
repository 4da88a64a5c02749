use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::Kernel;
use crate::testkit::{BZIMAGE_CODE, BZIMAGE_PAYLOAD, KERNEL, bzimage, field, put};

/// The same kernel, packed by the tools and with the options of the Linux build (fixtures/make).
const PACKED: [(&str, &[u8]); 6] = [
    ("gzip", include_bytes!("../../../fixtures/kernel.gzip")),
    ("bzip2", include_bytes!("../../../fixtures/kernel.bzip2")),
    ("lzma", include_bytes!("../../../fixtures/kernel.lzma")),
    ("xz", include_bytes!("../../../fixtures/kernel.xz")),
    ("lz4", include_bytes!("../../../fixtures/kernel.lz4")),
    ("zstd", include_bytes!("../../../fixtures/kernel.zstd")),
];

fn unpacked(image: &[u8], limit: u64) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::new();
    let size = unpack(&mut Cursor::new(image), &mut out, limit)?;
    assert_eq!(size, out.len() as u64);
    Ok(out)
}

fn packed(format: &str) -> &'static [u8] {
    PACKED.iter().find(|(name, _)| *name == format).unwrap().1
}

#[test]
fn every_format_yields_the_kernel() {
    for (format, payload) in PACKED {
        let out = unpacked(&bzimage(payload), UNPACK_LIMIT).unwrap();
        assert_eq!(out, KERNEL, "{format}");
        assert!(Kernel::parse(&mut Cursor::new(out)).is_ok(), "{format}");
    }
}

#[test]
fn the_limit_is_the_last_size_that_passes() {
    let size = KERNEL.len() as u64;
    for (format, payload) in PACKED {
        let image = bzimage(payload);
        assert_eq!(unpacked(&image, size).unwrap(), KERNEL, "{format}");
        let error = unpacked(&image, size - 1).unwrap_err();
        assert!(
            matches!(error, UnpackError::TooLarge { size: s, limit } if s == size && limit == size - 1),
            "{format}"
        );
    }
    let text = unpacked(&bzimage(packed("xz")), 1).unwrap_err().to_string();
    assert_eq!(text, "the bzImage unpacks to 1648 bytes by its trailer: the limit is 1");
}

/// A stream that goes on behind the size that it states is stopped there, whatever the limit.
#[test]
fn streams_that_understate_their_size_are_stopped() {
    for (format, payload) in PACKED {
        let mut payload = payload.to_vec();
        let trailer = payload.len() - 4;
        put(&mut payload, trailer, &100u32.to_le_bytes());
        let mut out = Vec::new();
        let error = unpack(&mut Cursor::new(bzimage(&payload)), &mut out, UNPACK_LIMIT).unwrap_err();
        let stopped = matches!(error, UnpackError::Size { stated: 100, .. });
        assert!(stopped, "{format}: {error:?}");
        assert!(out.len() <= 100, "{format}");
    }
}

#[test]
fn streams_that_overstate_their_size_are_refused() {
    for (format, payload) in PACKED {
        let mut payload = payload.to_vec();
        let trailer = payload.len() - 4;
        put(&mut payload, trailer, &5000u32.to_le_bytes());
        let error = unpacked(&bzimage(&payload), UNPACK_LIMIT).unwrap_err();
        // gzip's decoder compares the trailer itself.
        let refused = matches!(error, UnpackError::Size { stated: 5000, found: 1648, .. })
            || matches!(error, UnpackError::Damaged { format: "gzip", .. });
        assert!(refused, "{format}: {error:?}");
    }
}

/// A bomb: 16 MiB of zeros in some bytes. It is stopped before it has written more than it states.
#[test]
fn bombs_are_stopped() {
    let zeros = vec![0; 16 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    let mut payload = gzip.finish().unwrap();
    assert!(payload.len() < 32 << 10);
    let trailer = payload.len() - 4;
    put(&mut payload, trailer, &4096u32.to_le_bytes());
    let mut out = Vec::new();
    let error = unpack(&mut Cursor::new(bzimage(&payload)), &mut out, UNPACK_LIMIT).unwrap_err();
    assert!(matches!(error, UnpackError::Size { stated: 4096, .. }), "{error:?}");
    assert!(out.len() <= 4096);
}

/// Dictionaries and windows beyond what the kernel's build uses are refused, not allocated.
#[test]
fn memory_is_bounded() {
    // xz: the LZMA2 filter's property is in the block header, whose CRC32 follows; 40 is 4 GiB - 1.
    let mut xz = packed("xz").to_vec();
    let property = xz.windows(2).position(|pair| pair == [0x21, 0x01]).unwrap() + 2;
    xz[property] = 40;
    let header_start = 12;
    let crc_at = header_start + (usize::from(xz[header_start]) + 1) * 4 - 4;
    let crc = crc32(&xz[header_start..crc_at]);
    put(&mut xz, crc_at, &crc.to_le_bytes());
    // lzma: bytes 1 to 4 are the dictionary's size.
    let mut lzma = packed("lzma").to_vec();
    put(&mut lzma, 1, &[0, 0, 0, 0x20]);
    // zstd: byte 5 is the window descriptor; 21 << 3 is 2 GiB (RFC 8878, 3.1.1.1.2).
    let mut zstd = packed("zstd").to_vec();
    zstd[5] = 21 << 3;
    for (format, payload) in [("xz", xz), ("lzma", lzma), ("zstd", zstd)] {
        let error = unpacked(&bzimage(&payload), UNPACK_LIMIT).unwrap_err();
        let UnpackError::Damaged { source, .. } = &error else { panic!("{format}: {error:?}") };
        let text = source.to_string().to_lowercase();
        assert!(text.contains("mem") || text.contains("window"), "{format}: {text}");
    }
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Streams that were cut or altered are noticed: by the checksum where the format has one, by the size elsewhere.
#[test]
fn damaged_streams_are_refused() {
    for (format, payload) in PACKED {
        for cut in [payload.len() / 2, payload.len() - 12] {
            let mut short = payload[..cut].to_vec();
            short.extend((KERNEL.len() as u32).to_le_bytes());
            assert!(unpacked(&bzimage(&short), UNPACK_LIMIT).is_err(), "{format} cut to {cut}");
        }
    }
    for format in ["gzip", "bzip2", "xz", "zstd"] {
        let payload = packed(format);
        for at in (16..payload.len() - 4).step_by(7) {
            let mut payload = payload.to_vec();
            payload[at] ^= 0x10;
            match unpacked(&bzimage(&payload), UNPACK_LIMIT) {
                // Some bits are padding.
                Ok(out) => assert_eq!(out, KERNEL, "{format} at {at}"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

/// lz4's legacy frame: its blocks, and what may stand between them.
#[test]
fn lz4_frames_may_follow_one_another() {
    let one = packed("lz4");
    let (frame, _) = one.split_at(one.len() - 4);
    let mut two = [frame, frame].concat();
    two.extend((2 * KERNEL.len() as u32).to_le_bytes());
    assert_eq!(unpacked(&bzimage(&two), UNPACK_LIMIT).unwrap(), [KERNEL, KERNEL].concat());
}

#[test]
fn lz4_blocks_of_impossible_size_are_refused() {
    for size in [0, 9 << 20, u32::MAX] {
        let mut payload = packed("lz4").to_vec();
        put(&mut payload, 4, &size.to_le_bytes());
        let error = unpacked(&bzimage(&payload), UNPACK_LIMIT).unwrap_err();
        assert!(matches!(error, UnpackError::Damaged { format: "lz4", .. }), "{error:?}");
    }
}

#[test]
fn what_is_not_a_packed_kernel_is_refused_by_name() {
    let refusal = |image: &[u8]| unpacked(image, UNPACK_LIMIT).unwrap_err().to_string();
    assert_eq!(refusal(b""), "the kernel image is not a bzImage: there is nothing to unpack");
    assert_eq!(refusal(KERNEL), "the kernel image is not a bzImage: there is nothing to unpack");
    assert_eq!(
        refusal(&bzimage(b"PK\x03\x04\0\0\x08\0\0\0\0\0")),
        "the bzImage is compressed in an unknown way (its payload starts with [50, 4b, 03, 04, 00, 00])"
    );
    assert!(refusal(&bzimage(b"")).contains("its payload is at bytes 3584..3584"));
    let mut image = bzimage(packed("gzip"));
    put(&mut image, field::PAYLOAD_OFFSET, &u32::MAX.to_le_bytes());
    assert!(refusal(&image).contains("its payload is at bytes"));
    image.truncate(BZIMAGE_CODE + BZIMAGE_PAYLOAD + 50);
    assert!(refusal(&image).contains("truncated or damaged"));
}

#[test]
fn errors_of_the_output_are_the_outputs() {
    let mut full: &mut [u8] = &mut [0; 10];
    let error = unpack(&mut Cursor::new(bzimage(packed("xz"))), &mut full, UNPACK_LIMIT).unwrap_err();
    assert!(matches!(error, UnpackError::Write(_)), "{error:?}");
}

proptest! {
    /// boot.rst, payload_offset: "the payload may be compressed. The format of both the compressed and uncompressed data
    /// should be determined using the standard magic numbers." Whatever follows the magic, no more comes out than the
    /// trailer states, and success means exactly as much.
    #[test]
    fn no_stream_yields_more_than_it_states(
        format in 0..PACKED.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        stated in prop_oneof![Just(KERNEL.len() as u32), 0u32..4000],
    ) {
        let mut payload = PACKED[format].1.to_vec();
        payload.truncate(payload.len() - 4);
        for (at, value) in changes {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        payload.truncate(payload.len() - cut.index(payload.len()) / 4);
        payload.extend(stated.to_le_bytes());
        let mut out = Vec::new();
        let result = unpack(&mut Cursor::new(bzimage(&payload)), &mut out, 2000);
        prop_assert!(out.len() as u32 <= stated.min(2000));
        if let Ok(size) = result {
            prop_assert_eq!(size, u64::from(stated));
        }
    }
}
