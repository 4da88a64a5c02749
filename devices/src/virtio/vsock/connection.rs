//! One connection as the protocol sees it: what came, what is owed, and how much may be sent. It touches no socket
//! and no memory.

use super::packet::Header;
use super::spec::{op, shutdown};

/// `buf_alloc`: how much of what the guest sends is held while the host program does not read.
pub(super) const BUFFER: u32 = 128 << 10;

/// The guest is told of free room when so much of it is news.
const NEWS: u32 = BUFFER / 2;

/// An established connection, or one that the guest has been asked for.
#[derive(Debug)]
pub(super) struct Connection {
    /// The guest has not accepted yet.
    requested: bool,
    /// REQUEST or RESPONSE is still to be sent.
    owes_opening: bool,
    /// The guest wants to know its credit.
    owes_credit: bool,
    /// The guest was asked for our credit, and has not told.
    asked_credit: bool,
    /// What the guest has said in SHUTDOWN.
    guest_shut: u32,
    /// What SHUTDOWN is to say, and what it has said.
    host_shut: u32,
    told_shut: u32,
    // Bytes from the guest, modulo 2^32 (section 5.10.6.3): those that came, those that went on to the host program,
    // and how many of these the guest knows of.
    received: u32,
    forwarded: u32,
    told_forwarded: u32,
    // Bytes to the guest: those that went, the size of its buffer, and how many it says have left it.
    sent: u32,
    guest_buffer: u32,
    guest_forwarded: u32,
}

/// What a packet from the guest asks of the host's side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reaction {
    /// Nothing.
    Nothing,
    /// The guest has accepted the connection.
    Accepted,
    /// The packet's payload is for the host program.
    Payload,
    /// The guest has shut a direction.
    Shut,
    /// The guest has shut both; it waits for RST.
    Finished,
    /// The guest has reset the connection.
    Aborted,
    /// The guest has broken the rules: reset the connection.
    Violation,
}

/// What the guest is to be sent next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// A packet without payload: its op and flags.
    Control(u16, u32),
    /// At most so many bytes of the host program's.
    Payload(u32),
}

impl Connection {
    /// The guest's `request` was granted: a RESPONSE is owed.
    pub(super) fn granted(request: &Header) -> Self {
        let mut connection = Self::new(false);
        connection.learn_credit(request);
        connection
    }

    /// A host program wants a connection: a REQUEST is owed.
    pub(super) fn requested() -> Self {
        Self::new(true)
    }

    fn new(requested: bool) -> Self {
        Self {
            requested,
            owes_opening: true,
            owes_credit: false,
            asked_credit: false,
            guest_shut: 0,
            host_shut: 0,
            told_shut: 0,
            received: 0,
            forwarded: 0,
            told_forwarded: 0,
            sent: 0,
            guest_buffer: 0,
            guest_forwarded: 0,
        }
    }

    /// Takes a packet of this connection.
    pub(super) fn receive(&mut self, header: &Header) -> Reaction {
        if header.op == op::RST {
            return Reaction::Aborted;
        }
        self.learn_credit(header);
        match header.op {
            op::RESPONSE if self.requested && !self.owes_opening => {
                self.requested = false;
                Reaction::Accepted
            }
            _ if self.requested => Reaction::Violation,
            op::RW => self.receive_payload(header.len),
            op::CREDIT_UPDATE => Reaction::Nothing,
            op::CREDIT_REQUEST => {
                self.owes_credit = true;
                Reaction::Nothing
            }
            op::SHUTDOWN => {
                // Section 5.10.6.5: bits once set stay set.
                self.guest_shut |= header.flags & shutdown::BOTH;
                self.shut_host(0);
                if self.guest_shut == shutdown::BOTH { Reaction::Finished } else { Reaction::Shut }
            }
            _ => Reaction::Violation,
        }
    }

    fn receive_payload(&mut self, len: u32) -> Reaction {
        let room = BUFFER.saturating_sub(self.held());
        if self.guest_shut & shutdown::SEND != 0 || len > room {
            return Reaction::Violation;
        }
        self.received = self.received.wrapping_add(len);
        Reaction::Payload
    }

    fn learn_credit(&mut self, header: &Header) {
        self.guest_buffer = header.buf_alloc;
        self.guest_forwarded = header.fwd_cnt;
        self.asked_credit &= self.credit() == 0;
    }

    /// How many bytes the guest has room for. A guest whose numbers make no sense has none.
    pub(super) fn credit(&self) -> u32 {
        self.guest_buffer.saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }

    /// How many bytes of the guest's have not gone on yet.
    pub(super) fn held(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// So many bytes of the guest's went on to the host program; no more than are [`held`](Self::held).
    pub(super) fn forward(&mut self, bytes: usize) {
        // No more than BUFFER are held.
        self.forwarded = self.forwarded.wrapping_add(self.held().min(bytes as u32));
    }

    /// The host program shuts directions too, if any: [`shutdown`] flags, as SHUTDOWN will say them.
    pub(super) fn shut_host(&mut self, flags: u32) {
        self.host_shut |= flags;
        if self.host_shut & shutdown::RECEIVE != 0 {
            // Nobody will ever want it.
            self.forwarded = self.received;
        }
        if self.host_shut & self.guest_shut & shutdown::SEND != 0 {
            // Neither sends: neither has anything to receive.
            self.host_shut = shutdown::BOTH;
        }
    }

    /// Whether the host program takes what the guest sends.
    pub(super) fn host_receives(&self) -> bool {
        self.host_shut & shutdown::RECEIVE == 0
    }

    /// Whether the host's side is at its end, and RST from the guest is waited for.
    pub(super) fn host_finished(&self) -> bool {
        self.host_shut == shutdown::BOTH
    }

    /// Whether the guest takes what the host program sends.
    pub(super) fn guest_receives(&self) -> bool {
        self.guest_shut & shutdown::RECEIVE == 0
    }

    /// Whether the guest may have more to send.
    pub(super) fn guest_sends(&self) -> bool {
        self.guest_shut & shutdown::SEND == 0
    }

    /// Whether the guest has never heard of it.
    pub(super) fn unheard_of(&self) -> bool {
        self.requested && self.owes_opening
    }

    /// What to send next, if the host program has something to send or not.
    pub(super) fn next(&self, readable: bool) -> Option<Next> {
        if self.owes_opening {
            return Some(Next::Control(if self.requested { op::REQUEST } else { op::RESPONSE }, 0));
        }
        if self.requested {
            return None;
        }
        if self.told_shut != self.host_shut {
            return Some(Next::Control(op::SHUTDOWN, self.host_shut));
        }
        if self.owes_credit {
            return Some(Next::Control(op::CREDIT_UPDATE, 0));
        }
        if readable && self.guest_receives() {
            // Payload tells credit along the way.
            match self.credit() {
                0 if self.asked_credit => {}
                0 => return Some(Next::Control(op::CREDIT_REQUEST, 0)),
                credit => return Some(Next::Payload(credit)),
            }
        }
        let news = self.forwarded.wrapping_sub(self.told_forwarded);
        (news >= NEWS).then_some(Next::Control(op::CREDIT_UPDATE, 0))
    }

    /// A packet with this op and so much payload is on its way; returns what of its header this connection knows.
    pub(super) fn send(&mut self, op: u16, flags: u32, len: u32) -> Header {
        match op {
            op::REQUEST | op::RESPONSE => self.owes_opening = false,
            op::SHUTDOWN => self.told_shut = flags,
            op::CREDIT_UPDATE => self.owes_credit = false,
            op::CREDIT_REQUEST => self.asked_credit = true,
            _ => self.sent = self.sent.wrapping_add(len),
        }
        self.told_forwarded = self.forwarded;
        Header { op, flags, len, buf_alloc: BUFFER, fwd_cnt: self.forwarded, ..Header::default() }
    }
}
