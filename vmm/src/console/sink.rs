//! Stdout, written without ever waiting for its reader; stderr, without waiting for long.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::SendFlags;

/// A pipe that polls writable takes this much without waiting (pipe(7), PIPE_BUF).
const PIPE_BUF: usize = 4096;
/// A terminal that polls writable takes one byte; how many more, it does not say.
const TERMINAL_BUF: usize = 1;
/// How long the reader of stderr may take.
const PATIENCE: Duration = Duration::from_millis(50);

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
    /// One that could not be opened again: ask before each write, of at most so much.
    Ask(usize),
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
            FileType::Fifo => return Ok(Self::reopen(fd, PIPE_BUF)),
            FileType::CharacterDevice => return Ok(Self::reopen(fd, TERMINAL_BUF)),
            FileType::Socket => Kind::Socket,
            _ => Kind::File,
        };
        Ok(Self { fd, kind })
    }

    /// Fails where the terminal or pipe belongs to another user (after `sudo -u`, say), or /proc is not mounted.
    fn reopen(fd: OwnedFd, at_once: usize) -> Self {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(own) => Self { fd: own, kind: Kind::NonBlocking },
            Err(_) => Self { fd, kind: Kind::Ask(at_once) },
        }
    }

    /// Writes what can be written now. `WouldBlock` where that is nothing.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.kind {
            Kind::File | Kind::NonBlocking => rustix::io::write(&self.fd, bytes),
            Kind::Socket => rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Kind::Ask(_) if !self.writable_within(Duration::ZERO) => Err(rustix::io::Errno::AGAIN),
            Kind::Ask(at_once) => rustix::io::write(&self.fd, &bytes[..bytes.len().min(at_once)]),
        };
        written.map_err(io::Error::from)
    }

    /// Whether [`write`](Self::write) is one system call, write(2), and never waits for a reader.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self.kind, Kind::File | Kind::NonBlocking)
    }

    /// Waits until something can be written, `other` can be read, or `deadline` passes.
    pub(crate) fn wait_writable(&self, other: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// `time` is less than a second.
    fn writable_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        matches!(poll(&mut fds, Some(&time)), Ok(ready) if ready > 0)
    }
}

/// Stderr, once it was opened for good.
static STDERR: OnceLock<Sink> = OnceLock::new();

fn open_stderr() -> io::Result<Sink> {
    Sink::new(io::stderr().as_fd().try_clone_to_owned()?)
}

/// Opens stderr for a time when it cannot be opened any more. Returns it where a write to it is one system call that
/// waits for nobody.
pub(crate) fn prepare_to_tell() -> io::Result<Option<BorrowedFd<'static>>> {
    let sink = match STDERR.get() {
        Some(sink) => sink,
        None => {
            let sink = open_stderr()?;
            STDERR.get_or_init(|| sink)
        }
    };
    Ok(sink.is_direct().then(|| sink.as_fd()))
}

/// Says something to people, on stderr. Where nobody reads, or nobody is there, it is lost: a log line must
/// not hold up the machine, nor the last message the exit code.
pub fn tell(text: &str) {
    match STDERR.get() {
        Some(sink) => tell_on(sink, text),
        None => drop(open_stderr().map(|sink| tell_on(&sink, text))),
    }
}

fn tell_on(sink: &Sink, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !sink.writable_within(left) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
