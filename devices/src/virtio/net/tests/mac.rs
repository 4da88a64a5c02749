//! Ethernet addresses as text.

use proptest::prelude::*;

use super::*;

#[test]
fn what_is_no_address_is_told_why() {
    for text in [
        "",
        "02",
        "02:00:00:00:00",
        "02:00:00:00:00:00:00",
        "2:0:0:0:0:0",
        "02-00-00-00-00-01",
        "02:00:00:00:00:0g",
        "+2:00:00:00:00:01",
        " 02:00:00:00:00:01",
        "02:00:00:00:00:é",
    ] {
        assert_eq!(text.parse::<MacAddress>(), Err(MacError::Form), "{text:?}");
    }
    assert_eq!("ff:ff:ff:ff:ff:ff".parse::<MacAddress>(), Err(MacError::Group));
    assert_eq!("01:00:5e:00:00:01".parse::<MacAddress>(), Err(MacError::Group));
    assert_eq!("00:00:00:00:00:00".parse::<MacAddress>(), Err(MacError::Zero));
}

#[test]
fn random_addresses_differ_and_are_sound() {
    let (a, b) = (MacAddress::random().unwrap(), MacAddress::random().unwrap());
    assert_ne!(a, b);
    assert_eq!(MacAddress::new(a.bytes()), Ok(a));
}

proptest! {
    #[test]
    fn every_address_reads_back_in_either_case(mut bytes: [u8; 6]) {
        bytes[0] = bytes[0] & 0xfe | 2;
        let mac = MacAddress::new(bytes).unwrap();
        let text = mac.to_string();
        prop_assert_eq!(text.parse(), Ok(mac));
        prop_assert_eq!(text.to_uppercase().parse(), Ok(mac));
    }

    #[test]
    fn any_text_is_an_address_or_an_error(text in "[0-9a-fA-F:+ -]{0,20}|.{0,20}") {
        if let Ok(mac) = text.parse::<MacAddress>() {
            prop_assert_eq!(mac.to_string(), text.to_lowercase());
        }
    }
}
