//! A socket to the host (virtio 1.2, 5.10): one stream connection, with its credit.

use super::failure::{Failure, NO_ROOM};
use super::mmio::{Kind, Transport, feature};
use super::packet::{Address, Credit, Header, Operation, SHUTDOWN_BOTH};
use super::queue::{Part, Queue, Used};
use crate::cpu;
use crate::dma::{Arena, Shared};
use crate::options::Window;

/// The configuration's only field (5.10.4).
const CONFIG_GUEST_CID: u64 = 0;
/// The host's address (5.10.4).
const HOST_CID: u64 = 2;
/// Any port: there is one connection.
const OWN_PORT: u32 = 1024;

/// The queues (5.10.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENT: u16 = 2;

const RECEIVE_SLOTS: u16 = 64;
/// Header and up to a page of data, in one buffer.
const RECEIVE_SLOT: u64 = 8192;
const RECEIVE_BYTES: u64 = Header::SIZE as u64 + 4096;
/// An event has four bytes (5.10.6.7); none is acted on.
const EVENT_BYTES: u64 = 4;
/// Packets on their way out, each a chain of header and data; as many as [`Connection::in_flight`] has bits.
const TRANSMIT_SLOTS: u16 = 32;
const CHAIN: u16 = 2;
const HEADER_ROOM: u64 = 64;

/// The most data in one packet.
pub(crate) const PACKET_LIMIT: u64 = 64 * 1024;
/// How many bytes of its data this side says it has room for. It takes them at once, so this is never filled.
const OWN_ROOM: u32 = 256 * 1024;

/// One connection to the host.
pub(crate) struct Connection {
    transport: Transport,
    receive: Queue,
    transmit: Queue,
    received: Shared,
    headers: Shared,
    data: Shared,
    own: Address,
    host: Address,
    credit: Credit,
    /// Which outgoing slots the device has.
    in_flight: u32,
}

impl Connection {
    /// Connects to `port` of the host. Packets out have `packet_size` (at most [`PACKET_LIMIT`]) bytes of data at most.
    pub(crate) fn open(
        windows: impl Iterator<Item = Window>,
        arena: &mut Arena,
        port: u32,
        packet_size: u64,
    ) -> Result<Connection, Failure> {
        let transport = Transport::open(Kind::Vsock, windows, feature::RING_EVENT_IDX)?;
        let mut receive = transport.queue(RECEIVE, RECEIVE_SLOTS, arena)?;
        let transmit = transport.queue(TRANSMIT, TRANSMIT_SLOTS * CHAIN, arena)?;
        let mut event = transport.queue(EVENT, 1, arena)?;
        let received = arena.take(u64::from(RECEIVE_SLOTS) * RECEIVE_SLOT, 4096).ok_or(NO_ROOM)?;
        let headers = arena.take(u64::from(TRANSMIT_SLOTS) * HEADER_ROOM, 64).ok_or(NO_ROOM)?;
        let data = arena.take(packet_size, 4096).ok_or(NO_ROOM)?;
        let events = arena.take(EVENT_BYTES, 4).ok_or(NO_ROOM)?;
        transport.start();
        for index in 0..RECEIVE_SLOTS {
            let memory = received.piece(index.into(), RECEIVE_SLOT).part(0, RECEIVE_BYTES);
            receive.describe(index, &[Part { memory, device_writes: true }]);
            receive.push(index);
        }
        receive.publish();
        event.describe(0, &[Part { memory: events, device_writes: true }]);
        event.push(0);
        event.publish();
        let own = Address { cid: transport.config_u64(CONFIG_GUEST_CID), port: OWN_PORT };
        let host = Address { cid: HOST_CID, port };
        let (credit, in_flight) = (Credit::new(OWN_ROOM), 0);
        let mut connection = Connection {
            transport,
            receive,
            transmit,
            received,
            headers,
            data,
            own,
            host,
            credit,
            in_flight,
        };
        connection.connect()?;
        Ok(connection)
    }

    /// The data that packets out carry: the same memory for all, from its start.
    pub(crate) fn data(&self) -> Shared {
        self.data
    }

    /// How many bytes the host has room for when it has taken all.
    pub(crate) fn room(&self) -> u64 {
        self.credit.peer_room.into()
    }

    /// How many bytes the host has room for now.
    pub(crate) fn free(&self) -> u64 {
        self.credit.free().into()
    }

    /// How many bytes the host has not yet taken out of that room.
    pub(crate) fn unconfirmed(&self) -> u64 {
        self.credit.unconfirmed().into()
    }

    /// Sends the first `length` bytes of the data. There must be room for them.
    pub(crate) fn send(&mut self, length: u64) -> Result<(), Failure> {
        self.transmit(Operation::DATA, 0, length as u32)
    }

    /// Asks the host to tell how much room it has.
    pub(crate) fn ask_credit(&mut self) -> Result<(), Failure> {
        self.transmit(Operation::CREDIT_REQUEST, 0, 0)
    }

    /// Takes the next packet, if one has come. Its data, which may be none, goes to `look`.
    pub(crate) fn poll(&mut self, look: impl FnOnce(Shared)) -> Result<bool, Failure> {
        match self.take(look)? {
            None => Ok(false),
            Some(Operation::DATA | Operation::CREDIT_UPDATE | Operation::CREDIT_REQUEST) => Ok(true),
            Some(Operation::SHUTDOWN | Operation::RESET) => {
                Err(Failure::new(b"connection", b"closed-by-host"))
            }
            Some(_) => Err(Failure::new(b"connection", b"unexpected-operation")),
        }
    }

    /// How often the device was notified.
    pub(crate) fn notifications(&self) -> u64 {
        self.receive.notifications() + self.transmit.notifications()
    }

    /// Ends the connection, waits until the host has agreed, and ends the device's work.
    pub(crate) fn close(mut self) -> Result<(), Failure> {
        self.transmit(Operation::SHUTDOWN, SHUTDOWN_BOTH, 0)?;
        while self.wait()? != Operation::RESET {}
        self.transport.reset()
    }

    fn connect(&mut self) -> Result<(), Failure> {
        self.transmit(Operation::REQUEST, 0, 0)?;
        match self.wait()? {
            Operation::RESPONSE => Ok(()),
            _ => Err(Failure::new(b"connection", b"refused")),
        }
    }

    fn wait(&mut self) -> Result<Operation, Failure> {
        let patience = cpu::Patience::new();
        loop {
            if let Some(operation) = self.take(|_| {})? {
                return Ok(operation);
            }
            if patience.is_over() {
                return Err(Failure::new(b"timeout", b"connection"));
            }
            cpu::relax();
        }
    }

    /// Takes a packet, tells the host of room that it does not know of, and gives the buffer back to the device.
    fn take(&mut self, look: impl FnOnce(Shared)) -> Result<Option<Operation>, Failure> {
        let Some(used) = self.receive.pop()? else { return Ok(None) };
        let buffer = self.received.piece(used.head.into(), RECEIVE_SLOT);
        let bad = Failure::new(b"bad-packet", b"vsock");
        let header = Header::from_bytes(&buffer.read_bytes(0)).ok_or(bad)?;
        let length = u64::from(header.length);
        if (header.source, header.destination) != (self.host, self.own)
            || length > RECEIVE_BYTES - Header::SIZE as u64
        {
            return Err(bad);
        }
        self.credit.learn(&header);
        self.credit.receive(header.length);
        look(buffer.part(Header::SIZE as u64, length));
        self.receive.push(used.head);
        self.receive.publish_half();
        if header.operation == Operation::CREDIT_REQUEST || self.credit.is_update_due() {
            self.transmit(Operation::CREDIT_UPDATE, 0, 0)?;
        }
        Ok(Some(header.operation))
    }

    /// Sends a packet as soon as a slot is free.
    fn transmit(&mut self, operation: Operation, flags: u32, length: u32) -> Result<(), Failure> {
        while let Some(used) = self.transmit.pop()? {
            self.sent(used)?;
        }
        while self.in_flight == u32::MAX {
            let used = self.transmit.wait()?;
            self.sent(used)?;
        }
        let slot = self.in_flight.trailing_ones() as u16;
        let (room, taken) = self.credit.send(length);
        let header =
            Header { source: self.own, destination: self.host, length, operation, flags, room, taken };
        let memory = self.headers.piece(slot.into(), HEADER_ROOM).part(0, Header::SIZE as u64);
        memory.write_bytes(0, &header.to_bytes());
        let header = Part { memory, device_writes: false };
        let data = Part { memory: self.data.part(0, length.into()), device_writes: false };
        let parts = [header, data];
        let parts = if length == 0 { parts.get(..1).unwrap_or_default() } else { &parts };
        self.transmit.describe(slot * CHAIN, parts);
        self.in_flight |= 1 << slot;
        self.transmit.push(slot * CHAIN);
        self.transmit.publish();
        Ok(())
    }

    fn sent(&mut self, used: Used) -> Result<(), Failure> {
        let slot = used.head / CHAIN;
        if !used.head.is_multiple_of(CHAIN) || self.in_flight & (1 << slot) == 0 {
            return Err(Failure::new(b"bad-used-ring", b"not-in-flight"));
        }
        self.in_flight &= !(1 << slot);
        Ok(())
    }
}
