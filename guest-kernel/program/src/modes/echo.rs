//! `mode=echo`: sends back each line it receives, after `n=N` steps of arithmetic. The processor halts between bytes.

use crate::apic::{LocalApic, Pin};
use crate::machine::Machine;
use crate::options::Options;
use crate::serial::{Line, Receiver};
use crate::work::work;
use crate::{cpu, ring0};

/// The longest line that is sent back.
const LIMIT: usize = 240;

/// Runs until the line `exit`.
pub(super) fn run(machine: Machine, options: &Options<'_>) {
    let interrupts = LocalApic::enable().is_some_and(|apic| apic.route(Pin::SERIAL));
    let receiver = Receiver::open(interrupts);
    machine.ready();
    let mut input = Input { line: [0; LIMIT], length: 0, after_return: false, steps: options.n.unwrap_or(0) };
    loop {
        let seen = ring0::interrupt_count();
        while let Some(byte) = receiver.read() {
            if input.take(byte) {
                return;
            }
        }
        if interrupts {
            ring0::wait(seen);
        } else {
            cpu::relax();
        }
    }
}

struct Input {
    line: [u8; LIMIT],
    /// How long the line is; past LIMIT, how long it would have been.
    length: usize,
    /// The last byte was a carriage return, so that a line feed ends no second line.
    after_return: bool,
    /// How much to compute before each answer.
    steps: u64,
}

impl Input {
    /// Takes one byte; at a line's end, answers. True after the line `exit`.
    fn take(&mut self, byte: u8) -> bool {
        let ends = match byte {
            b'\r' => true,
            b'\n' if self.after_return => {
                self.after_return = false;
                return false;
            }
            b'\n' => true,
            _ => false,
        };
        self.after_return = byte == b'\r';
        if ends {
            return self.answer();
        }
        if let Some(place) = self.line.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
        false
    }

    fn answer(&mut self) -> bool {
        let line = self.line.get(..self.length);
        self.length = 0;
        match line {
            Some(b"exit") => return true,
            Some(line) => {
                work(self.steps);
                Line::new().text(b"ECHO ").text(line).send();
            }
            None => Line::new().text(b"error=line-too-long limit=").decimal(LIMIT as u64).send(),
        }
        false
    }
}
