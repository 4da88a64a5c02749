//! The host's side: the Unix socket that host programs connect to, and those of host programs that the guest connects
//! to. Nothing here waits.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, send, shutdown, socket_with,
};
use vm_memory::GuestMemoryMmap;

use super::VsockError;
use super::packet::Header;
use crate::virtio::io::Vectors;
use crate::virtio::{Chain, Interest, Reactor, Segment, cut};

/// The longest path of a Unix socket in bytes, without its final zero.
const MAX_PATH: usize = 107;
/// Room for `_` and the largest port.
const MAX_SUFFIX: usize = "_4294967295".len();

/// Host programs that may wait to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 1024;

/// Largest payload of one packet to the guest.
const MAX_PAYLOAD: usize = 64 << 10;

/// The socket that host programs connect to. Dropping it removes its file.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of its file.
    identity: Option<(u64, u64)>,
}

impl Listener {
    pub(super) fn bind(path: PathBuf) -> Result<Self, VsockError> {
        if path.as_os_str().as_bytes().len() + MAX_SUFFIX > MAX_PATH {
            return Err(VsockError::PathTooLong { path, limit: MAX_PATH - MAX_SUFFIX });
        }
        let fd = match stream().and_then(|fd| {
            bind(&fd, &SocketAddrUnix::new(&path)?)?;
            Ok(fd)
        }) {
            Ok(fd) => fd,
            Err(error) => return Err(VsockError::bind(path, error)),
        };
        let identity = identity(&path);
        let listener = Self { fd, path, identity };
        match listen(&listener.fd, BACKLOG) {
            Ok(()) => Ok(listener),
            Err(error) => Err(VsockError::bind(listener.path.clone(), error.into())),
        }
    }

    /// The next host program that wants a connection.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        let fd = accept_with(&self.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        Ok(Socket::new(fd))
    }

    /// Where the host program that serves `port` listens.
    pub(super) fn address_of(&self, port: u32) -> io::Result<SocketAddrUnix> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        Ok(SocketAddrUnix::new(path)?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have put another file there, which is theirs.
        if self.identity.is_some() && self.identity == identity(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Whether an error says to try again when the socket is ready.
pub(super) fn not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// A connection to a host program.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    /// What the guest has sent and the host program has not taken yet.
    outbox: VecDeque<u8>,
    watched: Option<Interest>,
    reading: Reading,
    /// There was more to read than there was room for.
    flows: bool,
    /// The guest sends no more: shut the socket when the outbox is empty.
    ends: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reading {
    /// There was nothing to read.
    Waits,
    /// There is something to read, and nobody to take it yet.
    Ready,
    /// The same, and for so long that it is not watched any more.
    Stalled,
    /// Nothing more is read.
    Ended,
    /// Nor does the host program take anything.
    HungUp,
}

impl Socket {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            outbox: VecDeque::new(),
            watched: None,
            reading: Reading::Waits,
            flows: false,
            ends: false,
        }
    }

    /// One that is to be [`connect`](Self::connect)ed.
    pub(super) fn unconnected() -> io::Result<Self> {
        stream().map(Self::new)
    }

    /// Connects at once, or fails: with `WouldBlock` where too many others wait to be accepted.
    pub(super) fn connect(&self, address: &SocketAddrUnix) -> io::Result<()> {
        Ok(connect(&self.fd, address)?)
    }

    /// Whether there may be something to read.
    pub(super) fn readable(&self) -> bool {
        matches!(self.reading, Reading::Ready | Reading::Stalled)
    }

    /// Whether the host program has something left to take.
    pub(super) fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The descriptor is ready for something. Whoever is told that there is something to read twice without reading
    /// is told no more until everything is read.
    pub(super) fn announce(&mut self) {
        self.reading = match self.reading {
            Reading::Waits => Reading::Ready,
            Reading::Ready => Reading::Stalled,
            Reading::Ended if self.hung_up() => Reading::HungUp,
            other => other,
        };
    }

    /// Whether nothing can be sent to or received from the host program any more.
    pub(super) fn is_gone(&self) -> bool {
        self.reading == Reading::HungUp
    }

    /// Whether there was so much to read the last time that more room would have helped.
    pub(super) fn flows(&self) -> bool {
        self.flows
    }

    /// Reads at most `limit` bytes into the guest's memory: into the payload of `chains`, one after the other. `None`
    /// if there is nothing to read; 0 is the end.
    pub(super) fn receive(
        &mut self,
        memory: &GuestMemoryMmap,
        chains: &[Chain],
        limit: usize,
        transfer: &mut Transfer,
    ) -> io::Result<Option<usize>> {
        transfer.segments.clear();
        let mut wanted = 0;
        for chain in chains {
            let room = payload_room(chain).min(limit - wanted);
            wanted += cut(chain.writable(), Header::SIZE, room, &mut transfer.segments);
        }
        let got = transfer.vectors.read(memory, &transfer.segments, self.fd.as_fd());
        self.flows = got.as_ref().is_ok_and(|&got| got == wanted);
        match got {
            Ok(0) => self.reading = if self.hung_up() { Reading::HungUp } else { Reading::Ended },
            // There may be more, but that will be announced.
            Ok(got) if got < wanted => self.reading = Reading::Waits,
            Ok(_) => {}
            Err(error) if not_now(&error) => {
                self.reading = Reading::Waits;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        got.map(Some)
    }

    /// Sends `len` bytes of the payload in `chain`. Returns how many the host program has taken; the others wait.
    pub(super) fn send(
        &mut self,
        memory: &GuestMemoryMmap,
        chain: &Chain,
        len: usize,
        transfer: &mut Transfer,
    ) -> io::Result<usize> {
        transfer.segments.clear();
        cut(chain.readable(), Header::SIZE, len, &mut transfer.segments);
        let taken = if self.has_outbox() || len == 0 {
            0
        } else {
            match transfer.vectors.write(memory, &transfer.segments, self.fd.as_fd()) {
                Ok(taken) => taken,
                Err(error) if not_now(&error) => 0,
                Err(error) => return Err(error),
            }
        };
        if taken < len {
            let mut rest = vec![0; len - taken];
            if chain.read_at(memory, Header::SIZE + taken, &mut rest) {
                self.outbox.extend(rest);
            }
        }
        Ok(taken)
    }

    /// Sends what waits, as far as possible. Returns how much the host program has taken.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let mut taken = 0;
        while self.has_outbox() {
            match send(&self.fd, self.outbox.as_slices().0, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.outbox.drain(..count);
                    taken += count;
                }
                Err(error) if not_now(&error.into()) => return Ok(taken),
                Err(error) => return Err(error.into()),
            }
        }
        if taken > 0 {
            self.outbox = VecDeque::new();
        }
        if self.ends {
            self.ends = false;
            // Fails where the host program is gone, which is found out otherwise.
            let _ = shutdown(&self.fd, Shutdown::Write);
        }
        Ok(taken)
    }

    /// Sends a line of our own, as the very first thing. `false` if the host program does not take it.
    pub(super) fn say(&self, line: &str) -> bool {
        send(&self.fd, line.as_bytes(), SendFlags::NOSIGNAL) == Ok(line.len())
    }

    /// The guest sends no more: once all is sent, the host program sees the end.
    pub(super) fn end_sending(&mut self) -> io::Result<usize> {
        self.ends = true;
        self.flush()
    }

    /// The guest receives no more: the host program cannot send any longer.
    pub(super) fn end_receiving(&mut self) {
        if self.reading != Reading::HungUp {
            self.reading = Reading::Ended;
        }
        let _ = shutdown(&self.fd, Shutdown::Read);
    }

    /// Drops what waits: the host program takes nothing any more.
    pub(super) fn discard(&mut self) {
        self.outbox = VecDeque::new();
    }

    /// Waits for what matters now.
    pub(super) fn watch(&mut self, reactor: &mut dyn Reactor, token: u32) -> io::Result<()> {
        let wanted = match (self.reading, self.has_outbox()) {
            (Reading::Waits | Reading::Ready, false) => Some(Interest::Read),
            (Reading::Waits | Reading::Ready, true) => Some(Interest::Both),
            (_, true) => Some(Interest::Write),
            // Only to learn of its end; that there is nothing to read need not be said again and again.
            (Reading::Ended, false) => Some(Interest::ReadEdge),
            (Reading::Stalled | Reading::HungUp, false) => None,
        };
        if wanted != self.watched {
            match wanted {
                Some(interest) => reactor.watch(self.fd.as_fd(), token, interest)?,
                None => reactor.unwatch(self.fd.as_fd()),
            }
            self.watched = wanted;
        }
        Ok(())
    }

    /// To be called before it is dropped.
    pub(super) fn unwatch(&mut self, reactor: &mut dyn Reactor) {
        if self.watched.take().is_some() {
            reactor.unwatch(self.fd.as_fd());
        }
    }

    fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::empty())];
        let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Room for moving payload between sockets and guest memory; holds nothing from call to call.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    vectors: Vectors,
    segments: Vec<Segment>,
}

/// How many bytes of payload fit into `chain` behind the header.
pub(super) fn payload_room(chain: &Chain) -> usize {
    chain.writable_length().saturating_sub(Header::SIZE).min(MAX_PAYLOAD)
}
