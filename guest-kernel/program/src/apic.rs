//! The local APIC's timer and the I/O APIC's pins, in xAPIC mode (Intel SDM volume 3, chapter 12;
//! 82093AA data sheet). Where either does not answer, the caller does without.

use crate::{memory, ring0};

const LOCAL_APIC: u64 = 0xfee0_0000;
const ID: u64 = 0x20;
const VERSION: u64 = 0x30;
const SPURIOUS: u64 = 0xf0;
const SPURIOUS_ENABLE: u32 = 1 << 8;
const TIMER: u64 = 0x320;
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_INITIAL_COUNT: u64 = 0x380;
const TIMER_CURRENT_COUNT: u64 = 0x390;
const TIMER_DIVIDE: u64 = 0x3e0;
const TIMER_DIVIDE_BY_1: u32 = 0b1011;
const LINT0: u64 = 0x350;
const MASKED: u32 = 1 << 16;

const IO_APIC: u64 = 0xfec0_0000;
const IO_SELECT: u64 = 0;
const IO_WINDOW: u64 = 0x10;
const IO_VERSION: u32 = 1;
const IO_REDIRECTION: u32 = 0x10;

/// The interrupt mask registers of the two 8259.
const PIC_MASKS: [u16; 2] = [0x21, 0xa1];
const PIC_ALL: u8 = 0xff;

/// The vectors, as entry.s has them.
const VECTOR_TIMER: u32 = 32;
const VECTOR_PIN: u32 = 33;
const VECTOR_SPURIOUS: u32 = 47;

/// A pin of the I/O APIC.
#[derive(Clone, Copy)]
pub(crate) struct Pin(pub(crate) u8);

impl Pin {
    /// COM1: ISA interrupt 4, which no VMM routes to another pin.
    pub(crate) const SERIAL: Pin = Pin(4);
    /// mote's power button.
    pub(crate) const POWER_BUTTON: Pin = Pin(9);
}

/// A local APIC that answers and is on.
#[derive(Clone, Copy)]
pub(crate) struct LocalApic(());

impl LocalApic {
    /// Turns it on. None where it is absent or in x2APIC mode. No interrupt comes after this but those that are asked for.
    pub(crate) fn enable() -> Option<LocalApic> {
        // VMMs connect the 8259s, as firmware would; their vectors, which nobody has set up, are the exceptions'.
        if !present(memory::read_register(LOCAL_APIC + VERSION)) {
            for port in PIC_MASKS {
                ring0::write(port, &[PIC_ALL]);
            }
            return None;
        }
        write(LINT0, MASKED);
        write(SPURIOUS, SPURIOUS_ENABLE | VECTOR_SPURIOUS);
        Some(LocalApic(()))
    }

    /// Starts a periodic interrupt.
    pub(crate) fn start_timer(self, period: u32) {
        write(TIMER_DIVIDE, TIMER_DIVIDE_BY_1);
        write(TIMER, TIMER_PERIODIC | VECTOR_TIMER);
        write(TIMER_INITIAL_COUNT, period);
    }

    /// Stops it. The last interrupt may still be under way.
    pub(crate) fn stop_timer(self) {
        write(TIMER_INITIAL_COUNT, 0);
    }

    /// Starts the timer so that it only counts down, once, from `count`.
    pub(crate) fn start_countdown(self, count: u32) {
        write(TIMER_DIVIDE, TIMER_DIVIDE_BY_1);
        write(TIMER, MASKED | VECTOR_TIMER);
        write(TIMER_INITIAL_COUNT, count);
    }

    /// How far the timer still has to count.
    pub(crate) fn countdown(self) -> u32 {
        memory::read_register(LOCAL_APIC + TIMER_CURRENT_COUNT)
    }

    /// Sends a pin's interrupts to this processor. False where there is no I/O APIC with that pin.
    pub(crate) fn route(self, pin: Pin) -> bool {
        let pin = u32::from(pin.0);
        let version = io_read(IO_VERSION);
        if !present(version) || version >> 16 & 0xff < pin {
            return false;
        }
        let destination = memory::read_register(LOCAL_APIC + ID) >> 24;
        // Fixed, physical, active high, edge: what an ISA interrupt is. The low word comes last: it unmasks the pin.
        io_write(IO_REDIRECTION + 2 * pin + 1, destination << 24);
        io_write(IO_REDIRECTION + 2 * pin, VECTOR_PIN);
        true
    }
}

/// An address where nothing answers reads as all ones, or as 0.
fn present(version: u32) -> bool {
    version != 0 && version != u32::MAX
}

fn write(register: u64, value: u32) {
    memory::write_register(LOCAL_APIC + register, value);
}

fn io_read(register: u32) -> u32 {
    memory::write_register(IO_APIC + IO_SELECT, register);
    memory::read_register(IO_APIC + IO_WINDOW)
}

fn io_write(register: u32, value: u32) {
    memory::write_register(IO_APIC + IO_SELECT, register);
    memory::write_register(IO_APIC + IO_WINDOW, value);
}
