//! The terminal in raw mode, and back.
#![expect(
    unsafe_code,
    reason = "rustix has no process group 0, which is what one outside our PID namespace has"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, TryLockError};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// What has to be put back; here so that a panic's hook finds it too.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The terminal is in raw mode while this lives: each key goes to the guest, Ctrl-C included.
pub struct RawTerminal(());

impl RawTerminal {
    /// Switches stdin's terminal to raw mode. `None` where stdin is no terminal, or not ours to use.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) || !is_ours(stdin.as_fd()) {
            return Ok(None);
        }
        let saved = tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        // A guest without a terminal driver of its own ends its lines with a line feed alone, as any program does.
        raw.output_modes = saved.output_modes;
        *lock() = Some((stdin.as_fd().try_clone_to_owned()?, saved));
        let terminal = Self(());
        // Panics abort, without unwinding: the hook is what runs.
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            default_hook(info);
        }));
        // Not "when the output has drained": that is never, on a terminal that nobody reads.
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(terminal))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether this process may read and change a terminal. A background job may not: the kernel would stop it (SIGTTIN,
/// SIGTTOU), and with it the machine and all its time limits.
pub fn is_ours(terminal: BorrowedFd<'_>) -> bool {
    // SAFETY: only asks; a descriptor that is no terminal is an error.
    let foreground = unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) };
    if foreground < 0 {
        // On a terminal that does not control our session there is no job control.
        return io::Error::last_os_error().raw_os_error() == Some(libc::ENOTTY);
    }
    // Asked once: a seccomp filter forbids it later, and a shell moves a process to its group before the program starts.
    static GROUP: OnceLock<libc::pid_t> = OnceLock::new();
    // SAFETY: only asks, and cannot fail.
    foreground == *GROUP.get_or_init(|| unsafe { libc::getpgrp() })
}

/// Puts the terminal back as it was found, in a signal handler, by ioctls only.
pub(crate) fn restore_in_handler() {
    // Somebody who has the lock is restoring, or has not changed anything yet.
    let saved = match SAVED.try_lock() {
        Ok(saved) => saved,
        Err(TryLockError::Poisoned(saved)) => saved.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    if let Some((terminal, saved)) = &*saved
        && is_ours(terminal.as_fd())
    {
        let _ = tcsetattr(terminal, OptionalActions::Now, saved);
    }
}

/// Puts the terminal back as it was found. A second call does nothing.
fn restore() {
    if let Some((terminal, saved)) = lock().take()
        // In the background, the shell has put it back already.
        && is_ours(terminal.as_fd())
    {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(terminal, OptionalActions::Now, &saved);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<(OwnedFd, Termios)>> {
    SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
