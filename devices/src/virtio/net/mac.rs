//! Ethernet addresses as text.

use std::fmt;
use std::str::FromStr;

use rustix::rand::GetRandomFlags;
use thiserror::Error;

/// Of the first byte: the address is one of a group.
const GROUP: u8 = 1;
/// Of the first byte: the address was not given by its maker.
const LOCAL: u8 = 2;

/// The address of one Ethernet interface: neither a group's nor all zeros.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MacAddress([u8; 6]);

/// Why six bytes, or a text, are not a [`MacAddress`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum MacError {
    /// The text is not six pairs of hexadecimal digits with colons between them.
    #[error("a MAC address is six pairs of hexadecimal digits, like 02:00:00:00:00:01")]
    Form,
    /// It is a multicast or the broadcast address.
    #[error("the MAC address is one of a group: its first byte must be even, like 02")]
    Group,
    /// All bytes are 0.
    #[error("the MAC address is all zeros, which no interface can have")]
    Zero,
}

impl MacAddress {
    /// The address of these six bytes.
    ///
    /// # Errors
    /// [`MacError::Group`] or [`MacError::Zero`].
    pub fn new(bytes: [u8; 6]) -> Result<Self, MacError> {
        if bytes[0] & GROUP != 0 {
            return Err(MacError::Group);
        }
        if bytes == [0; 6] { Err(MacError::Zero) } else { Ok(Self(bytes)) }
    }

    /// A locally administered address that nobody else has: one of 2^46.
    ///
    /// # Errors
    /// When the host has no random bytes yet.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 6];
        // So few are given whole or not at all.
        rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK)?;
        bytes[0] = bytes[0] & !GROUP | LOCAL;
        Ok(Self(bytes))
    }

    /// Its bytes, in the order in which they are written and sent.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or(MacError::Form)?;
            // The number parser alone would take a sign, and one digit.
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(MacError::Form);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| MacError::Form)?;
        }
        if pairs.next().is_some() { Err(MacError::Form) } else { Self::new(bytes) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}
