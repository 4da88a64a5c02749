use proptest::prelude::*;

use super::*;

/// A clock that stands at `seconds` and `nanos` since 1970.
fn rtc(seconds: u64, nanos: u32) -> Rtc<impl Clock> {
    Rtc::new(move || Duration::new(seconds, nanos))
}

fn register(rtc: &mut Rtc<impl Clock>, index: u8) -> u8 {
    let _ = rtc.write_byte(spec::INDEX, index).unwrap();
    rtc.read_byte(spec::DATA).unwrap()
}

fn date(rtc: &mut Rtc<impl Clock>) -> [u8; 4] {
    [spec::CENTURY, spec::YEAR, spec::MONTH, spec::DAY].map(|index| register(rtc, index))
}

fn time(rtc: &mut Rtc<impl Clock>) -> [u8; 4] {
    [spec::WEEKDAY, spec::HOURS, spec::MINUTES, spec::SECONDS].map(|index| register(rtc, index))
}

#[test]
fn the_epoch_was_a_thursday() {
    let mut rtc = rtc(0, 0);
    assert_eq!(date(&mut rtc), [0x19, 0x70, 0x01, 0x01]);
    assert_eq!(time(&mut rtc), [0x05, 0x00, 0x00, 0x00]);
}

#[test]
fn leap_days_and_turns_of_centuries() {
    for (seconds, expected) in [
        (951_782_399, [0x20, 0x00, 0x02, 0x28]),
        (951_782_400, [0x20, 0x00, 0x02, 0x29]),
        (951_868_800, [0x20, 0x00, 0x03, 0x01]),
        (1_709_251_199, [0x20, 0x24, 0x02, 0x29]),
        (946_684_799, [0x19, 0x99, 0x12, 0x31]),
        (4_102_444_800, [0x21, 0x00, 0x01, 0x01]),
        (4_107_542_400, [0x21, 0x00, 0x03, 0x01]),
    ] {
        assert_eq!(date(&mut rtc(seconds, 0)), expected, "{seconds}");
    }
}

#[test]
fn the_time_is_bcd_of_24_hours() {
    // 2024-02-29 23:59:59, a Thursday.
    assert_eq!(time(&mut rtc(1_709_251_199, 0)), [0x05, 0x23, 0x59, 0x59]);
    assert_eq!(register(&mut rtc(0, 0), spec::STATUS_B), spec::STATUS_B_24_HOURS);
}

#[test]
fn an_update_is_announced_and_passes() {
    let updating = |nanos| register(&mut rtc(0, nanos), spec::STATUS_A) & spec::STATUS_A_UPDATING != 0;
    assert!(!updating(0));
    assert!(!updating(999_755_999));
    assert!(updating(999_756_000));
    assert!(updating(999_999_999));
}

#[test]
fn the_guest_writes_memory_but_not_time() {
    let mut rtc = rtc(0, 0);
    for (index, expected) in
        [(0x0e, 0x5a), (0x7f, 0x5a), (0x01, 0x5a), (spec::YEAR, 0x70), (spec::STATUS_C, 0)]
    {
        let _ = rtc.write_byte(spec::INDEX, index).unwrap();
        let _ = rtc.write_byte(spec::DATA, 0x5a).unwrap();
        assert_eq!(register(&mut rtc, index), expected, "register {index:#x}");
    }
}

#[test]
fn the_nmi_gate_is_not_part_of_the_index() {
    let mut rtc = rtc(0, 0);
    assert_eq!(register(&mut rtc, 0x80 | spec::STATUS_D), spec::STATUS_D_VALID);
}

#[test]
fn restoring_refuses_a_foreign_state() {
    let clock = || Duration::ZERO;
    let sound = Rtc::new(clock).save();
    for (damaged, says) in [
        (RtcState { version: 2, ..sound.clone() }, "has version 2"),
        (RtcState { index: 0x80, ..sound.clone() }, "index cannot be 0x80"),
        (RtcState { memory: vec![0; 127], ..sound }, "the length of memory cannot be 0x7f"),
    ] {
        let error = Rtc::restore(&damaged, clock).err().expect("a damaged state was restored").to_string();
        assert!(error.contains(says), "{error}");
    }
}

proptest! {
    /// Data sheet, "Time, calendar and alarm locations": the BCD ranges.
    #[test]
    fn every_time_is_in_range(seconds: u64, nanos in 0..1_000_000_000u32) {
        let mut rtc = rtc(seconds, nanos);
        for (index, first, last) in [
            (spec::SECONDS, 0x00, 0x59), (spec::MINUTES, 0x00, 0x59), (spec::HOURS, 0x00, 0x23),
            (spec::WEEKDAY, 0x01, 0x07), (spec::DAY, 0x01, 0x31), (spec::MONTH, 0x01, 0x12),
            (spec::YEAR, 0x00, 0x99), (spec::CENTURY, 0x00, 0x99),
        ] {
            let value = register(&mut rtc, index);
            prop_assert!(value & 0xf <= 9 && (first..=last).contains(&value), "{index:#x} is {value:#x}");
        }
    }
}
