//! The end of a process that has made a system call outside its filter.
#![expect(unsafe_code, reason = "a signal handler, and the kernel's record of what happened")]

use std::cell::Cell;
use std::fmt::{self, Write};
use std::io;
use std::sync::OnceLock;

use syscalls::Sysno;

use super::Thread;

/// The exit code of a process that made a system call outside its filter.
pub const EXIT_CODE: u8 = 4;

/// `si_code` of a SIGSYS that a filter has raised (asm-generic/siginfo.h).
const SYS_SECCOMP: libc::c_int = 1;
/// `si_arch` of a 64-bit call (linux/audit.h): EM_X86_64, 64 bits, little-endian.
const AUDIT_ARCH_X86_64: u32 = 62 | 0x8000_0000 | 0x4000_0000;

/// The longest sentence about a violation, in bytes.
const SENTENCE: usize = 160;

/// Says the sentence.
static SAY: OnceLock<fn(&str)> = OnceLock::new();

thread_local! {
    /// What this thread was when it installed its filter. Has no destructor, and so no first use that allocates.
    static THREAD: Cell<Option<Thread>> = const { Cell::new(None) };
}

/// A SIGSYS: siginfo_t with `_sigsys` of its union (asm-generic/siginfo.h), on 64-bit machines.
#[repr(C)]
struct Violation {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    padding: libc::c_int,
    address: *const libc::c_void,
    number: libc::c_int,
    architecture: u32,
}

/// Has `say` told of a violation, in one sentence without anything that JSON would escape, before the process
/// ends with [`EXIT_CODE`]. `say` runs in a signal handler, under the filter of its thread: it may only do
/// what is safe there (signal-safety(7)).
///
/// To be called before any thread is started, which inherits that the signal is let through.
///
/// # Errors
/// When the handler cannot be installed.
pub fn on_violation(say: fn(&str)) -> io::Result<()> {
    let _ = SAY.set(say);
    // SAFETY: sigaction is a C struct for which all zeroes is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for; a null old action is not wanted.
    check(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) })?;
    let mut set = action.sa_mask;
    // SAFETY: the set is a valid one, and ours.
    check(unsafe { libc::sigaddset(&raw mut set, libc::SIGSYS) })?;
    // SAFETY: as above; a null old set is not wanted.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The calling thread is one of these from now on.
pub(super) fn name_thread(thread: Thread) {
    THREAD.set(Some(thread));
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo_t, which is larger than what is read here, and as aligned.
    let violation = unsafe { &*info.cast::<Violation>().cast_const() };
    if violation.code != SYS_SECCOMP {
        // Somebody sent the signal.
        end(128 + libc::SIGSYS);
    }
    if violation.resumes() && THREAD.get() == Some(Thread::Vcpu) {
        // SAFETY: with SA_SIGINFO the kernel passes a ucontext_t, which is this handler's own until it returns.
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        interrupt(context);
        return;
    }
    if let Some(say) = SAY.get() {
        let mut sentence = Sentence::default();
        // What does not fit is left out.
        let _ = write!(sentence, "{violation}");
        say(sentence.as_str());
    }
    end(EXIT_CODE.into());
}

/// Answers the call as any signal would have done: whoever waits goes on by himself. Of the threads only
/// those of virtual CPUs wait with a time limit in futex(2), and only they may return from a signal handler.
fn interrupt(context: &mut libc::ucontext_t) {
    if let Some(result) = context.uc_mcontext.gregs.get_mut(libc::REG_RAX as usize) {
        *result = -i64::from(libc::EINTR);
    }
}

fn end(code: libc::c_int) -> ! {
    // SAFETY: ends the process, and needs nothing for it.
    unsafe { libc::_exit(code) }
}

impl Violation {
    /// Whether the kernel itself makes the call, to go on with a wait that has a time limit after the process
    /// was stopped (SIGSTOP, a debugger, the freezer of a cgroup).
    fn resumes(&self) -> bool {
        self.architecture == AUDIT_ARCH_X86_64 && self.number == Sysno::restart_syscall.id()
    }

    fn name(&self) -> Option<&'static str> {
        let number = usize::try_from(self.number).ok().filter(|_| self.architecture == AUDIT_ARCH_X86_64)?;
        Sysno::new(number).map(|call| call.name())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = THREAD.get().map_or("unnamed", Thread::name);
        let (number, name) = (self.number, self.name().unwrap_or("of no known name"));
        write!(f, "seccomp: the {thread} thread made system call {number} ({name}), which its filter forbids")
    }
}

/// Text that is written without allocating.
struct Sentence {
    bytes: [u8; SENTENCE],
    length: usize,
}

impl Default for Sentence {
    fn default() -> Self {
        Self { bytes: [0; SENTENCE], length: 0 }
    }
}

impl Sentence {
    fn as_str(&self) -> &str {
        let written = self.bytes.get(..self.length).unwrap_or_default();
        // Only whole strings were written.
        std::str::from_utf8(written).unwrap_or_default()
    }
}

impl Write for Sentence {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
