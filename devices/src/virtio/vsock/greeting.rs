//! The line with which a host program asks for a guest's port: `CONNECT <port>`.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::net::{RecvFlags, recv};

/// The longest line that is read, its end included; one with the longest port has 20 bytes.
const MAX_LINE: usize = 32;

/// VMADDR_PORT_ANY is no port.
const ANY_PORT: u32 = u32::MAX;

/// A line that is being read.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    line: [u8; MAX_LINE],
    length: usize,
}

/// How far a greeting has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Greeted {
    /// The line goes on.
    NotYet,
    /// The host program wants this port of the guest's.
    Port(u32),
    /// This is no greeting.
    Garbage,
}

impl Greeting {
    /// Reads on. What comes after the line stays in the socket: it is the guest's.
    pub(super) fn read(&mut self, socket: BorrowedFd<'_>) -> Greeted {
        let Some(room) = self.line.get_mut(self.length..) else {
            return Greeted::Garbage;
        };
        let seen = match recv(socket, &mut *room, RecvFlags::PEEK) {
            Ok((0, _)) => return Greeted::Garbage,
            Ok((seen, _)) => seen.min(room.len()),
            Err(error) => return would_block(&error.into()),
        };
        let end = room.iter().take(seen).position(|&byte| byte == b'\n');
        let wanted = end.map_or(seen, |end| end + 1).min(room.len());
        match recv(socket, &mut room[..wanted], RecvFlags::empty()) {
            // Nobody else reads from this socket.
            Ok((got, _)) if got == wanted => self.length += got,
            Ok(_) => return Greeted::Garbage,
            Err(error) => return would_block(&error.into()),
        }
        let line = self.line.get(..self.length).unwrap_or_default();
        match line.split_last() {
            Some((b'\n', line)) => parse(line).map_or(Greeted::Garbage, Greeted::Port),
            _ if self.length == MAX_LINE => Greeted::Garbage,
            _ => Greeted::NotYet,
        }
    }
}

fn would_block(error: &io::Error) -> Greeted {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Greeted::NotYet,
        _ => Greeted::Garbage,
    }
}

/// The port in a line without its end.
pub(super) fn parse(line: &[u8]) -> Option<u32> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = std::str::from_utf8(line).ok()?.split(' ').filter(|word| !word.is_empty());
    let (verb, port) = (words.next()?, words.next()?);
    let sound = verb.eq_ignore_ascii_case("CONNECT")
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && words.next().is_none();
    let port = port.parse().ok().filter(|&port| port != ANY_PORT);
    if sound { port } else { None }
}
