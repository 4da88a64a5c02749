//! Jobs that a VMM must survive.

use crate::machine::Machine;
use crate::options::Options;
use crate::{ring0, serial};

/// QEMU's pvpanic device; bit 0 says that the guest has panicked.
const PVPANIC: u16 = 0x505;
const PVPANIC_PANICKED: u8 = 1;

const KIB: usize = 1024;
const DEFAULT_KIB: u64 = 1024;

/// Reports a panic, and goes on should nobody care.
pub(super) fn panic() {
    ring0::write(PVPANIC, &[PVPANIC_PANICKED]);
}

/// Writes `mb` MiB or `kb` KiB of text to the serial port, by default without a look at whether it keeps up.
pub(super) fn flood(machine: Machine, options: &Options<'_>) {
    machine.ready();
    let mut block = [0; KIB];
    for (index, byte) in block.iter_mut().enumerate() {
        // Lines of 63 letters, a to z.
        *byte = if index % 64 == 63 { b'\n' } else { b'a' + (index % 26) as u8 };
    }
    let blocks = options.mb.map(|mb| mb.saturating_mul(1024)).or(options.kb).unwrap_or(DEFAULT_KIB);
    for _ in 0..blocks {
        if options.poll() {
            ring0::write_polled(&block);
        } else {
            ring0::write(serial::COM1, &block);
        }
    }
}
