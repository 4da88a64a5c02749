//! The Ethernet frames of `mode=net`, as bytes.
//!
//! Requests and their replies have one of the two EtherTypes for local experiments (IEEE 802), and a number; data has the
//! other, so that whoever answers requests need not look at it. Segments that the device is to cut must be TCP's.

const ETHERTYPE_REQUEST: [u8; 2] = [0x88, 0xb5];
const ETHERTYPE_DATA: [u8; 2] = [0x88, 0xb6];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// Locally administered and nobody's: a host's own stack looks no further.
const PEER: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// Addresses, type, two bytes of nothing, number.
pub(crate) const HEADER_SIZE: usize = 24;
/// What a frame is for.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// To be sent back with the addresses exchanged.
    Request,
    /// To be taken.
    Data,
}

/// Ethernet, IPv4 and TCP headers without options.
pub(crate) const TCP_HEADERS_SIZE: usize = 54;
/// Where the last two begin, and the checksum in the last.
pub(crate) const IP: usize = 14;
pub(crate) const TCP: usize = 34;
pub(crate) const TCP_CHECKSUM: usize = 16;
const IP_CHECKSUM: usize = 10;
const IP_ADDRESSES: usize = 12;
const PROTOCOL_TCP: u8 = 6;
/// From a network for documentation to the same (RFC 5737): nobody's.
const ADDRESSES: [u8; 8] = [192, 0, 2, 2, 192, 0, 2, 1];
/// The discard service (RFC 863), both ways.
const PORT: [u8; 2] = [0, 9];

/// The start of a frame; anything may follow.
pub(crate) fn header(source: [u8; 6], kind: Kind, number: u64) -> [u8; HEADER_SIZE] {
    let mut frame = [0; HEADER_SIZE];
    let kind = match kind {
        Kind::Request => ETHERTYPE_REQUEST,
        Kind::Data => ETHERTYPE_DATA,
    };
    put(&mut frame, 0, &PEER);
    put(&mut frame, 6, &source);
    put(&mut frame, 12, &kind);
    put(&mut frame, 16, &number.to_be_bytes());
    frame
}

/// Whether a frame that starts so is the answer to request `number` from `source`.
pub(crate) fn is_reply(frame: &[u8; HEADER_SIZE], source: [u8; 6], number: u64) -> bool {
    let mut expected = header(source, Kind::Request, number);
    put(&mut expected, 0, &source);
    put(&mut expected, 6, &PEER);
    *frame == expected
}

/// The headers of one large TCP segment in a frame of `size` bytes, at most 65549. The checksum of TCP is left to the
/// device: its field has the sum of the pseudo-header (virtio 1.2, 5.1.6.2).
pub(crate) fn tcp_headers(source: [u8; 6], size: u64) -> [u8; TCP_HEADERS_SIZE] {
    let ip_length = u16::try_from(size.saturating_sub(IP as u64)).unwrap_or(u16::MAX);
    let tcp_length = ip_length.saturating_sub((TCP - IP) as u16);
    let mut frame = [0; TCP_HEADERS_SIZE];
    put(&mut frame, 0, &PEER);
    put(&mut frame, 6, &source);
    put(&mut frame, 12, &ETHERTYPE_IPV4);
    // RFC 791: version 4, 5 words; length; don't fragment; time to live 64.
    put(&mut frame, IP, &[0x45, 0]);
    put(&mut frame, IP + 2, &ip_length.to_be_bytes());
    put(&mut frame, IP + 6, &[0x40, 0, 64, PROTOCOL_TCP]);
    put(&mut frame, IP + IP_ADDRESSES, &ADDRESSES);
    let checksum = !sum(frame.get(IP..TCP).unwrap_or_default());
    put(&mut frame, IP + IP_CHECKSUM, &checksum.to_be_bytes());
    // RFC 9293: ports; 5 words; ACK; the largest window.
    put(&mut frame, TCP, &PORT);
    put(&mut frame, TCP + 2, &PORT);
    put(&mut frame, TCP + 12, &[0x50, 0x10, 0xff, 0xff]);
    let mut pseudo = [0; 12];
    put(&mut pseudo, 0, &ADDRESSES);
    put(&mut pseudo, 9, &[PROTOCOL_TCP]);
    put(&mut pseudo, 10, &tcp_length.to_be_bytes());
    put(&mut frame, TCP + TCP_CHECKSUM, &sum(&pseudo).to_be_bytes());
    frame
}

/// The sum in ones' complement of an even number of bytes, taken as 16-bit numbers (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let (pairs, _) = bytes.as_chunks();
    pairs.iter().fold(0, |sum: u16, &pair| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes(pair));
        sum + u16::from(carry)
    })
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, &byte) in frame.iter_mut().skip(at).zip(bytes) {
        *place = byte;
    }
}
