//! How connections begin: host programs that come and say whom they want, and host programs that the guest wants.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::super::connection::Connection;
use super::super::greeting::Greeting;
use super::super::host::{Socket, not_now};
use super::super::packet::{Header, Key};
use super::super::peer::{Peer, Stage};
use super::super::spec::TYPE_STREAM;
use super::{Exchange, LISTENER};
use crate::virtio::Interest;

/// How many host programs are accepted before others have their turn.
const ACCEPTS: usize = 64;

/// While the host has no descriptors left, none is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a host program may take to say what it wants.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);

/// How long the guest may take to accept a connection: one that is busy answers late.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// How long a host program may take to; Linux as a guest gives up after the same time.
const DIAL_PATIENCE: Duration = Duration::from_secs(2);

/// How often a host program that has too many others waiting is tried again.
const DIAL_PAUSE: Duration = Duration::from_millis(20);

/// Our ports for connections that host programs ask for.
pub(super) const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = (1 << 31) - 1;

impl Exchange {
    /// Takes host programs that want connections.
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok(socket) => {
                    let deadline = Some(Instant::now() + GREETING_PATIENCE);
                    let peer = Peer { socket, stage: Stage::Greeting(Greeting::default()), deadline };
                    // Without room, dropping it tells the host program.
                    if let Ok(token) = self.peers.insert(peer) {
                        self.settle(token);
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if not_now(&error) => break,
                Err(_) => {
                    self.reactor.unwatch(self.listener.as_fd());
                    let at = Instant::now() + ACCEPT_PAUSE;
                    self.accept_at = Some(at);
                    self.arm(at);
                    break;
                }
            }
        }
    }

    /// A host program wants `guest_port`.
    pub(super) fn call(&mut self, token: u32, guest_port: u32) {
        let mut key = Key { guest_port, host_port: self.next_port };
        // Fewer are in use than there are.
        while self.peers.find(key).is_some() {
            key.host_port = port_after(key.host_port);
        }
        self.next_port = port_after(key.host_port);
        self.peers.bind(token, key);
        if let Some(peer) = self.peers.get_mut(token) {
            peer.stage = Stage::Open(Connection::requested());
            peer.deadline = Some(Instant::now() + CALL_PATIENCE);
        }
        self.settle(token);
    }

    /// The guest wants a connection to a host program.
    pub(super) fn dial(&mut self, key: Key, request: Header) {
        let now = Instant::now();
        let socket = if self.peers.has_room() { Socket::unconnected().ok() } else { None };
        let stage = Stage::Dialing { request, until: now + DIAL_PATIENCE };
        let peer = socket.map(|socket| Peer { socket, stage, deadline: None });
        if let Some(Ok(token)) = peer.map(|peer| self.peers.insert(peer)) {
            self.peers.bind(token, key);
            self.try_dial(token, now);
        } else {
            self.refuse(key, TYPE_STREAM);
        }
    }

    pub(super) fn try_dial(&mut self, token: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(token) else {
            return;
        };
        let Stage::Dialing { request, until } = &peer.stage else {
            return;
        };
        let address = self.listener.address_of(request.dst_port);
        match address.and_then(|address| peer.socket.connect(&address)) {
            Ok(()) => {
                peer.stage = Stage::Open(Connection::granted(request));
                peer.deadline = None;
                self.settle(token);
            }
            Err(error) if not_now(&error) && now < *until => {
                let again = now + DIAL_PAUSE;
                peer.deadline = Some(again);
                self.arm(again);
            }
            Err(_) => self.reset(token),
        }
    }

    /// Accepts host programs again, if it is time to.
    pub(super) fn resume_accepting(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|at| at <= now) {
            let watched = self.reactor.watch(self.listener.as_fd(), LISTENER, Interest::Read);
            self.accept_at = watched.err().map(|_| now + ACCEPT_PAUSE);
        }
    }
}

fn port_after(port: u32) -> u32 {
    if port < LAST_PORT { port + 1 } else { FIRST_PORT }
}
