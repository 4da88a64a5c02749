use super::*;
use crate::testkit::{BrokenTrigger, CountingTrigger};

const DATA: u64 = spec::DATA as u64;
const ENABLE: u64 = spec::INTERRUPT_ENABLE as u64;
const IDENTIFY: u64 = spec::INTERRUPT_IDENTIFICATION as u64;
const LINE_CONTROL: u64 = spec::LINE_CONTROL as u64;
const MODEM_CONTROL: u64 = spec::MODEM_CONTROL as u64;
const LINE_STATUS: u64 = spec::LINE_STATUS as u64;

const ENABLE_RECEIVED: u8 = 1 << 0;
/// The low half of the identification register, whose high half says that there are FIFOs.
const CAUSE: u8 = 0x0f;

/// A console for a few bytes.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    limit: usize,
    wanted: usize,
}

impl Output for Buffer {
    fn write(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn room(&self) -> bool {
        self.bytes.len() < self.limit
    }

    fn input_wanted(&mut self) {
        self.wanted += 1;
    }
}

struct Port {
    serial: Serial<CountingTrigger, Buffer>,
    interrupt: CountingTrigger,
}

impl Port {
    /// A port whose console takes `limit` bytes.
    fn new(limit: usize) -> Self {
        let interrupt = CountingTrigger::default();
        let serial = Serial::new(interrupt.clone(), Buffer { limit, ..Default::default() });
        Self { serial, interrupt }
    }

    fn read(&mut self, register: u64) -> u8 {
        self.serial.read_byte(register).unwrap()
    }

    fn write(&mut self, register: u64, value: u8) {
        assert_eq!(self.serial.write_byte(register, value).unwrap(), Action::Continue);
    }

    fn is_free(&mut self) -> bool {
        let status = self.read(LINE_STATUS) & spec::LINE_STATUS_FREE;
        assert!(status == 0 || status == spec::LINE_STATUS_FREE, "{status:#x}");
        status != 0
    }

    fn cause(&mut self) -> u8 {
        self.read(IDENTIFY) & CAUSE
    }

    fn empty_console(&mut self) {
        self.serial.output().bytes.clear();
        self.serial.drained().unwrap();
    }

    /// Saves the port and restores it, with a console for `limit` bytes.
    fn restored(&self, limit: usize) -> Self {
        let interrupt = CountingTrigger::default();
        let console = Buffer { limit, ..Default::default() };
        let serial = Serial::restore(&self.serial.save(), interrupt.clone(), console).unwrap();
        Self { serial, interrupt }
    }
}

#[test]
fn bytes_go_out_in_order() {
    let mut port = Port::new(10);
    for &byte in b"READY\n" {
        assert!(port.is_free());
        port.write(DATA, byte);
    }
    assert_eq!(port.serial.output().bytes, b"READY\n");
    assert_eq!((port.interrupt.take(), port.serial.lost()), (0, 0));
}

#[test]
fn input_is_bounded_by_the_fifo() {
    let mut port = Port::new(0);
    assert_eq!(port.serial.input_room(), 64);
    assert_eq!(port.serial.receive(&[7; 100]).unwrap(), 64);
    assert_eq!((port.serial.input_room(), port.serial.receive(b"x").unwrap()), (0, 0));
    for _ in 0..64 {
        assert_eq!(port.serial.output().wanted, 0);
        assert_eq!(port.read(LINE_STATUS) & spec::LINE_STATUS_DATA_READY, spec::LINE_STATUS_DATA_READY);
        assert_eq!(port.read(DATA), 7);
    }
    assert_eq!(port.read(LINE_STATUS) & spec::LINE_STATUS_DATA_READY, 0);
    assert_eq!((port.serial.output().wanted, port.serial.input_room()), (1, 64));
    assert_eq!(port.read(DATA), 0, "an empty FIFO has nothing");
    assert_eq!(port.serial.output().wanted, 1, "and wants no more than it did");
}

#[test]
fn received_data_interrupts() {
    let mut port = Port::new(0);
    port.write(ENABLE, ENABLE_RECEIVED);
    port.serial.receive(b"a").unwrap();
    assert_eq!(port.interrupt.take(), 1);
    assert_eq!(port.cause(), spec::PENDING_RECEIVED);
    assert_eq!(port.read(DATA), b'a');
    assert_eq!(port.cause(), spec::PENDING_NONE);
}

#[test]
fn an_empty_transmitter_interrupts() {
    let mut port = Port::new(2);
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY);
    assert_eq!((port.interrupt.take(), port.cause()), (1, spec::PENDING_TRANSMITTER_EMPTY));
    port.write(DATA, b'a');
    assert_eq!((port.interrupt.take(), port.cause()), (1, spec::PENDING_TRANSMITTER_EMPTY));
    assert_eq!(port.cause(), spec::PENDING_NONE, "reading acknowledges");
}

#[test]
fn a_full_console_holds_the_transmitter_and_its_interrupt() {
    let mut port = Port::new(2);
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY);
    port.write(DATA, b'a');
    assert!(port.is_free());
    assert_eq!((port.interrupt.take(), port.cause()), (1, spec::PENDING_TRANSMITTER_EMPTY));

    port.write(DATA, b'b');
    assert!(!port.is_free());
    assert_eq!((port.interrupt.take(), port.cause()), (0, spec::PENDING_NONE));
    assert_eq!(port.read(ENABLE), spec::ENABLE_TRANSMITTER_EMPTY, "the guest's bits are its own");

    port.serial.drained().unwrap();
    assert_eq!((port.interrupt.take(), port.cause()), (0, spec::PENDING_NONE), "there is no room yet");

    port.empty_console();
    assert!(port.is_free());
    assert_eq!((port.interrupt.take(), port.cause()), (1, spec::PENDING_TRANSMITTER_EMPTY));
    port.serial.drained().unwrap();
    assert_eq!(port.interrupt.take(), 0, "the interrupt is owed once");
}

#[test]
fn an_old_interrupt_is_withdrawn_with_the_room() {
    let mut port = Port::new(1);
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY);
    port.write(DATA, b'a');
    assert_eq!(port.cause(), spec::PENDING_NONE, "the guest had not seen the first one");
    let _ = port.interrupt.take();
    port.empty_console();
    assert_eq!((port.interrupt.take(), port.cause()), (1, spec::PENDING_TRANSMITTER_EMPTY));
}

#[test]
fn enabling_the_interrupt_while_the_console_is_full_waits_for_room() {
    let mut port = Port::new(0);
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY);
    assert_eq!((port.interrupt.take(), port.cause()), (0, spec::PENDING_NONE));
    port.serial.output().limit = 1;
    port.serial.drained().unwrap();
    assert_eq!((port.interrupt.take(), port.cause()), (1, spec::PENDING_TRANSMITTER_EMPTY));
}

#[test]
fn an_interrupt_disabled_meanwhile_is_owed_no_more() {
    let mut port = Port::new(0);
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY);
    port.write(ENABLE, 0);
    port.serial.output().limit = 1;
    port.serial.drained().unwrap();
    assert_eq!((port.interrupt.take(), port.cause()), (0, spec::PENDING_NONE));
}

#[test]
fn input_interrupts_while_output_is_held() {
    let mut port = Port::new(0);
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY | ENABLE_RECEIVED);
    port.serial.receive(b"\x03").unwrap();
    assert_eq!((port.interrupt.take(), port.cause()), (1, spec::PENDING_RECEIVED));
    port.serial.drained().unwrap();
    assert_eq!((port.interrupt.take(), port.cause()), (0, spec::PENDING_NONE), "acknowledged, still no room");
    assert_eq!(port.read(DATA), 3);
}

#[test]
fn bytes_sent_without_room_are_lost_and_counted() {
    let mut port = Port::new(1);
    for _ in 0..1000 {
        port.write(DATA, b'x');
    }
    assert_eq!((port.serial.output().bytes.len(), port.serial.lost()), (1, 999));
}

#[test]
fn the_open_divisor_latch_is_no_data_and_no_enable() {
    let mut port = Port::new(0);
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY);
    port.write(LINE_CONTROL, spec::LINE_CONTROL_DIVISOR_LATCH | 3);
    port.write(DATA, 0x34);
    port.write(ENABLE, 0x12);
    port.serial.output().limit = 1;
    port.serial.drained().unwrap();
    assert_eq!((port.interrupt.take(), port.cause()), (1, spec::PENDING_TRANSMITTER_EMPTY));
    assert_eq!((port.read(DATA), port.read(ENABLE)), (0x34, 0x12));
    assert_eq!(port.read(LINE_CONTROL), spec::LINE_CONTROL_DIVISOR_LATCH | 3);
    port.write(LINE_CONTROL, 3);
    assert_eq!((port.read(DATA), port.read(ENABLE)), (0, spec::ENABLE_TRANSMITTER_EMPTY));
    assert_eq!((port.serial.lost(), port.serial.output().bytes.len()), (0, 0));
}

/// Data sheet, section 8.6: received data has priority over the empty transmitter, which stays pending.
#[test]
fn two_causes_are_shown_one_after_the_other() {
    let mut port = Port::new(10);
    port.serial.receive(b"a").unwrap();
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY | ENABLE_RECEIVED);
    assert_eq!(port.cause(), spec::PENDING_RECEIVED);
    assert_eq!(port.cause(), spec::PENDING_RECEIVED, "as long as the data waits");
    assert_eq!(port.read(DATA), b'a');
    assert_eq!(port.cause(), spec::PENDING_TRANSMITTER_EMPTY);
    assert_eq!(port.cause(), spec::PENDING_NONE);
}

#[test]
fn loop_back_cuts_the_line() {
    let mut port = Port::new(10);
    port.write(MODEM_CONTROL, spec::MODEM_CONTROL_LOOP);
    assert_eq!((port.serial.input_room(), port.serial.receive(b"x").unwrap()), (0, 0));
    port.write(DATA, b'y');
    assert_eq!(port.read(DATA), b'y');
    assert!(port.serial.output().bytes.is_empty());
    let wanted = port.serial.output().wanted;
    port.write(MODEM_CONTROL, 0);
    assert_eq!((port.serial.input_room(), port.serial.output().wanted), (64, wanted + 1));
}

#[test]
fn a_held_interrupt_survives_a_snapshot() {
    let mut port = Port::new(1);
    port.write(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY | ENABLE_RECEIVED);
    port.write(DATA, b'a');
    port.serial.receive(b"input").unwrap();

    let mut full = port.restored(0);
    assert_eq!(full.serial.save(), port.serial.save());
    assert!(!full.is_free());

    let mut free = port.restored(1);
    assert!(free.interrupt.take() > 0);
    assert_eq!(free.cause(), spec::PENDING_RECEIVED);
    let received: Vec<u8> = (0..5).map(|_| free.read(DATA)).collect();
    assert_eq!(received, b"input");
    assert_eq!(free.cause(), spec::PENDING_TRANSMITTER_EMPTY);
}

#[test]
fn restoring_refuses_what_no_port_holds() {
    let sound = Port::new(0).serial.save();
    for (damaged, says) in [
        (SerialState { version: 0, ..sound.clone() }, "has version 0, this mote reads version 1"),
        (SerialState { interrupt_enable: 0x10, ..sound.clone() }, "interrupt_enable cannot be 0x10"),
        (
            SerialState { interrupt_identification: 0, ..sound.clone() },
            "interrupt_identification cannot be 0x0",
        ),
        (
            SerialState { interrupt_identification: 3, ..sound.clone() },
            "interrupt_identification cannot be 0x3",
        ),
        (SerialState { held: true, ..sound.clone() }, "held cannot be 0x1"),
        (SerialState { received: vec![0; 65], ..sound }, "the length of received cannot be 0x41"),
    ] {
        let restored = Serial::restore(&damaged, CountingTrigger::default(), Buffer::default());
        let error = restored.err().expect("a damaged state was restored").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn an_interrupt_that_the_host_loses_is_an_error() {
    let mut serial = Serial::new(BrokenTrigger, Buffer { limit: 1, ..Default::default() });
    let enabled = serial.write_byte(ENABLE, spec::ENABLE_TRANSMITTER_EMPTY | ENABLE_RECEIVED);
    assert!(matches!(enabled, Err(IoError::Interrupt(_))));
    serial.receive(b"a").unwrap_err();
    let state = serial.save();
    let restored = Serial::restore(&state, BrokenTrigger, Buffer::default());
    assert!(matches!(restored, Err(RestoreError::Interrupt { .. })));
}

#[test]
fn there_are_eight_registers() {
    let mut port = Port::new(0);
    for offset in [8, 0x100, u64::MAX] {
        assert!(matches!(port.serial.read_byte(offset), Err(IoError::Offset(at)) if at == offset));
        assert!(matches!(port.serial.write_byte(offset, 0), Err(IoError::Offset(at)) if at == offset));
    }
}
