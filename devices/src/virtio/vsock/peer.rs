//! A host program, and how far its connection is.

use std::time::Instant;

use vm_memory::GuestMemoryMmap;

use super::connection::Connection;
use super::greeting::Greeting;
use super::host::{Socket, Transfer};
use super::packet::Header;
use super::spec::shutdown;
use crate::virtio::Chain;

/// A host program.
pub(super) struct Peer {
    pub socket: Socket,
    pub stage: Stage,
    /// When patience ends.
    pub deadline: Option<Instant>,
}

pub(super) enum Stage {
    /// It has to say which port it wants.
    Greeting(Greeting),
    /// The guest wants it, but it has too many others waiting.
    Dialing { request: Header, until: Instant },
    /// The guest knows of it, or is going to.
    Open(Connection),
    /// The guest is through with it; it has still to take what is left.
    Draining,
}

impl Peer {
    /// The guest has sent `len` bytes.
    pub(super) fn deliver(
        &mut self,
        len: u32,
        memory: &GuestMemoryMmap,
        chain: &Chain,
        transfer: &mut Transfer,
    ) {
        let Stage::Open(connection) = &mut self.stage else {
            return;
        };
        let len = len as usize;
        if !connection.host_receives() {
            connection.forward(len);
            return;
        }
        match self.socket.send(memory, chain, len, transfer) {
            Ok(taken) => connection.forward(taken),
            Err(_) => self.host_receives_no_more(),
        }
    }

    /// The guest has shut a direction.
    pub(super) fn shut(&mut self) {
        let Stage::Open(connection) = &mut self.stage else {
            return;
        };
        if !connection.guest_receives() {
            self.socket.end_receiving();
        }
        if !connection.guest_sends() {
            match self.socket.end_sending() {
                Ok(taken) => connection.forward(taken),
                Err(_) => self.host_receives_no_more(),
            }
        }
    }

    /// The host program takes nothing any more.
    pub(super) fn host_receives_no_more(&mut self) {
        self.socket.discard();
        if let Stage::Open(connection) = &mut self.stage {
            connection.shut_host(shutdown::RECEIVE);
        }
    }
}
