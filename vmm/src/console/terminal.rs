//! The terminal in raw mode, and back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};

/// What has to be put back; here so that a panic's hook finds it too.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The terminal is in raw mode while this lives: each key goes to the guest, Ctrl-C included.
pub struct RawTerminal(());

impl RawTerminal {
    /// Switches stdin's terminal to raw mode. `None` where stdin is no terminal, or not ours to read (a background
    /// job that touches its terminal is stopped by the kernel).
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) || tcgetpgrp(&stdin).ok() != Some(rustix::process::getpgrp()) {
            return Ok(None);
        }
        let saved = tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        *lock() = Some((stdin.as_fd().try_clone_to_owned()?, saved));
        let terminal = Self(());
        // Panics abort, without unwinding: the hook is what runs.
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            default_hook(info);
        }));
        tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(terminal))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was found. A second call does nothing.
fn restore() {
    if let Some((terminal, saved)) = lock().take() {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(terminal, OptionalActions::Now, &saved);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<(OwnedFd, Termios)>> {
    SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
