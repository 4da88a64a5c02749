//! mote in the hands of an attacker: at SIGUSR2, the thread that takes the signal makes a hostile system call.
//!
//! All else is mote's own, its command line and the filters of its threads included, so each call is made by a thread
//! that has served a guest until then. Which call, a line on standard input says. With `list` as its only argument
//! the program says what it can do: the call's name, a tab, and what the try is called.
#![expect(unsafe_code, reason = "an attacker calls the kernel directly")]

mod tries;

use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::OnceLock;

use tries::{TRIES, Try};

/// A try that no filter has stopped, and that the kernel has let be.
const ESCAPED: i32 = 90;
/// One that no filter has stopped, but something else has.
const STOPPED: i32 = 91;
/// There is no such try.
const UNKNOWN: u8 = 92;

static CHOSEN: OnceLock<&Try> = OnceLock::new();

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == "list") {
        TRIES.iter().for_each(|one| println!("{}\t{}", one.call, one.name));
        return ExitCode::SUCCESS;
    }
    let name = first_line();
    let Some(chosen) = TRIES.iter().find(|one| one.name == name) else { return UNKNOWN.into() };
    CHOSEN.get_or_init(|| chosen);
    if let Err(error) = wait_for_signal() {
        eprintln!("SIGUSR2: {error}");
        return ExitCode::FAILURE;
    }
    vmm::cli::main()
}

/// Not a byte more, as what follows is the guest's.
fn first_line() -> String {
    let bytes = io::stdin().lock().bytes().map_while(Result::ok).take_while(|&byte| byte != b'\n');
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

fn wait_for_signal() -> io::Result<()> {
    let handler = attack as extern "C" fn(libc::c_int) as *const () as libc::sighandler_t;
    // SAFETY: the handler has the signature of one, and does nothing but system calls.
    match unsafe { libc::signal(libc::SIGUSR2, handler) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Ends the process, whatever becomes of the call.
extern "C" fn attack(_: libc::c_int) {
    let stopped = CHOSEN.get().is_some_and(|chosen| (chosen.run)() < 0);
    let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if stopped {
        // Two digits say which error it was.
        let digits =
            [b'0' + u8::try_from(error / 10 % 10).unwrap_or(0), b'0' + u8::try_from(error % 10).unwrap_or(0)];
        let _ = rustix::io::write(rustix::stdio::stderr(), &digits);
    }
    // SAFETY: ends the process, and needs nothing for it.
    unsafe { libc::_exit(if stopped { STOPPED } else { ESCAPED }) }
}
