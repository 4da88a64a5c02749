//! The process that stays outside: it hears how the jail is getting on, passes on signals, and knows how it ended.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Signal, WaitId, WaitIdOptions, pidfd_send_signal, set_parent_process_death_signal, waitid,
};

use super::error::{JailError, cannot, error_line};
use super::sys::{Child, TakenSignals};

/// What is passed on.
const SIGNALS: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// The way news take from a new process to the one that made it: an error, or the end, which an exec is too.
pub(super) struct News {
    hear: OwnedFd,
    tell: OwnedFd,
}

impl News {
    pub(super) fn new() -> Result<Self, JailError> {
        let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(cannot("make a pipe"))?;
        Ok(Self { hear, tell })
    }

    /// In the new process: the side that tells.
    pub(super) fn teller(self) -> Teller {
        Teller { tell: self.tell }
    }

    /// In the old one: waits for the end, and gives what was said before it.
    pub(super) fn listen(self) -> Result<(), JailError> {
        drop(self.tell);
        let mut text = String::new();
        File::from(self.hear).read_to_string(&mut text).map_err(cannot("hear from the new process"))?;
        if text.is_empty() { Ok(()) } else { Err(JailError::Inside(text)) }
    }
}

/// The side that tells.
pub(super) struct Teller {
    tell: OwnedFd,
}

impl Teller {
    /// Whoever listens is told.
    pub(super) fn fail(self, error: &JailError) {
        // Nobody listens any more: nobody is left to tell.
        let _ = File::from(self.tell).write_all(error_line(error).as_bytes());
    }

    /// Makes this process end with its keeper. Asked for again after a change of user, which revokes it.
    pub(super) fn end_with_keeper(&self) -> Result<(), JailError> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(cannot("tie the jail's life to its keeper's"))?;
        // It may have ended before. Then nobody holds the pipe's other side.
        let mut fds = [PollFd::new(&self.tell, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default())).map_err(cannot("look for the keeper"))?;
        match fds[0].revents().contains(PollFlags::ERR) {
            true => Err(JailError::Refused("the keeper has ended".to_owned())),
            false => Ok(()),
        }
    }
}

/// The signals that are to be passed on, from now on.
pub(super) struct Signals(TakenSignals);

impl Signals {
    pub(super) fn take_over() -> Result<Self, JailError> {
        TakenSignals::new(&SIGNALS).map(Self).map_err(cannot("take over the signals"))
    }

    /// In the jail: the program gets them itself.
    pub(super) fn give_back(&self) -> Result<(), JailError> {
        self.0.give_back().map_err(cannot("give back the signals"))
    }

    /// Waits until `child` has ended and gives its exit code, or 128 + the signal that ended it.
    pub(super) fn wait_for(&self, child: &Child) -> io::Result<u8> {
        loop {
            let mut fds = [PollFd::new(&child.pidfd, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            while let Some(arrived) = self.0.next() {
                // The terminal has sent it to the jail too.
                if !arrived.from_terminal {
                    pass_on(child, arrived.signal);
                }
            }
            let Some(status) =
                waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?
            else {
                continue;
            };
            let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
            return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
        }
    }
}

/// After the news have ended: that was not because the new process was killed.
pub(super) fn check_alive(child: &Child) -> Result<(), JailError> {
    let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        .map_err(cannot("look for the keeper"))?;
    match status.and_then(|status| status.terminating_signal()) {
        Some(signal) => Err(JailError::Refused(format!("the keeper was ended by signal {signal}"))),
        None => Ok(()),
    }
}

/// Ends `child` at once and waits for that.
pub(super) fn end(child: &Child) {
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    let mut fds = [PollFd::new(&child.pidfd, PollFlags::IN)];
    let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
    let _ = poll(&mut fds, Some(&patience));
    let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

fn pass_on(child: &Child, signal: i32) {
    // It may have ended meanwhile.
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = pidfd_send_signal(&child.pidfd, signal);
    }
}
