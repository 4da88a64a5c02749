//! A machine with a socket device: the driver's side packet by packet, the host's side with real sockets.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::packet::{Header, Key};
use super::super::spec::{HOST_CID, RX, TX, TYPE_STREAM, op};
use super::super::{Vsock, VsockOptions};
use crate::testkit::{Buffer, Guest};
use crate::virtio::TIMER;
use crate::virtio::spec::feature;

pub(super) const CID: u64 = 3;

/// What each buffer for packets holds: as Linux has it.
const PAYLOAD: u32 = 4096;
/// Two descriptors each, of 256.
const BUFFERS: usize = 100;

/// A receive buffer that tests do not fill by accident.
pub(super) const ROOM: u32 = 1 << 20;

/// The driver makes each buffer available again as soon as it has looked at it.
pub(super) struct Machine {
    pub guest: Guest,
    pub directory: TempDir,
    buffers: VecDeque<Vec<u64>>,
}

impl Machine {
    /// With buffers for packets.
    pub(super) fn new() -> Self {
        let mut machine = Self::starved();
        machine.feed(BUFFERS);
        machine
    }

    /// Without.
    pub(super) fn starved() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = VsockOptions { cid: CID, uds: directory.path().join("vsock") };
        let mut guest = Guest::new(Box::new(Vsock::new(options).unwrap()));
        guest.set_up(feature::RING_EVENT_IDX | feature::RING_INDIRECT_DESC);
        Self { guest, directory, buffers: VecDeque::new() }
    }

    pub(super) fn device(&mut self) -> &mut Vsock {
        let device: &mut dyn std::any::Any = self.guest.worker.device();
        device.downcast_mut().unwrap()
    }

    /// So many more buffers for packets.
    pub(super) fn feed(&mut self, count: usize) {
        self.add(count);
        self.guest.notify(RX);
    }

    /// The same, but the device is not told.
    pub(super) fn add(&mut self, count: usize) {
        for _ in 0..count {
            let both = [Buffer::Writable(44), Buffer::Writable(PAYLOAD)];
            self.buffers.push_back(self.guest.queues[RX].add(&both).1);
        }
    }

    /// One more that is too small for anything.
    pub(super) fn add_small(&mut self) {
        self.buffers.push_back(self.guest.queues[RX].add(&[Buffer::Writable(44)]).1);
    }

    /// The test has looked at the next used buffer itself.
    pub(super) fn forget_buffer(&mut self) {
        self.buffers.pop_front();
    }

    /// Another driver starts over.
    pub(super) fn set_up_again(&mut self) {
        self.guest.set_up(0);
        self.buffers.clear();
        self.feed(BUFFERS);
    }

    /// The guest sends a packet, whatever it is.
    pub(super) fn send(&mut self, header: Header, payload: &[u8]) {
        let header = header.to_bytes();
        let both = [Buffer::Readable(&header), Buffer::Readable(payload)];
        self.guest.send(TX, if payload.is_empty() { &both[..1] } else { &both });
        while self.guest.queues[TX].take_used().is_some() {}
    }

    /// The next packet for the guest that has come already.
    pub(super) fn receive_now(&mut self) -> Option<(Header, Vec<u8>)> {
        let (_, written) = self.guest.queues[RX].take_used()?;
        let addresses = self.buffers.pop_front().unwrap();
        if addresses.len() == 1 {
            assert_eq!(written, 0);
            return self.receive_now();
        }
        let bytes = self.guest.queues[RX].read(addresses[0], Header::SIZE);
        let header = Header::from_bytes(&bytes.try_into().unwrap());
        assert_eq!(written as usize, Header::SIZE + header.len as usize, "what the used ring says");
        let payload = self.guest.queues[RX].read(addresses[1], header.len as usize);
        self.feed(1);
        Some((header, payload))
    }

    /// The next packet for the guest.
    pub(super) fn receive(&mut self) -> (Header, Vec<u8>) {
        self.until("a packet", Self::receive_now)
    }

    /// The next packet for the guest, which is `op`, with its flags.
    pub(super) fn expect(&mut self, op: u16, flags: u32) -> Header {
        let (header, _) = self.receive();
        assert_eq!((header.op, header.flags), (op, flags), "{header:?}");
        assert_eq!((header.src_cid, header.dst_cid, header.kind), (HOST_CID, CID, TYPE_STREAM));
        header
    }

    /// No packet comes.
    pub(super) fn expect_silence(&mut self) {
        for _ in 0..20 {
            self.turn();
        }
        assert_eq!(self.receive_now(), None);
    }

    /// One turn of the event loop.
    pub(super) fn turn(&mut self) {
        self.guest.serve();
        for token in self.guest.reactor.ready() {
            self.guest.worker.backend_event(token);
        }
        if self.guest.reactor.timer().is_some_and(|timer| timer <= Instant::now()) {
            self.guest.worker.backend_event(TIMER);
        }
        self.guest.serve();
    }

    /// As if so much time had passed.
    pub(super) fn pass(&mut self, time: Duration) {
        let active = self.device().active.as_mut().unwrap();
        active.exchange.tick(Instant::now() + time);
        self.guest.notify(RX);
    }

    /// Turns the event loop until there is what is waited for.
    pub(super) fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < end, "waited in vain for {what}");
            self.turn();
        }
    }

    /// How many descriptors of connections are waited for.
    pub(super) fn connections(&self) -> usize {
        self.guest.reactor.watched().len() - 1
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("vsock")
    }

    /// A host program that listens for the guest's connections to `port`.
    pub(super) fn listen(&self, port: u32) -> UnixListener {
        let listener = UnixListener::bind(self.directory.path().join(format!("vsock_{port}"))).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    /// A host program's connection to the device's socket.
    pub(super) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// A connection that the guest has asked for and that was granted.
    pub(super) fn open(&mut self, listener: &UnixListener, key: Key) -> UnixStream {
        self.send(packet(key, op::REQUEST), &[]);
        let header = self.expect(op::RESPONSE, 0);
        assert_eq!((header.src_port, header.dst_port), (key.host_port, key.guest_port));
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Reads exactly `length` bytes, while the machine runs.
    pub(super) fn read(&mut self, mut stream: &UnixStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut done = 0;
        self.until("bytes", |_| {
            if let Some(got) = would_block(stream.read(&mut bytes[done..])) {
                assert!(got > 0 || done == length, "the end after {done} bytes");
                done += got;
            }
            (done == length).then_some(())
        });
        bytes
    }

    /// Reads the end.
    pub(super) fn read_end(&mut self, mut stream: &UnixStream) {
        let got = self.until("the end", |_| match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(0),
            result => would_block(result),
        });
        assert_eq!(got, 0);
    }

    /// Reads a line.
    pub(super) fn read_line(&mut self, stream: &UnixStream) -> String {
        let mut line = String::new();
        while !line.ends_with('\n') {
            line.push(self.read(stream, 1)[0].into());
        }
        line
    }
}

/// A packet of the guest's with room for [`ROOM`] bytes of answer.
pub(super) fn packet(key: Key, op: u16) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: key.guest_port,
        dst_port: key.host_port,
        kind: TYPE_STREAM,
        op,
        buf_alloc: ROOM,
        ..Header::default()
    }
}

/// One with `length` bytes of payload.
pub(super) fn data(key: Key, length: usize) -> Header {
    Header { len: length as u32, ..packet(key, op::RW) }
}

/// Writes as much as goes.
pub(super) fn write_some(mut stream: &UnixStream, bytes: &[u8]) -> usize {
    would_block(stream.write(bytes)).unwrap_or(0)
}

pub(super) fn would_block(result: std::io::Result<usize>) -> Option<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        result => Some(result.unwrap()),
    }
}
