use proptest::prelude::*;

use super::*;
use crate::testkit::{BZIMAGE_CODE, bzimage, field, put};

fn header(image: &[u8]) -> Result<SetupHeader, HeaderError> {
    SetupHeader::parse(&image[..image.len().min(1024)], image.len() as u64)
}

/// A bzImage with one field changed.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = bzimage(&[0; 100]);
    put(&mut image, at, bytes);
    image
}

fn refusal(image: &[u8]) -> String {
    let size = image.len() as u64;
    header(image).and_then(|header| header.own_segment(size)).unwrap_err().to_string()
}

#[test]
fn the_magic_needs_both_marks() {
    assert!(SetupHeader::magic_in(&bzimage(b"")));
    assert!(!SetupHeader::magic_in(&changed(field::BOOT_FLAG, &[0])));
    assert!(!SetupHeader::magic_in(&changed(field::MAGIC, b"hdrs")));
    assert!(!SetupHeader::magic_in(&bzimage(b"")[..0x205]));
}

#[test]
fn headers_that_cannot_be_used_are_refused_by_name() {
    assert!(
        refusal(&changed(field::VERSION, &0x0207u16.to_le_bytes()))
            .contains("boot protocol 2.07, 2.08 is needed")
    );
    assert!(
        refusal(&changed(field::VERSION, &0x020bu16.to_le_bytes())).contains("protocol 2.11, 2.12 is needed")
    );
    assert!(refusal(&changed(field::LOADFLAGS, &[0])).contains("a zImage, which loads below 1 MiB"));
    assert!(refusal(&changed(field::XLOADFLAGS, &2u16.to_le_bytes())).contains("no 64-bit entry"));
    assert!(
        refusal(&changed(field::SETUP_SECTS, &[200])).contains("its 200 setup sectors end at byte 102912")
    );
    assert!(
        refusal(&changed(field::SYSSIZE, &u32::MAX.to_le_bytes()))
            .contains("68719476720 bytes long by its header")
    );
    assert!(refusal(&changed(field::SYSSIZE, &32u32.to_le_bytes())).contains("its code is 512 bytes long"));
    assert!(refusal(&changed(field::PREF_ADDRESS, &u64::MAX.to_le_bytes())).contains("wrap around"));
    assert!(
        refusal(&bzimage(b"")[..0x250]).contains("its setup header ends at byte 620, the file at byte 592")
    );
}

/// "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
#[test]
fn no_setup_sectors_mean_four() {
    let image = changed(field::SETUP_SECTS, &[0]);
    assert_eq!(header(&image).unwrap().code_start, BZIMAGE_CODE as u64);
}

/// "The size of the header is 0x202 + the byte at 0x201": what lies behind is code.
#[test]
fn fields_behind_a_short_header_are_not_read() {
    let short = changed(field::JUMP, &[0xeb, (field::PREF_ADDRESS - field::MAGIC) as u8]);
    let header = header(&short).unwrap();
    let segment = header.own_segment(short.len() as u64).unwrap();
    assert_eq!(segment.guest_address, layout::KERNEL_START);
    assert_eq!(segment.memory_size, segment.file_size);
}

#[test]
fn the_payload_must_be_in_the_file() {
    let image = changed(field::PAYLOAD_LENGTH, &u32::MAX.to_le_bytes());
    let error = header(&image).unwrap().payload(image.len() as u64).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bzImage is truncated or damaged: its payload is at bytes 3584..4294970879 of a file of 4096 bytes"
    );
    let image = bzimage(&[0; 100]);
    assert_eq!(header(&image).unwrap().payload(image.len() as u64), Ok(3584..3684));
}

#[test]
fn the_initrd_may_go_as_high_as_the_kernel_says() {
    assert_eq!(header(&bzimage(b"")).unwrap().initrd_end(), u64::MAX);
    let image = changed(field::XLOADFLAGS, &1u16.to_le_bytes());
    assert_eq!(header(&image).unwrap().initrd_end(), 0x8000_0000);
}

proptest! {
    /// boot.rst: payload_offset is "the offset from the beginning of the protected-mode code to the payload", which
    /// starts behind (setup_sects + 1) * 512 bytes; syssize is "the size of the protected-mode code in units of
    /// 16-byte paragraphs". Whatever they say, what is read is in the file, and what it takes in memory holds it.
    #[test]
    fn header_arithmetic_stays_in_the_file(
        setup_sects in any::<u8>(),
        syssize in prop_oneof![0u32..1000, any::<u32>()],
        payload_offset in prop_oneof![0u32..8000, any::<u32>()],
        payload_length in prop_oneof![0u32..8000, any::<u32>()],
        pref_address in any::<u64>(),
        init_size in any::<u32>(),
        size in 0x26c_usize..8000,
    ) {
        let mut image = bzimage(&[0; 5000]);
        image.resize(size, 0);
        put(&mut image, field::SETUP_SECTS, &[setup_sects]);
        put(&mut image, field::SYSSIZE, &syssize.to_le_bytes());
        put(&mut image, field::PAYLOAD_OFFSET, &payload_offset.to_le_bytes());
        put(&mut image, field::PAYLOAD_LENGTH, &payload_length.to_le_bytes());
        put(&mut image, field::PREF_ADDRESS, &pref_address.to_le_bytes());
        put(&mut image, field::INIT_SIZE, &init_size.to_le_bytes());
        let size = size as u64;
        let Ok(header) = header(&image) else {
            let sectors = if setup_sects == 0 { 4 } else { u64::from(setup_sects) };
            prop_assert!((sectors + 1) * 512 >= size);
            return Ok(());
        };
        if let Ok(payload) = header.payload(size) {
            prop_assert_eq!(payload.start, header.code_start + u64::from(payload_offset));
            prop_assert!(payload.start <= payload.end && payload.end <= size);
        }
        if let Ok(segment) = header.own_segment(size) {
            prop_assert!(segment.file_offset + segment.file_size <= size);
            prop_assert!(segment.file_size <= segment.memory_size);
            prop_assert!((segment.guest_address..segment.end()).contains(&header.own_entry(&segment)));
        }
    }
}
