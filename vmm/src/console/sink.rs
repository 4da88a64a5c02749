//! Stdout, written without ever waiting for its reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::SendFlags;

/// A pipe that polls writable takes this much without waiting (pipe(7), PIPE_BUF).
const PIPE_BUF: usize = 4096;

/// Where the console's output goes.
pub struct Sink {
    fd: OwnedFd,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file: a write takes as long as it takes, but there is no reader to wait for.
    File,
    /// A pipe or terminal of our own open file description, which is non-blocking.
    NonBlocking,
    /// One that could not be opened again: ask before each write.
    Ask,
    /// A socket: each send says that it must not wait.
    Socket,
}

impl Sink {
    /// Takes over `fd`, usually a duplicate of stdout.
    ///
    /// O_NONBLOCK belongs to the open file description, which stdout shares with the shell that started us and with
    /// everything else on that terminal. So the pipe or terminal is opened again instead of being changed.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let file_type = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        let kind = match file_type {
            FileType::Fifo | FileType::CharacterDevice => return Ok(Self::reopen(fd)),
            FileType::Socket => Kind::Socket,
            _ => Kind::File,
        };
        Ok(Self { fd, kind })
    }

    fn reopen(fd: OwnedFd) -> Self {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(own) => Self { fd: own, kind: Kind::NonBlocking },
            Err(_) => Self { fd, kind: Kind::Ask },
        }
    }

    /// Writes what can be written now. `WouldBlock` where that is nothing.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.kind {
            Kind::File | Kind::NonBlocking => rustix::io::write(&self.fd, bytes),
            Kind::Socket => rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Kind::Ask if !self.writable() => Err(rustix::io::Errno::AGAIN),
            Kind::Ask => rustix::io::write(&self.fd, &bytes[..bytes.len().min(PIPE_BUF)]),
        };
        written.map_err(io::Error::from)
    }

    fn writable(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
