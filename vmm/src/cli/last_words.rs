//! What is written where a system call outside the seccomp filter, or a bug of mote's own, ends the process.
#![expect(unsafe_code, reason = "a signal handler has descriptors as numbers only")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::console;
use crate::outcome::{EXIT_ERROR, Ending, Outcome};

#[cfg(test)]
mod tests;

/// No descriptor.
const NONE: RawFd = -1;

/// Where messages go.
static STDERR: AtomicI32 = AtomicI32::new(NONE);
/// `--result`.
static RESULT: AtomicI32 = AtomicI32::new(NONE);

/// Lets a violation be reported, and a panic: as a line on stderr, as an object in `result`, which must stay
/// open. Puts the terminal back.
pub(super) fn prepare(result: Option<&File>) -> io::Result<()> {
    let number = |fd: Option<RawFd>| fd.unwrap_or(NONE);
    // A stderr that could make the handler wait for its reader is done without: the exit code says enough.
    STDERR.store(number(console::prepare_to_tell()?.map(|fd| fd.as_raw_fd())), Ordering::Relaxed);
    RESULT.store(number(result.map(AsRawFd::as_raw_fd)), Ordering::Relaxed);
    std::panic::set_hook(Box::new(panicked));
    jailer::seccomp::on_violation(say)
}

/// Ends the process as a host's error does: what abort(3) would do is more than a confined thread may.
fn panicked(info: &PanicHookInfo<'_>) {
    let reason = format!("mote has a bug, please report it: {info}").replace('\n', " ");
    super::say(&format!("error: {reason}"));
    let ending = serde_json::to_string(&Ending::new(Outcome::Error, reason));
    write(&RESULT, &[&ending.unwrap_or_default(), "\n"]);
    std::process::exit(EXIT_ERROR.into());
}

/// In a signal handler: takes no lock, allocates nothing, and `reason` needs no escapes in JSON.
fn say(reason: &str) {
    console::restore_in_handler();
    write(&STDERR, &["mote: ", reason, "\n"]);
    // Which status the guest has reported is not known here.
    let head = "{\"outcome\":\"seccomp\",\"guest_status\":null,\"reason\":\"";
    write(&RESULT, &[head, reason, "\"}\n"]);
}

fn write(target: &AtomicI32, parts: &[&str]) {
    let fd = target.load(Ordering::Relaxed);
    if fd == NONE {
        return;
    }
    // SAFETY: stderr's descriptor is never closed, and that of the result only at the very end of a run, where a
    // failing write is the worst that can come of it.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    for part in parts {
        // What cannot be written is lost.
        let _ = rustix::io::write(fd, part.as_bytes());
    }
}
