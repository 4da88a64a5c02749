//! The device between a driver and a socket pair, whose packets are the frames.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::spec::{feature, header, queue};
use super::*;
use crate::rate_limiter::Limit;
use crate::testkit::{Buffer, Guest};
use crate::virtio::spec::feature as common;

mod interface;
mod limits;
mod mac;
mod properties;
mod receive;
mod transmit;

const RX: usize = queue::RECEIVE;
const TX: usize = queue::TRANSMIT;

/// All that a driver like Linux's accepts.
const ALL: u64 = u64::MAX;
/// All but that frames are spread.
const UNSPREAD: u64 = ALL & !feature::MRG_RXBUF;

/// What a driver like Linux's posts.
const USUAL: u32 = 1536;

/// The device's end.
struct Cable {
    socket: OwnedFd,
    features: Arc<AtomicU64>,
}

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Wire for Cable {
    fn set_features(&self, features: u64) -> io::Result<()> {
        self.features.store(features, Ordering::Relaxed);
        Ok(())
    }
}

/// A guest with the device, and the other end of its wire.
struct Setup {
    guest: Guest,
    peer: OwnedFd,
    features: Arc<AtomicU64>,
}

fn cable() -> (Cable, OwnedFd, Arc<AtomicU64>) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, peer) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair");
    let features = Arc::new(AtomicU64::new(0));
    (Cable { socket, features: Arc::clone(&features) }, peer, features)
}

impl Setup {
    fn new(options: NetOptions, features: u64) -> Self {
        let (cable, peer, seen) = cable();
        let mut guest = Guest::new(Box::new(Net::on(Box::new(cable), options).expect("sound options")));
        guest.set_up(features);
        Self { guest, peer, features: seen }
    }

    /// A frame arrives from outside; the event loop says so.
    fn arrive(&mut self, frame: &[u8]) {
        self.put(frame);
        self.guest.worker.backend_event(WIRE);
    }

    /// A frame arrives from outside, and nobody says so.
    fn put(&mut self, frame: &[u8]) {
        let sent = rustix::net::send(&self.peer, frame, SendFlags::empty()).expect("room in the socket");
        assert_eq!(sent, frame.len());
    }

    /// The next frame that the device sent.
    fn sent(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; MAX_FRAME + 1];
        let (length, _) = rustix::net::recv(&self.peer, frame.as_mut_slice(), RecvFlags::empty()).ok()?;
        frame.truncate(length);
        Some(frame)
    }

    fn net(&mut self) -> &mut Net {
        let device: &mut dyn std::any::Any = self.guest.worker.device();
        device.downcast_mut().expect("the device made above")
    }

    /// What the event loop was told to wait for.
    fn interest(&self) -> Option<Interest> {
        self.guest.reactor.watched().first().map(|&(.., interest)| interest)
    }

    /// Turns of the event loop until the device asks for none.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if self.guest.take_wakes() == 0 {
                return;
            }
            self.guest.serve();
        }
        panic!("the device keeps the event loop busy");
    }
}

/// The driver's side of the receive queue: what was posted, in the order of posting.
#[derive(Default)]
struct Posted(Vec<(u16, Vec<(u64, u32)>)>);

impl Posted {
    /// Posts a buffer of these pieces, without a word to the device.
    fn post(&mut self, guest: &mut Guest, pieces: &[u32]) {
        let buffers: Vec<_> = pieces.iter().map(|&length| Buffer::Writable(length)).collect();
        let (head, addresses) = guest.queues[RX].add(&buffers);
        self.0.push((head, addresses.into_iter().zip(pieces.iter().copied()).collect()));
    }

    /// The next frame that was delivered, its header first.
    fn take(&mut self, guest: &mut Guest) -> Option<Vec<u8>> {
        let mut frame = self.take_buffer(guest)?;
        let count = u16::from_le_bytes([frame[header::NUM_BUFFERS], frame[header::NUM_BUFFERS + 1]]);
        for _ in 1..count {
            frame.extend(self.take_buffer(guest).expect("all buffers of a frame come at once"));
        }
        Some(frame)
    }

    fn take_buffer(&mut self, guest: &mut Guest) -> Option<Vec<u8>> {
        let (head, written) = guest.queues[RX].take_used()?;
        let position = self.0.iter().position(|&(other, _)| other == head).expect("a buffer that was posted");
        let (_, pieces) = self.0.remove(position);
        let mut bytes = Vec::new();
        for (address, length) in pieces {
            bytes.extend(guest.queues[RX].read(address, length as usize));
        }
        assert!(written as usize <= bytes.len(), "no more than fits");
        bytes.truncate(written as usize);
        Some(bytes)
    }
}

/// A frame of `length` bytes, its header of zeros included.
fn frame(length: usize, seed: u8) -> Vec<u8> {
    let body = (0..length - header::LENGTH).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed));
    [0; header::LENGTH].into_iter().chain(body).collect()
}

/// What the driver sees of `frame` in `buffers` buffers.
fn delivered(frame: &[u8], buffers: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[header::NUM_BUFFERS..header::LENGTH].copy_from_slice(&buffers.to_le_bytes());
    frame
}

#[test]
fn the_driver_finds_address_and_mtu() {
    let mac = "02:00:00:00:00:2a".parse().unwrap();
    let options = NetOptions { mac: Some(mac), mtu: Some(9000), ..NetOptions::default() };
    let mut setup = Setup::new(options, ALL);
    assert_eq!(setup.guest.config(config::MAC as u64, 6), [2, 0, 0, 0, 0, 42]);
    assert_eq!(setup.guest.config(config::MTU as u64, 2), 9000u16.to_le_bytes());
    assert_ne!(setup.guest.offered() & feature::MTU, 0);
    assert_eq!(
        setup.features.load(Ordering::Relaxed),
        setup.guest.offered(),
        "the wire hears what was accepted"
    );
    assert_eq!(setup.interest(), Some(Interest::ReadEdge));

    let mut setup = Setup::new(NetOptions::default(), ALL);
    assert_eq!(setup.guest.offered() & feature::MTU, 0, "nothing is recommended unless the user does");
    let made = setup.guest.config(config::MAC as u64, 6);
    assert_eq!(made, setup.net().mac().bytes());
    assert_eq!(made[0] & 3, 2, "an address of one's own is locally administered, and no group's");
}

#[test]
fn an_mtu_below_the_least_is_refused() {
    let (cable, ..) = cable();
    let options = NetOptions { mtu: Some(67), ..NetOptions::default() };
    let error = Net::on(Box::new(cable), options).err().expect("an error");
    assert_eq!(error.to_string(), "the MTU of a network device is at least 68, not 67");
}

/// Section 5.1.3.1: some features need others. What a driver forgot is not asked of the kernel, which would
/// refuse all.
#[test]
fn offloads_are_those_that_the_kernel_takes_together() {
    use libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_UFO};
    let all = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO;
    assert_eq!(tap::offloads(ALL), all);
    assert_eq!(tap::offloads(ALL & !feature::GUEST_CSUM), 0);
    assert_eq!(tap::offloads(feature::GUEST_CSUM | feature::GUEST_ECN), TUN_F_CSUM);
    assert_eq!(tap::offloads(feature::GUEST_CSUM | feature::GUEST_TSO6), TUN_F_CSUM | TUN_F_TSO6);
    assert_eq!(
        tap::offloads(feature::HOST_TSO4 | feature::CSUM),
        0,
        "what the host takes is no matter of reading"
    );
}

#[test]
fn a_reset_lets_go_of_everything_and_the_device_works_again() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let mut posted = Posted::default();
    posted.post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    setup.guest.reset();
    assert_eq!(setup.interest(), None);
    setup.arrive(&frame(100, 1));
    assert!(setup.guest.queues[RX].take_used().is_none(), "the buffer is the driver's again");

    setup.guest.set_up(ALL);
    let mut posted = Posted::default();
    posted.post(&mut setup.guest, &[USUAL]);
    setup.guest.notify(RX);
    assert_eq!(posted.take(&mut setup.guest), Some(delivered(&frame(100, 1), 1)));
}

#[test]
fn a_restored_device_goes_on_with_the_same_buffers() {
    let mut old = Setup::new(NetOptions::default(), ALL);
    let mut posted = Posted::default();
    for _ in 0..8 {
        posted.post(&mut old.guest, &[USUAL]);
    }
    old.guest.notify(RX);
    // Large enough to make the device hold buffers that it has not used.
    old.arrive(&frame(5000, 1));
    old.arrive(&frame(100, 2));
    assert_eq!(posted.take(&mut old.guest), Some(delivered(&frame(5000, 1), 4)));
    assert_eq!(posted.take(&mut old.guest), Some(delivered(&frame(100, 2), 1)));
    let state = old.guest.transport.save(&old.guest.worker.positions());
    let own = serde_json::to_string(&old.net().save()).unwrap();

    let (cable, peer, features) = cable();
    let mut net = Net::on(Box::new(cable), NetOptions::default()).unwrap();
    net.restore(&serde_json::from_str(&own).unwrap()).expect("a state that was saved");
    let mut guest = Guest::with_memory(Box::new(net), old.guest.memory().clone());
    guest.transport.restore(&state).expect("a state that was saved");
    guest.serve();
    guest.queues = old.guest.queues;
    let mut new = Setup { guest, peer, features };
    assert_eq!(new.net().save(), serde_json::from_str(&own).unwrap());
    new.arrive(&frame(4000, 3));
    assert_eq!(posted.take(&mut new.guest), Some(delivered(&frame(4000, 3), 3)));
}

#[test]
fn a_state_of_another_version_is_refused() {
    let mut setup = Setup::new(NetOptions::default(), ALL);
    let state = NetState { version: VERSION + 1, ..setup.net().save() };
    let error = setup.net().restore(&state).unwrap_err();
    assert!(matches!(error, RestoreError::Version { found: 2, known: 1, .. }));
}
