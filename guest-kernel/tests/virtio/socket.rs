//! The vsock driver over a host of the test's, and its packets.

use std::cell::RefCell;

use super::memory::Window;
use super::virtio::failure::Failure;
use super::virtio::packet::{Address, Credit, Header, Operation};
use super::virtio::vsock::Connection;
use super::{BASE, VERSION_1, arena, device, memory};

const GUEST: u64 = 3;
const PORT: u32 = 5001;
const ROOM: u32 = 1000;

thread_local! {
    static SENT: RefCell<Vec<Header>> = RefCell::default();
}

/// A host that agrees to everything, and sends data back.
fn echo(window: &mut Window) {
    while let Some((head, chain)) = device::next_chain(window, 1) {
        let bytes = chain[0].read().try_into().expect("44 bytes");
        let header = Header::from_bytes(&bytes).expect("a stream's");
        device::finish(window, 1, head, 0);
        SENT.with_borrow_mut(|sent| sent.push(header));
        let operation = match header.operation {
            Operation::REQUEST => Operation::RESPONSE,
            Operation::SHUTDOWN => Operation::RESET,
            Operation::CREDIT_REQUEST => Operation::CREDIT_UPDATE,
            Operation::DATA => Operation::DATA,
            _ => continue,
        };
        let data = chain.get(1).map(|data| data.read()).unwrap_or_default();
        assert_eq!(data.len(), header.length as usize);
        answer(window, &Header { operation, ..back(header) }, &data);
    }
}

/// The answer's header, from a host that takes all data at once.
fn back(header: Header) -> Header {
    let taken = SENT.with_borrow(|sent| sent.iter().map(|header| header.length).sum());
    Header { source: header.destination, destination: header.source, flags: 0, room: ROOM, taken, ..header }
}

fn answer(window: &Window, header: &Header, data: &[u8]) {
    let (head, chain) = device::next_chain(window, 0).expect("a buffer");
    chain[0].write(&[&header.to_bytes(), data].concat());
    device::finish(window, 0, head, (Header::SIZE + data.len()) as u32);
}

fn open(on_notify: memory::Handler) -> Result<Connection, Failure> {
    let config = GUEST.to_le_bytes().to_vec();
    memory::place(BASE, Window { config, on_notify, ..Window::new(19, VERSION_1) });
    Connection::open([].into_iter(), &mut arena(), PORT, 100)
}

#[test]
fn a_header_is_laid_out_as_section_5_10_6_says() {
    let header = Header {
        source: Address { cid: 0x0102_0304_0506_0708, port: 0x1112_1314 },
        destination: Address { cid: 2, port: 0x2122_2324 },
        length: 0x3132_3334,
        operation: Operation::SHUTDOWN,
        flags: 3,
        room: 0x4142_4344,
        taken: 0x5152_5354,
    };
    let bytes = header.to_bytes();
    assert_eq!(bytes[..8], 0x0102_0304_0506_0708u64.to_le_bytes());
    assert_eq!(bytes[8..16], 2u64.to_le_bytes());
    assert_eq!(bytes[16..20], 0x1112_1314u32.to_le_bytes());
    assert_eq!(bytes[20..24], 0x2122_2324u32.to_le_bytes());
    assert_eq!(bytes[24..28], 0x3132_3334u32.to_le_bytes());
    assert_eq!(bytes[28..32], [1, 0, 4, 0], "stream, VIRTIO_VSOCK_OP_SHUTDOWN");
    assert_eq!(bytes[32..36], 3u32.to_le_bytes());
    assert_eq!(bytes[36..40], 0x4142_4344u32.to_le_bytes());
    assert_eq!(bytes[40..], 0x5152_5354u32.to_le_bytes());
    assert_eq!(Header::from_bytes(&bytes), Some(header));
    let mut seqpacket = bytes;
    seqpacket[28] = 2;
    assert_eq!(Header::from_bytes(&seqpacket), None);
}

#[test]
fn data_comes_back_and_the_connection_ends() {
    let mut connection = open(echo).expect("a connection");
    connection.data().write_bytes(0, b"hello");
    for round in 1..=500 {
        connection.send(5).expect("sent");
        let mut came = [0; 5];
        assert_eq!(connection.poll(|data| came = data.read_bytes(0)), Ok(true));
        assert_eq!(&came, b"hello");
        assert_eq!(connection.poll(|_| ()), Ok(false));
        assert_eq!((connection.free(), connection.unconfirmed()), (ROOM.into(), 0), "{round}");
    }
    connection.ask_credit().expect("sent");
    assert_eq!(connection.poll(|_| ()), Ok(true));
    assert_eq!(connection.close(), Ok(()));
    SENT.with_borrow(|sent| {
        let operation = |at: usize| sent[at].operation;
        assert_eq!(operation(0), Operation::REQUEST);
        assert_eq!(sent[0].source.cid, GUEST);
        assert_eq!(sent[0].destination, Address { cid: 2, port: PORT });
        assert_eq!(sent[500].taken, 499 * 5, "this side's credit");
        assert_eq!(operation(sent.len() - 1), Operation::SHUTDOWN);
    });
}

#[test]
fn a_host_that_refuses_or_leaves_is_an_error() {
    let refused = open(|window| {
        let Some((head, chain)) = device::next_chain(window, 1) else { return };
        let bytes = chain[0].read().try_into().expect("44 bytes");
        let header = Header::from_bytes(&bytes).expect("a stream's");
        device::finish(window, 1, head, 0);
        answer(window, &Header { operation: Operation::RESET, ..back(header) }, &[]);
    });
    assert_eq!(refused.err(), Some(Failure::new(b"connection", b"refused")));

    let mut connection = open(echo).expect("a connection");
    let request = SENT.with_borrow(|sent| sent[0]);
    memory::with(BASE, |window| {
        answer(window, &Header { operation: Operation::SHUTDOWN, ..back(request) }, &[]);
    });
    assert_eq!(connection.poll(|_| ()), Err(Failure::new(b"connection", b"closed-by-host")));
}

#[test]
fn a_packet_that_is_not_this_connection_s_or_too_long_is_refused() {
    let wrong: [fn(&mut Header); 4] = [
        |header| header.source.port += 1,
        |header| header.source.cid = 4,
        |header| header.destination.port += 1,
        |header| header.length = 4097,
    ];
    for change in wrong {
        SENT.take();
        let mut connection = open(echo).expect("a connection");
        let mut header = back(SENT.with_borrow(|sent| sent[0]));
        header.operation = Operation::DATA;
        change(&mut header);
        memory::with(BASE, |window| answer(window, &header, &[]));
        assert_eq!(connection.poll(|_| ()), Err(Failure::new(b"bad-packet", b"vsock")));
    }
}

#[test]
fn credit_is_counted_across_the_wrap() {
    let header = |room, taken| Header {
        source: Address { cid: 2, port: 1 },
        destination: Address { cid: 3, port: 1 },
        length: 0,
        operation: Operation::CREDIT_UPDATE,
        flags: 0,
        room,
        taken,
    };
    let mut credit = Credit::new(100);
    assert_eq!(credit.free(), 0, "nothing is known of the other side");
    // 5.10.6.3: free = room - (sent - taken), where all counters wrap.
    let mut taken = 0u32;
    for _ in 0..5 {
        credit.learn(&header(0x4000_0000, taken));
        assert_eq!(credit.free(), 0x4000_0000);
        credit.send(0x3fff_ffff);
        assert_eq!((credit.free(), credit.unconfirmed()), (1, 0x3fff_ffff));
        taken = taken.wrapping_add(0x3fff_ffff);
    }
    // A host that shrinks its room owes nothing.
    credit.learn(&header(10, taken.wrapping_sub(20)));
    assert_eq!(credit.free(), 0);

    assert!(!credit.is_update_due());
    credit.receive(49);
    assert!(!credit.is_update_due());
    credit.receive(1);
    assert!(credit.is_update_due());
    assert_eq!(credit.send(0), (100, 50));
    assert!(!credit.is_update_due());
}
