//! What the small devices do, and what all of them have in common.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::testkit::CountingTrigger;
use crate::{Action, Bus, ByteDevice, Device, IoError, RestoreError};

#[test]
fn the_keyboard_controller_resets_and_lets_nobody_wait() {
    let mut i8042 = I8042::new();
    assert_eq!(i8042.write_byte(i8042::spec::COMMAND, 0xfe).unwrap(), Action::Reset);
    assert_eq!(i8042.write_byte(i8042::spec::COMMAND, 0xff).unwrap(), Action::Continue);
    assert_eq!(i8042.write_byte(i8042::spec::DATA, 0xfe).unwrap(), Action::Continue);
    let buffers_full = 0b11;
    assert_eq!(i8042.read_byte(i8042::spec::STATUS).unwrap() & buffers_full, 0);
    let timer_2_out = 1 << 5;
    assert_eq!(i8042.read_byte(i8042::spec::PORT_B).unwrap() & timer_2_out, timer_2_out);
    assert!(matches!(i8042.read_byte(2), Err(IoError::Offset(2))));
    assert!(matches!(i8042.write_byte(3, 0xfe), Err(IoError::Offset(3))));
}

/// ACPI 6.5, section 4.8.3.7: nothing happens without SLP_EN.
#[test]
fn acpi_switches_off_in_soft_off_alone() {
    let mut power = AcpiPower::new();
    let mut write = |value| power.write_byte(acpi_power::spec::SLEEP_CONTROL, value).unwrap();
    assert_eq!(write(5 << 2), Action::Continue);
    assert_eq!(write(1 << 5 | 3 << 2), Action::Continue);
    assert_eq!(write(1 << 5 | 5 << 2), Action::PowerOff);
    assert_eq!(power.read_byte(acpi_power::spec::SLEEP_CONTROL).unwrap(), 5 << 2, "SLP_EN reads as 0");
    assert_eq!(power.read_byte(acpi_power::spec::SLEEP_STATUS).unwrap(), 0);
}

#[test]
fn acpi_resets_with_the_one_value() {
    let mut power = AcpiPower::new();
    for value in 0..=u8::MAX {
        let expected = if value == acpi_power::spec::RESET_VALUE { Action::Reset } else { Action::Continue };
        assert_eq!(power.write_byte(acpi_power::spec::RESET, value).unwrap(), expected);
    }
    assert!(power.read_byte(acpi_power::spec::RESET).is_err());
}

#[test]
fn the_panic_port_tells_a_crash_kernel_from_the_end() {
    let mut port = Pvpanic::new();
    assert_eq!(port.read_byte(0).unwrap(), 0b11);
    assert_eq!(port.write_byte(0, 0b01).unwrap(), Action::Panicked { crash_loaded: false });
    assert_eq!(port.write_byte(0, 0b10).unwrap(), Action::Panicked { crash_loaded: true });
    assert_eq!(port.write_byte(0, 0b11).unwrap(), Action::Panicked { crash_loaded: false });
    assert_eq!(port.write_byte(0, 0b100).unwrap(), Action::Continue);
}

#[test]
fn the_debug_port_reports_status_and_readiness() {
    let mut port = DebugPort::new();
    assert_eq!(port.status(), 0);
    assert_eq!(port.write_byte(debug_port::spec::STATUS, 7).unwrap(), Action::GuestStatus(7));
    assert_eq!((port.status(), port.read_byte(debug_port::spec::STATUS).unwrap()), (7, 7));
    assert_eq!(port.write_byte(debug_port::spec::READY, 0).unwrap(), Action::GuestReady);
    assert!(port.read_byte(debug_port::spec::READY).is_err());
}

#[test]
fn a_wide_access_is_split_into_bytes() {
    let mut rtc = Rtc::new(|| Duration::ZERO);
    assert_eq!(rtc.write(rtc::spec::INDEX, &[0x40, 0x5a]).unwrap(), Action::Continue);
    let mut both = [0; 2];
    rtc.read(rtc::spec::INDEX, &mut both).unwrap();
    assert_eq!(both, [0x40, 0x5a]);
}

#[test]
fn a_wide_write_stops_at_the_first_action() {
    let mut port = DebugPort::new();
    assert_eq!(port.write(debug_port::spec::STATUS, &[3, 0]).unwrap(), Action::GuestStatus(3));
    assert!(port.write(u64::MAX, &[0, 0]).is_err());
}

#[test]
fn states_of_another_version_or_form_are_refused() {
    fn refused<S: DeserializeOwned, D>(state: &str, restore: impl Fn(&S) -> Result<D, RestoreError>) {
        let newer = serde_json::from_str::<S>(&state.replace("\"version\":1", "\"version\":2")).unwrap();
        let error = restore(&newer).err().expect("a newer version was restored").to_string();
        assert!(error.contains("has version 2, this mote reads version 1"), "{error}");
        let unknown = state.replace("\"version\"", "\"other\":0,\"version\"");
        assert!(serde_json::from_str::<S>(&unknown).is_err(), "an unknown field was read");
    }
    refused(&json(&I8042::new().save()), I8042::restore);
    refused(&json(&AcpiPower::new().save()), AcpiPower::restore);
    refused(&json(&Pvpanic::new().save()), Pvpanic::restore);
    refused(&json(&DebugPort::new().save()), DebugPort::restore);
    let error = AcpiPower::restore(&serde_json::from_str(r#"{"version":1,"sleep_type":8}"#).unwrap());
    assert_eq!(
        error.unwrap_err().to_string(),
        "the saved state of the ACPI power registers is damaged: sleep_type cannot be 0x8"
    );
}

/// What a guest, or the machine around a device, can do to it.
#[derive(Clone, Debug)]
enum Access {
    Read {
        offset: u64,
        width: usize,
    },
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    /// What else there is, per device.
    Other(u8),
}

/// Mostly at the registers, now and then anywhere.
fn access() -> impl Strategy<Value = Access> {
    let offset = || prop_oneof![9 => 0..10u64, 1 => any::<u64>()];
    prop_oneof![
        (offset(), 0..=9usize).prop_map(|(offset, width)| Access::Read { offset, width }),
        (offset(), prop::collection::vec(any::<u8>(), 0..=9))
            .prop_map(|(offset, data)| Access::Write { offset, data }),
        any::<u8>().prop_map(Access::Other),
    ]
}

fn json(state: &impl Serialize) -> String {
    serde_json::to_string(state).unwrap()
}

/// Replays `accesses`, half of them behind a bus, and checks that the device's state stays small and survives
/// saving and restoring, byte for byte.
fn replay<D: Device + 'static, S: Serialize + DeserializeOwned + PartialEq + Debug>(
    device: D,
    accesses: &[Access],
    length: u64,
    save: impl Fn(&D) -> S,
    restore: impl Fn(&S) -> Result<D, RestoreError>,
    other: impl Fn(&mut D, u8),
) {
    const BASE: u64 = 0x1000;
    let mut bus = Bus::new();
    let device = Arc::new(Mutex::new(device));
    bus.insert(BASE, length, device.clone()).unwrap();
    for (number, access) in accesses.iter().enumerate() {
        let direct = number % 2 == 0;
        match access {
            Access::Read { offset, width } => {
                let mut data = vec![0; *width];
                if direct {
                    let _refused = device.lock().unwrap().read(*offset, &mut data);
                } else {
                    bus.read(BASE.wrapping_add(*offset), &mut data);
                }
            }
            Access::Write { offset, data } if direct => {
                let _refused = device.lock().unwrap().write(*offset, data);
            }
            Access::Write { offset, data } => {
                let _ = bus.write(BASE.wrapping_add(*offset), data);
            }
            Access::Other(value) => other(&mut device.lock().unwrap(), *value),
        }
        let state = save(&device.lock().unwrap());
        let text = json(&state);
        assert!(text.len() < 1024, "the state grew to {} bytes", text.len());
        let read: S = serde_json::from_str(&text).unwrap();
        assert_eq!(save(&restore(&read).unwrap()), state);
    }
}

/// A device to which nothing happens but accesses.
fn nothing<D>(_: &mut D, _: u8) {}

/// A console that is full at times.
struct Moody(bool);

impl Output for Moody {
    fn write(&mut self, _: u8) {
        assert!(self.0, "a byte was written where there is no room");
    }

    fn room(&self) -> bool {
        self.0
    }
}

proptest! {
    #[test]
    fn no_accesses_harm_a_device(accesses in prop::collection::vec(access(), 0..200)) {
        replay(I8042::new(), &accesses, i8042::spec::LENGTH, I8042::save, I8042::restore, nothing);
        replay(AcpiPower::new(), &accesses, acpi_power::spec::LENGTH, AcpiPower::save, AcpiPower::restore, nothing);
        replay(Pvpanic::new(), &accesses, pvpanic::spec::LENGTH, Pvpanic::save, Pvpanic::restore, nothing);
        replay(DebugPort::new(), &accesses, debug_port::spec::LENGTH, DebugPort::save, DebugPort::restore, nothing);
        let restore = |state: &RtcState| Rtc::restore(state, SystemClock);
        replay(Rtc::new(SystemClock), &accesses, rtc::spec::LENGTH, Rtc::save, restore, nothing);
    }

    #[test]
    fn no_accesses_harm_the_serial_port(accesses in prop::collection::vec(access(), 0..200)) {
        let serial = Serial::new(CountingTrigger::default(), Moody(true));
        let restore = |state: &SerialState| {
            // A full console, so that an interrupt that is owed stays owed.
            Serial::restore(state, CountingTrigger::default(), Moody(false))
        };
        let other = |serial: &mut Serial<CountingTrigger, Moody>, value: u8| match value % 4 {
            0 => serial.output().0 = false,
            1 => {
                serial.output().0 = true;
                serial.drained().unwrap();
            }
            2 => serial.drained().unwrap(),
            _ => {
                let (room, input) = (serial.input_room(), [value; 100]);
                let length = usize::from(value) % 100;
                assert_eq!(serial.receive(&input[..length]).unwrap(), length.min(room));
            }
        };
        replay(serial, &accesses, serial::spec::LENGTH, Serial::save, restore, other);
    }
}
