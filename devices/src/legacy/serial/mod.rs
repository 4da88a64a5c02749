//! The serial port: vm-superio's UART, with back-pressure.
//!
//! The host's side of a console can be slow, or stop. The UART then does what a 16550A does on a slow line:
//! the transmitter does not become empty. While the [`Output`] has no room, the line status shows a busy transmitter, and the
//! transmitter's interrupt is masked off in the UART, whatever the guest has enabled; [`Serial::drained`]
//! undoes that. A guest that transmits all the same loses its bytes, and they are counted.

use std::io;

use serde::{Deserialize, Serialize};
use vm_superio::serial::{Error as UartError, NoEvents};

use crate::{Action, ByteDevice, IoError, RestoreError, Trigger};

pub mod spec;
#[cfg(test)]
mod tests;

const NAME: &str = "serial port";
const VERSION: u16 = 1;

/// The host's side of the serial port.
pub trait Output: Send {
    /// Takes a byte from the guest. Called only when there is [`room`](Output::room).
    fn write(&mut self, byte: u8);

    /// Whether another byte can be taken. Only [`write`](Output::write) may use the room up; whoever makes room again calls
    /// [`Serial::drained`].
    fn room(&self) -> bool;

    /// The guest has read all that was received: [`Serial::receive`] takes more.
    fn input_wanted(&mut self) {}
}

/// A 16550A.
///
/// Its interrupts are edges: each is raised once.
pub struct Serial<T: Trigger, O: Output> {
    // Wiring and guest-visible state, both in the UART: its interrupt enable register is the guest's but for the
    // transmitter's bit, which is cleared while `held`.
    uart: vm_superio::Serial<Interrupt<T>, NoEvents, Console<O>>,

    // Guest-visible state.
    /// The interrupt enable register as the guest wrote it.
    enabled: u8,
    /// The transmitter's interrupt is owed to the guest until there is room.
    held: bool,
}

/// What a snapshot holds of a [`Serial`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SerialState {
    version: u16,
    divisor: u16,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    held: bool,
    received: Vec<u8>,
}

impl<T: Trigger, O: Output> Serial<T, O> {
    /// A port after its reset.
    pub fn new(interrupt: T, output: O) -> Self {
        let uart = vm_superio::Serial::new(Interrupt(interrupt), Console { output, lost: 0 });
        Self { uart, enabled: 0, held: false }
    }

    /// Takes as much of `input` as fits into the receive FIFO (64 bytes) and returns how much that was.
    ///
    /// # Errors
    /// When the host does not deliver the interrupt; what fits is in the FIFO then.
    pub fn receive(&mut self, input: &[u8]) -> io::Result<usize> {
        let length = input.len().min(self.input_room());
        self.uart.enqueue_raw_bytes(&input[..length]).map_err(host_error)
    }

    /// How many bytes [`receive`](Serial::receive) would take now. In loop-back mode the line is cut: none.
    pub fn input_room(&mut self) -> usize {
        let looped = self.uart.read(spec::MODEM_CONTROL) & spec::MODEM_CONTROL_LOOP != 0;
        if looped { 0 } else { self.uart.fifo_capacity() }
    }

    /// The output has room again: the guest gets the interrupt that was withheld, if any.
    ///
    /// # Errors
    /// When the host does not deliver it.
    pub fn drained(&mut self) -> io::Result<()> {
        if self.held && self.has_room() { self.settle() } else { Ok(()) }
    }

    /// The host's side.
    pub fn output(&mut self) -> &mut O {
        &mut self.uart.writer_mut().output
    }

    /// How many bytes the guest transmitted while there was no room for them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.uart.writer().lost
    }

    /// The port's state.
    #[must_use]
    pub fn save(&self) -> SerialState {
        let uart = self.uart.state();
        SerialState {
            version: VERSION,
            divisor: u16::from_le_bytes([uart.baud_divisor_low, uart.baud_divisor_high]),
            interrupt_enable: self.enabled,
            interrupt_identification: uart.interrupt_identification,
            line_control: uart.line_control,
            modem_control: uart.modem_control,
            scratch: uart.scratch,
            held: self.held,
            received: uart.in_buffer,
        }
    }

    /// A port in a saved state. It raises the interrupts again that were pending.
    ///
    /// # Errors
    /// When the state's version is unknown, it holds what no port can, or the host does not deliver an interrupt.
    pub fn restore(state: &SerialState, interrupt: T, output: O) -> Result<Self, RestoreError> {
        state.check()?;
        let [baud_divisor_low, baud_divisor_high] = state.divisor.to_le_bytes();
        let masked = if state.held { spec::ENABLE_TRANSMITTER_EMPTY } else { 0 };
        let ready = if state.received.is_empty() { 0 } else { spec::LINE_STATUS_DATA_READY };
        let uart = vm_superio::SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable: state.interrupt_enable & !masked,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: spec::LINE_STATUS_FREE | ready,
            modem_control: state.modem_control,
            scratch: state.scratch,
            in_buffer: state.received.clone(),
            ..Default::default()
        };
        let undelivered = |source| RestoreError::Interrupt { device: NAME, source };
        let console = Console { output, lost: 0 };
        let uart = vm_superio::Serial::from_state(&uart, Interrupt(interrupt), NoEvents, console)
            .map_err(|error| undelivered(host_error(error)))?;
        let mut serial = Self { uart, enabled: state.interrupt_enable, held: state.held };
        serial.drained().map_err(undelivered)?;
        Ok(serial)
    }

    /// Reads which interrupt is pending; that acknowledges it.
    fn identify(&mut self) -> io::Result<u8> {
        let pending = self.uart.read(spec::INTERRUPT_IDENTIFICATION);
        if pending & spec::PENDING_TRANSMITTER_EMPTY == 0 {
            return Ok(pending);
        }
        let others = pending & !spec::PENDING_TRANSMITTER_EMPTY;
        if others & spec::PENDING_RECEIVED != 0 {
            // vm-superio shows both causes at once, which is the code of a third. The data sheet (section 8.6) has
            // received data go first and leaves the other pending.
            self.settle()?;
            Ok(others)
        } else if self.has_room() {
            Ok(pending)
        } else {
            Ok(others | spec::PENDING_NONE)
        }
    }

    fn transmit(&mut self, byte: u8) -> io::Result<()> {
        if self.enabled & spec::ENABLE_TRANSMITTER_EMPTY == 0 {
            return self.uart.write(spec::DATA, byte).map_err(host_error);
        }
        // The UART raises the interrupt with the byte, but whether there is room for a next one shows only after it.
        self.enable(self.enabled & !spec::ENABLE_TRANSMITTER_EMPTY)?;
        self.uart.write(spec::DATA, byte).map_err(host_error)?;
        self.settle()
    }

    /// Reads a received byte and asks the host for more after the last one.
    fn take_received(&mut self) -> u8 {
        let waiting = self.has_received();
        let byte = self.uart.read(spec::DATA);
        if waiting && !self.has_received() {
            self.output().input_wanted();
        }
        byte
    }

    /// Gives the UART the interrupts that the guest enabled, except the transmitter's while there is no room.
    fn settle(&mut self) -> io::Result<()> {
        self.held = !self.has_room() && self.enabled & spec::ENABLE_TRANSMITTER_EMPTY != 0;
        let masked = if self.held { spec::ENABLE_TRANSMITTER_EMPTY } else { 0 };
        self.enable(self.enabled & !masked)
    }

    /// Writes the UART's interrupt enable register, which raises what is pending and enabled.
    fn enable(&mut self, interrupts: u8) -> io::Result<()> {
        // An open divisor latch lies over the register.
        let line_control = self.uart.read(spec::LINE_CONTROL);
        let closed = line_control & !spec::LINE_CONTROL_DIVISOR_LATCH;
        self.uart.write(spec::LINE_CONTROL, closed).map_err(host_error)?;
        let enabled = self.uart.write(spec::INTERRUPT_ENABLE, interrupts);
        self.uart.write(spec::LINE_CONTROL, line_control).map_err(host_error)?;
        enabled.map_err(host_error)
    }

    fn has_room(&self) -> bool {
        self.uart.writer().output.room()
    }

    fn has_received(&mut self) -> bool {
        self.uart.read(spec::LINE_STATUS) & spec::LINE_STATUS_DATA_READY != 0
    }

    fn is_latch_open(&mut self) -> bool {
        self.uart.read(spec::LINE_CONTROL) & spec::LINE_CONTROL_DIVISOR_LATCH != 0
    }
}

impl<T: Trigger, O: Output> ByteDevice for Serial<T, O> {
    fn read_byte(&mut self, offset: u64) -> Result<u8, IoError> {
        match register(offset)? {
            register @ (spec::DATA | spec::INTERRUPT_ENABLE) if self.is_latch_open() => {
                Ok(self.uart.read(register))
            }
            spec::DATA => Ok(self.take_received()),
            spec::INTERRUPT_ENABLE => Ok(self.enabled),
            spec::INTERRUPT_IDENTIFICATION => self.identify().map_err(IoError::Interrupt),
            spec::LINE_STATUS if !self.has_room() => {
                Ok(self.uart.read(spec::LINE_STATUS) & !spec::LINE_STATUS_FREE)
            }
            register => Ok(self.uart.read(register)),
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) -> Result<Action, IoError> {
        let register = register(offset)?;
        let done = match register {
            spec::DATA if !self.is_latch_open() => self.transmit(value),
            spec::INTERRUPT_ENABLE if !self.is_latch_open() => {
                self.enabled = value & spec::ENABLE_MASK;
                self.settle()
            }
            spec::MODEM_CONTROL => {
                let cut = self.input_room() == 0;
                let done = self.uart.write(register, value).map_err(host_error);
                if cut && self.input_room() > 0 {
                    self.output().input_wanted();
                }
                done
            }
            _ => self.uart.write(register, value).map_err(host_error),
        };
        done.map(|()| Action::Continue).map_err(IoError::Interrupt)
    }
}

impl SerialState {
    /// Refuses what no port can hold.
    fn check(&self) -> Result<(), RestoreError> {
        const LONGEST: usize = 64;
        let check = |field, value: u64, sound| RestoreError::check(NAME, field, value, sound);

        RestoreError::check_version(NAME, self.version, VERSION)?;
        let enabled = self.interrupt_enable;
        check("interrupt_enable", enabled.into(), enabled & !spec::ENABLE_MASK == 0)?;
        let both = spec::PENDING_TRANSMITTER_EMPTY | spec::PENDING_RECEIVED;
        let pending = self.interrupt_identification;
        let sound = pending == spec::PENDING_NONE || (pending != 0 && pending & !both == 0);
        check("interrupt_identification", pending.into(), sound)?;
        let owed = enabled & spec::ENABLE_TRANSMITTER_EMPTY != 0;
        check("held", self.held.into(), owed || !self.held)?;
        let length = self.received.len();
        check("the length of received", length as u64, length <= LONGEST)
    }
}

/// [`Trigger`] as vm-superio knows it.
struct Interrupt<T: Trigger>(T);

impl<T: Trigger> vm_superio::Trigger for Interrupt<T> {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.trigger()
    }
}

/// [`Output`] as vm-superio knows it: it takes bytes one at a time, and never fails.
struct Console<O: Output> {
    output: O,
    lost: u64,
}

impl<O: Output> io::Write for Console<O> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if self.output.room() {
                self.output.write(byte);
            } else {
                self.lost += 1;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn register(offset: u64) -> Result<u8, IoError> {
    u8::try_from(offset).ok().filter(|_| offset < spec::LENGTH).ok_or(IoError::Offset(offset))
}

/// Only a trigger fails: the console takes everything, and nothing is sent to a FIFO that is full.
fn host_error(error: UartError<io::Error>) -> io::Error {
    match error {
        UartError::Trigger(error) | UartError::IOError(error) => error,
        UartError::FullFifo => io::ErrorKind::StorageFull.into(),
    }
}
