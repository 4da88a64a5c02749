//! Arithmetic that takes a known number of steps. The bench's process for the host is built with this same file.

use core::hint::black_box;

/// A chain of shifts (xorshift, 32 bits), each of which needs the one before.
pub(crate) fn work(steps: u64) {
    let mut state = 1_u32;
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
    }
    black_box(state);
}
