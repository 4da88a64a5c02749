//! Socket device (virtio 1.2, section 5.10): streams between programs of the guest and programs of the host, without
//! a network.
//!
//! On the host's side these are Unix sockets, with the protocol that Firecracker has made known. A host program
//! connects to the device's socket, says `CONNECT <port>` and a newline, and after the answer `OK <host port>` it
//! talks to whoever listens on that port in the guest. A guest program that connects to port P of CID 2 talks to the
//! host program that listens on `<socket>_P`.
//!
//! A packet goes through four files: its `packet` header names a `connection`, which is the protocol as a pure state
//! machine; `exchange` finds it in a `table` and does what it asks of the sockets in `host`. Payload goes from socket
//! to guest memory and back in one copy, the kernel's. What a host program does not take at once is held, but never
//! more than the guest was promised room for; what the guest has no room for stays in the host's socket. There are no
//! queues of packets: what is owed is a flag of its connection.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;

use super::{
    Activation, Chain, ConfigSpace, DeviceError, DeviceKind, Identity, Link, Progress, Queue, QueueError,
    TIMER, VirtioDevice,
};
use exchange::Exchange;
use host::{Listener, payload_room};

mod connection;
mod exchange;
mod greeting;
mod host;
mod packet;
mod peer;
mod spec;
mod table;
#[cfg(test)]
mod tests;

const QUEUE_SIZE: u16 = 256;

/// How many packets of one direction are handled before other devices have their turn.
const BATCH: usize = 128;

/// What a socket device is made of.
#[derive(Clone, Debug)]
pub struct VsockOptions {
    /// The guest's address: 3 to 4294967294.
    pub cid: u64,
    /// Path of the Unix socket that host programs connect to; it is made.
    pub uds: PathBuf,
}

/// Why a socket device cannot be made.
#[derive(Debug, Error)]
pub enum VsockError {
    /// The CID is reserved.
    #[error("vsock CID {cid} is reserved; use one from 3 to 4294967294")]
    Cid {
        /// The one that was asked for.
        cid: u64,
    },
    /// The path, or that of a port, does not fit into a socket's address.
    #[error("the vsock socket path {} is too long; use one of at most {limit} bytes", .path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Bytes that it may have.
        limit: usize,
    },
    /// There is a file.
    #[error(
        "the vsock socket {} exists; if no other machine uses it, remove it, or choose another path", .path.display()
    )]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// There is no directory to put it in.
    #[error("the directory of the vsock socket {} does not exist; create it first", .path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The host refuses for another reason.
    #[error("cannot listen on the vsock socket {}; may this user create files there?", .path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

impl VsockError {
    fn bind(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse => Self::Exists { path },
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::NoDirectory { path },
            _ => Self::Listen { path, source },
        }
    }
}

/// The device.
pub struct Vsock {
    // Configuration.
    cid: u64,
    // Wiring.
    listener: Arc<Listener>,
    // Wiring and guest-visible state, while it is active.
    active: Option<Active>,
    /// The guest is to be told that its connections are gone.
    transport_reset: bool,
}

struct Active {
    queues: Vec<Queue>,
    link: Link,
    exchange: Exchange,
    chain: Chain,
    /// Buffers that are being filled together.
    run: Vec<Chain>,
    lengths: Vec<u32>,
    /// Packets of the guest's wait until it has taken some answers.
    held: bool,
}

impl Vsock {
    /// A device that listens from now on; host programs wait until the guest's driver is ready. Dropping it removes
    /// the socket's file.
    ///
    /// # Errors
    /// See [`VsockError`].
    pub fn new(options: VsockOptions) -> Result<Self, VsockError> {
        let VsockOptions { cid, uds } = options;
        if !(spec::MIN_GUEST_CID..spec::ANY_CID).contains(&cid) {
            return Err(VsockError::Cid { cid });
        }
        let listener = Arc::new(Listener::bind(uds)?);
        Ok(Self { cid, listener, active: None, transport_reset: false })
    }

    /// Ends all connections and has the guest do so too (section 5.10.6.7): for a guest that goes on from a snapshot,
    /// where its connections have no other end.
    pub fn transport_reset(&mut self) {
        self.transport_reset = true;
        if let Some(active) = &mut self.active {
            active.exchange.drop_connections();
        }
        self.act(Active::serve_guest);
    }

    /// Does `work`, tells the driver what came of it, and gives up if the driver has spoilt a queue.
    fn act(&mut self, work: impl FnOnce(&mut Active) -> Result<(), QueueError>) {
        let Some(active) = &mut self.active else {
            return;
        };
        let mut result = work(active);
        if result.is_ok() && self.transport_reset {
            result = active.send_event().map(|sent| self.transport_reset = !sent);
        }
        let mut interrupt = false;
        for queue in &mut active.queues {
            interrupt |= queue.needs_interrupt();
        }
        if interrupt {
            active.link.used();
        }
        if result.is_err() {
            active.exchange.close();
            active.link.fail();
        }
    }
}

impl VirtioDevice for Vsock {
    fn identity(&self) -> Identity {
        Identity {
            kind: DeviceKind::Socket,
            features: spec::FEATURE_STREAM,
            queue_sizes: vec![QUEUE_SIZE; 3],
            // Section 5.10.4: guest_cid, and nothing else.
            config: ConfigSpace::read_only(self.cid.to_le_bytes().to_vec()),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { mut queues, link, reactor, .. } = activation;
        let exchange = Exchange::new(self.cid, Arc::clone(&self.listener), reactor).map_err(|source| {
            DeviceError { what: "the vsock socket cannot be waited for".to_owned(), source }
        })?;
        // Of buffers for packets and events the driver need speak only when they are missed.
        for queue in &mut queues {
            queue.disable_notification();
        }
        self.active = Some(Active {
            queues,
            link,
            exchange,
            chain: Chain::new(),
            run: vec![Chain::new(); exchange::RUN],
            lengths: Vec::new(),
            held: false,
        });
        self.act(Active::serve_guest);
        Ok(())
    }

    fn queue_event(&mut self, queue: usize) {
        match queue {
            spec::RX => self.act(Active::send_packets),
            spec::TX => self.act(Active::serve_guest),
            _ => self.act(|_| Ok(())),
        }
    }

    fn backend_event(&mut self, token: u32) {
        self.act(|active| {
            if active.link.failed() {
                return Ok(());
            }
            if token == TIMER {
                active.exchange.tick(Instant::now());
            } else {
                active.exchange.host_event(token);
            }
            active.send_packets()
        });
    }

    fn reset(&mut self) -> Progress {
        if let Some(mut active) = self.active.take() {
            active.exchange.close();
        }
        self.transport_reset = false;
        Progress::Done
    }

    fn queues(&self) -> &[Queue] {
        self.active.as_ref().map(|active| active.queues.as_slice()).unwrap_or_default()
    }
}

impl Active {
    /// Takes what the guest has sent, and answers.
    fn serve_guest(&mut self) -> Result<(), QueueError> {
        self.receive_packets()?;
        self.send_packets()
    }

    /// Takes packets from the guest.
    fn receive_packets(&mut self) -> Result<(), QueueError> {
        let Some(queue) = self.queues.get_mut(spec::TX) else {
            return Ok(());
        };
        queue.disable_notification();
        for turn in 0.. {
            // Section 5.10.6.1: without room for answers, packets have to wait.
            self.held = self.exchange.congested();
            if self.held {
                break;
            }
            if turn == BATCH {
                self.link.look_again(spec::TX);
                break;
            }
            if queue.pop(&mut self.chain)? {
                if !self.exchange.receive(queue.memory(), &self.chain) {
                    self.link.fault();
                }
                queue.add_used(self.chain.head(), 0);
            } else if queue.enable_notification() {
                queue.disable_notification();
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Sends packets to the guest, one of each connection in turn, as long as it has buffers.
    fn send_packets(&mut self) -> Result<(), QueueError> {
        let Some(queue) = self.queues.get_mut(spec::RX) else {
            return Ok(());
        };
        let mut sent = 0;
        while self.exchange.has_packets() {
            if sent >= BATCH {
                self.link.look_again(spec::RX);
                break;
            }
            let taken = take_buffers(queue, &mut self.run, self.exchange.appetite(), &self.link)?;
            sent += taken.max(1);
            if taken == 0 {
                if queue.enable_notification() {
                    continue;
                }
                break;
            }
            queue.disable_notification();
            let run = self.run.get(..taken).unwrap_or_default();
            self.lengths.clear();
            self.exchange.send(queue.memory(), run, &mut self.lengths);
            for (chain, &length) in run.iter().zip(&self.lengths) {
                queue.add_used(chain.head(), length);
            }
            for _ in self.lengths.len()..taken {
                queue.undo_pop();
            }
        }
        if self.held && !self.exchange.congested() {
            self.held = false;
            self.link.look_again(spec::TX);
        }
        Ok(())
    }

    /// Tells the guest that its connections are gone. `false` if it has no buffer for that.
    fn send_event(&mut self) -> Result<bool, QueueError> {
        let Some(queue) = self.queues.get_mut(spec::EVENT) else {
            return Ok(false);
        };
        for _ in 0..BATCH {
            if !queue.pop(&mut self.chain)? {
                if queue.enable_notification() {
                    continue;
                }
                break;
            }
            let event = spec::EVENT_TRANSPORT_RESET.to_le_bytes();
            let sent = self.chain.write_at(queue.memory(), 0, &event);
            queue.add_used(self.chain.head(), if sent { event.len() as u32 } else { 0 });
            if sent {
                queue.disable_notification();
                return Ok(true);
            }
            self.link.fault();
        }
        Ok(false)
    }
}

/// Takes up to `wanted` buffers for packets out of `queue` into `run`. One without room goes back at once, and ends it.
fn take_buffers(
    queue: &mut Queue,
    run: &mut [Chain],
    wanted: usize,
    link: &Link,
) -> Result<usize, QueueError> {
    let mut taken = 0;
    while let Some(chain) = run.get_mut(taken).filter(|_| taken < wanted)
        && queue.pop(chain)?
    {
        if payload_room(chain) > 0 {
            taken += 1;
            continue;
        }
        if taken == 0 {
            link.fault();
            queue.add_used(chain.head(), 0);
        } else {
            // Others may be put back, and that is done in order.
            queue.undo_pop();
        }
        break;
    }
    Ok(taken)
}
