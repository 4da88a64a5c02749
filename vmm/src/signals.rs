//! The signals that end a machine, as a descriptor for the event loop.
#![expect(unsafe_code, reason = "signalfd and sigaction have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use vmm_sys_util::signal::{block_signal, create_sigset};

/// The signals that mote acts on.
const HANDLED: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT, blocked and readable here instead.
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Takes the signals over. To be called before any thread is started: threads inherit the mask.
    ///
    /// A signal that the parent process ignores (nohup, a background job of a script) stays ignored.
    pub fn take_over() -> io::Result<Self> {
        let wanted: Vec<libc::c_int> = HANDLED.into_iter().filter(|&signal| !ignored(signal)).collect();
        for &signal in &wanted {
            // The only other failure is that it is blocked already, as in a second machine of one process.
            if let Err(vmm_sys_util::signal::Error::BlockSignal(errno)) = block_signal(signal) {
                return Err(io::Error::from_raw_os_error(errno.errno()));
            }
        }
        let set = create_sigset(&wanted).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        // SAFETY: `set` is a valid signal set, and -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal that has arrived.
    pub fn next(&self) -> Option<u8> {
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        let length = rustix::io::read(&self.fd, &mut record).ok()?;
        // ssi_signo is the record's first field (signalfd(2)).
        let number = record.first_chunk::<4>().filter(|_| length == record.len())?;
        u8::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn ignored(signal: libc::c_int) -> bool {
    // SAFETY: sigaction is a C struct for which all zeroes is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks; `action` is valid for the answer.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}
