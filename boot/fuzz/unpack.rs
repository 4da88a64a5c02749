//! Any file at all as a bzImage: it is unpacked within its limit, or refused.

use std::io::Cursor;

const LIMIT: u64 = 1 << 20;

/// Runs one input.
pub(crate) fn check(data: &[u8]) {
    let mut out = Vec::new();
    let result = boot::unpack(&mut Cursor::new(data), &mut out, LIMIT);
    assert!(out.len() as u64 <= LIMIT);
    if let Ok(size) = result {
        assert_eq!(size, out.len() as u64);
    }
}
