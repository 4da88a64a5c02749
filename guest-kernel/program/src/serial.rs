//! Output on COM1. Each byte waits for the transmitter, so that nothing is lost where a VMM's output stalls; READY does not:
//! it comes first, when the transmitter is empty, and each look at the line status would cost as much as a byte. (A FIFO
//! would take 16 bytes a look; not every VMM has one.)
//!
//! The port needs no set-up: every VMM's serial port transmits at once, whatever its baud rate.

use crate::ring0;

/// The first serial port's data register.
pub(crate) const COM1: u16 = 0x3f8;
/// Its interrupt enable, modem control and line status registers (16550 data sheet).
const COM1_IER: u16 = COM1 + 1;
const COM1_MCR: u16 = COM1 + 4;
const COM1_LSR: u16 = COM1 + 5;
const IER_RECEIVED: u8 = 1;
/// DTR, RTS, and OUT2: the last connects the interrupt line on a PC.
const MCR_DTR_RTS_OUT2: u8 = 0b1011;
const LSR_DATA_READY: u8 = 1;

/// Input from COM1.
pub(crate) struct Receiver(());

impl Receiver {
    /// Opens it; with `interrupts`, each arrival raises one.
    pub(crate) fn open(interrupts: bool) -> Receiver {
        if interrupts {
            ring0::write(COM1_MCR, &[MCR_DTR_RTS_OUT2]);
            ring0::write(COM1_IER, &[IER_RECEIVED]);
        }
        Receiver(())
    }

    /// The next byte, if one has arrived.
    pub(crate) fn read(&self) -> Option<u8> {
        // All ones: nothing answers at this port.
        let status = ring0::read(COM1_LSR);
        (status & LSR_DATA_READY != 0 && status != u8::MAX).then(|| ring0::read(COM1))
    }
}

/// A line of output in the making. What does not fit is cut off; the end of the line always fits.
pub(crate) struct Line {
    buffer: [u8; Line::LIMIT + 1],
    length: usize,
}

impl Line {
    const LIMIT: usize = 255;

    pub(crate) fn new() -> Line {
        Line { buffer: [0; Line::LIMIT + 1], length: 0 }
    }

    /// Adds `text` as it is.
    pub(crate) fn text(&mut self, text: &[u8]) -> &mut Line {
        for &byte in text {
            self.push(byte);
        }
        self
    }

    /// Adds a decimal number.
    pub(crate) fn decimal(&mut self, number: u64) -> &mut Line {
        self.number(number, 10)
    }

    /// Adds a hexadecimal number after 0x.
    pub(crate) fn hex(&mut self, number: u64) -> &mut Line {
        self.text(b"0x").number(number, 16)
    }

    /// Ends the line and sends it.
    pub(crate) fn send(&mut self) {
        if let Some(end) = self.buffer.get_mut(self.length) {
            *end = b'\n';
        }
        ring0::write_polled(self.buffer.get(..=self.length).unwrap_or_default());
    }

    fn number(&mut self, number: u64, radix: u64) -> &mut Line {
        let mut digits = [0; 20];
        let mut rest = number;
        let mut count = 0;
        for digit in &mut digits {
            *digit = b"0123456789abcdef".get((rest % radix) as usize).copied().unwrap_or_default();
            rest /= radix;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        for &digit in digits.iter().take(count).rev() {
            self.push(digit);
        }
        self
    }

    #[inline(never)]
    fn push(&mut self, byte: u8) {
        if self.length < Line::LIMIT
            && let Some(place) = self.buffer.get_mut(self.length)
        {
            *place = byte;
            self.length += 1;
        }
    }
}
