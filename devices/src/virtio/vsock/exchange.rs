//! Connects the guest's ports with the host's sockets: packets on one side, bytes on the other.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::GuestMemoryMmap;

use super::connection::{Next, Reaction};
use super::greeting::Greeted;
use super::host::{Listener, Transfer, payload_room};
use super::packet::{Header, Key};
use super::peer::{Peer, Stage};
use super::spec::{HOST_CID, TYPE_STREAM, op, shutdown};
use super::table::Table;
use crate::virtio::{Chain, Interest, Reactor};

mod opening;

/// The token of the socket that host programs connect to.
const LISTENER: u32 = 1 << 31;

/// How long the guest may take to confirm that a connection is closed (section 5.10.6.5).
const CLOSING_PATIENCE: Duration = Duration::from_secs(8);

/// No more is taken from the guest while so many answers wait for it. Connections of ours add to them one each.
const MAX_RESETS: usize = 256;

/// How many buffers of the guest's are filled by one read at most.
pub(super) const RUN: usize = 16;

/// The connections of one guest, and whatever moves between their two ends.
pub(super) struct Exchange {
    // Configuration.
    guest_cid: u64,
    // Wiring.
    listener: Arc<Listener>,
    reactor: Box<dyn Reactor>,
    transfer: Transfer,
    // State.
    peers: Table<Peer>,
    /// Connections that the guest is to be told do not exist, with their packet type.
    resets: VecDeque<(Key, u16)>,
    next_port: u32,
    timer: Option<Instant>,
    /// When host programs are accepted again.
    accept_at: Option<Instant>,
}

impl Exchange {
    /// An exchange without connections, which takes new ones from now on.
    ///
    /// # Errors
    /// When the reactor does not take the listener.
    pub(super) fn new(
        guest_cid: u64,
        listener: Arc<Listener>,
        mut reactor: Box<dyn Reactor>,
    ) -> std::io::Result<Self> {
        reactor.watch(listener.as_fd(), LISTENER, Interest::Read)?;
        Ok(Self {
            guest_cid,
            listener,
            reactor,
            transfer: Transfer::default(),
            peers: Table::new(),
            resets: VecDeque::new(),
            next_port: opening::FIRST_PORT,
            timer: None,
            accept_at: None,
        })
    }

    /// Drops all connections without a word to the guest.
    pub(super) fn drop_connections(&mut self) {
        let tokens: Vec<u32> = self.peers.iter().map(|(token, _)| token).collect();
        for token in tokens {
            self.remove(token);
        }
        self.resets.clear();
    }

    /// Drops all connections and takes no new ones.
    pub(super) fn close(&mut self) {
        self.drop_connections();
        self.reactor.unwatch(self.listener.as_fd());
        self.accept_at = None;
        self.timer = None;
        self.reactor.set_timer(None);
    }

    /// Whether the guest has to take some answers before it may send more.
    pub(super) fn congested(&self) -> bool {
        self.resets.len() >= MAX_RESETS
    }

    /// How much each connection holds of what the guest has sent.
    #[cfg(test)]
    pub(super) fn held(&self) -> Vec<u32> {
        let held =
            |peer: &Peer| if let Stage::Open(connection) = &peer.stage { connection.held() } else { 0 };
        self.peers.iter().map(|(_, peer)| held(peer)).collect()
    }

    /// Whether there may be something to send to the guest.
    pub(super) fn has_packets(&self) -> bool {
        !self.resets.is_empty() || self.peers.anybody_waits()
    }

    /// Takes a packet of the guest's. `false` if it breaks the rules.
    pub(super) fn receive(&mut self, memory: &GuestMemoryMmap, chain: &Chain) -> bool {
        let mut bytes = [0; Header::SIZE];
        if !chain.read_at(memory, 0, &mut bytes) {
            return false;
        }
        let header = Header::from_bytes(&bytes);
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return false;
        }
        let key = header.key();
        let payload = chain.readable_length() - Header::SIZE;
        if header.kind != TYPE_STREAM || (header.op == op::RW && payload < header.len as usize) {
            if header.op != op::RST {
                self.refuse(key, header.kind);
            }
            return false;
        }
        match self.peers.find(key) {
            Some(token) => self.receive_known(token, &header, memory, chain),
            None if header.op == op::REQUEST => {
                self.dial(key, header);
                true
            }
            // Not worth a complaint: both sides may have ended the connection at the same time.
            None if header.op == op::RST => true,
            None => {
                self.refuse(key, TYPE_STREAM);
                true
            }
        }
    }

    /// How many buffers [`send`](Self::send) may fill at once. More than one only for a connection that has nobody in
    /// line behind it.
    pub(super) fn appetite(&mut self) -> usize {
        let alone = if self.resets.is_empty() { self.peers.only_one_waiting() } else { None };
        if alone.is_some_and(|peer| peer.socket.flows()) { RUN } else { 1 }
    }

    /// Fills the first of `chains`, or more of them, with packets for the guest: each has room for a header and more.
    /// Appends the length of each packet to `lengths`: nothing, if there is nothing to send.
    pub(super) fn send(&mut self, memory: &GuestMemoryMmap, chains: &[Chain], lengths: &mut Vec<u32>) {
        let packet = loop {
            if let Some((key, kind)) = self.resets.pop_front() {
                break Header { kind, op: op::RST, ..self.address(key) };
            }
            let Some(token) = self.peers.next_turn() else {
                return;
            };
            if let Some(packet) = self.packet_of(token, memory, chains) {
                break packet;
            }
        };
        // What was read into several buffers is as many packets.
        let mut rest = packet.len;
        for chain in chains {
            // At most 64 KiB.
            let len = rest.min(payload_room(chain) as u32);
            rest -= len;
            // The room is there, and memory does not go away.
            let _ = chain.write_at(memory, 0, &Header { len, ..packet }.to_bytes());
            lengths.push(len + Header::SIZE as u32);
            if rest == 0 {
                break;
            }
        }
    }

    /// A descriptor is ready.
    pub(super) fn host_event(&mut self, token: u32) {
        if token == LISTENER {
            self.accept();
            return;
        }
        let Some(peer) = self.peers.get_mut(token) else {
            return;
        };
        match &mut peer.stage {
            Stage::Greeting(greeting) => match greeting.read(peer.socket.as_fd()) {
                Greeted::NotYet => {}
                Greeted::Port(port) => self.call(token, port),
                Greeted::Garbage => self.remove(token),
            },
            Stage::Dialing { .. } => {}
            Stage::Open(connection) => {
                match peer.socket.flush() {
                    Ok(taken) => connection.forward(taken),
                    Err(_) => peer.host_receives_no_more(),
                }
                peer.socket.announce();
                self.settle(token);
            }
            Stage::Draining => {
                if peer.socket.flush().is_err() || !peer.socket.has_outbox() {
                    self.remove(token);
                }
            }
        }
    }

    /// The timer has expired.
    pub(super) fn tick(&mut self, now: Instant) {
        self.timer = None;
        self.resume_accepting(now);
        let expired = |peer: &Peer| peer.deadline.is_some_and(|deadline| deadline <= now);
        let expired: Vec<u32> =
            self.peers.iter().filter(|(_, peer)| expired(peer)).map(|(token, _)| token).collect();
        for token in expired {
            match self.peers.get_mut(token).map(|peer| &peer.stage) {
                Some(Stage::Dialing { .. }) => self.try_dial(token, now),
                Some(Stage::Open(_)) => {
                    self.refuse_bound(token);
                    self.release(token);
                }
                _ => self.remove(token),
            }
        }
        let deadlines = self.peers.iter().filter_map(|(_, peer)| peer.deadline);
        if let Some(next) = deadlines.chain(self.accept_at).min() {
            self.arm(next);
        }
    }

    /// Takes a packet of a connection that exists.
    fn receive_known(
        &mut self,
        token: u32,
        header: &Header,
        memory: &GuestMemoryMmap,
        chain: &Chain,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(token) else {
            return true;
        };
        let reaction = match &mut peer.stage {
            Stage::Open(connection) => connection.receive(header),
            _ if header.op == op::RST => Reaction::Aborted,
            _ => Reaction::Violation,
        };
        match reaction {
            Reaction::Nothing => {}
            Reaction::Accepted => {
                peer.deadline = None;
                if !peer.socket.say(&format!("OK {}\n", header.dst_port)) {
                    self.reset(token);
                    return true;
                }
            }
            Reaction::Payload => peer.deliver(header.len, memory, chain, &mut self.transfer),
            Reaction::Shut => peer.shut(),
            Reaction::Finished => {
                self.refuse_bound(token);
                self.release(token);
                return true;
            }
            Reaction::Aborted => {
                self.release(token);
                return true;
            }
            Reaction::Violation => {
                self.reset(token);
                return false;
            }
        }
        self.settle(token);
        true
    }

    /// The next packet of one connection; its payload, if it has any, is in `chains` already.
    fn packet_of(&mut self, token: u32, memory: &GuestMemoryMmap, chains: &[Chain]) -> Option<Header> {
        let key = self.peers.key(token)?;
        let mut packet = None;
        while packet.is_none() {
            let peer = self.peers.get_mut(token)?;
            let Stage::Open(connection) = &mut peer.stage else {
                return None;
            };
            match connection.next(peer.socket.readable()) {
                None => break,
                Some(Next::Control(op, flags)) => packet = Some(connection.send(op, flags, 0)),
                Some(Next::Payload(credit)) => {
                    match peer.socket.receive(memory, chains, credit as usize, &mut self.transfer) {
                        Ok(None) => {}
                        Ok(Some(0)) if peer.socket.is_gone() => connection.shut_host(shutdown::BOTH),
                        Ok(Some(0)) => connection.shut_host(shutdown::SEND),
                        // At most `credit`.
                        Ok(Some(got)) => packet = Some(connection.send(op::RW, 0, got as u32)),
                        Err(_) => {
                            self.reset(token);
                            return None;
                        }
                    }
                }
            }
        }
        self.settle(token);
        packet.map(|packet| {
            let Header { op, flags, len, buf_alloc, fwd_cnt, .. } = packet;
            Header { op, flags, len, buf_alloc, fwd_cnt, ..self.address(key) }
        })
    }

    fn address(&self, key: Key) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            kind: TYPE_STREAM,
            ..Header::default()
        }
    }

    /// After anything that concerns a connection: waits for what has to be waited for, and takes its place in the
    /// line.
    fn settle(&mut self, token: u32) {
        let Some(peer) = self.peers.get_mut(token) else {
            return;
        };
        let mut next = None;
        if let Stage::Open(connection) = &mut peer.stage {
            if peer.socket.is_gone() {
                connection.shut_host(shutdown::BOTH);
            }
            if connection.host_finished() && peer.deadline.is_none() {
                peer.deadline = Some(Instant::now() + CLOSING_PATIENCE);
            }
            next = connection.next(peer.socket.readable());
        }
        let deadline = peer.deadline;
        if peer.socket.watch(&mut *self.reactor, token).is_err() {
            self.reset(token);
            return;
        }
        if let Some(next) = next {
            // Others' data does not delay what a connection needs to begin, to go on or to end.
            self.peers.queue(token, matches!(next, Next::Control(..)));
        }
        if let Some(deadline) = deadline {
            self.arm(deadline);
        }
    }

    fn arm(&mut self, at: Instant) {
        if self.timer.is_none_or(|timer| at < timer) {
            self.timer = Some(at);
            self.reactor.set_timer(Some(at));
        }
    }

    /// Answers RST to a packet of a connection that cannot be, and ends it if it is one.
    fn refuse(&mut self, key: Key, kind: u16) {
        match self.peers.find(key) {
            Some(token) if kind == TYPE_STREAM => self.reset(token),
            _ => self.resets.push_back((key, kind)),
        }
    }

    /// Takes its address from a connection, and tells the guest, if it knows it.
    fn refuse_bound(&mut self, token: u32) {
        let stage = self.peers.get_mut(token).map(|peer| &peer.stage);
        let unheard_of = matches!(stage, Some(Stage::Open(connection)) if connection.unheard_of());
        if let Some(key) = self.peers.unbind(token)
            && !unheard_of
        {
            self.resets.push_back((key, TYPE_STREAM));
        }
    }

    /// Ends a connection at once.
    fn reset(&mut self, token: u32) {
        self.refuse_bound(token);
        self.remove(token);
    }

    /// The guest is through with a connection: ends it when the host program has taken everything.
    fn release(&mut self, token: u32) {
        self.peers.unbind(token);
        let Some(peer) = self.peers.get_mut(token) else {
            return;
        };
        if peer.socket.has_outbox() {
            peer.stage = Stage::Draining;
            peer.deadline = None;
            peer.socket.end_receiving();
            self.settle(token);
        } else {
            self.remove(token);
        }
    }

    fn remove(&mut self, token: u32) {
        if let Some(mut peer) = self.peers.remove(token) {
            peer.socket.unwatch(&mut *self.reactor);
        }
    }
}
