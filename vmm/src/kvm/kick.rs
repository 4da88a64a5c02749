//! Getting a vCPU thread out of KVM_RUN.
//!
//! A signal alone is a race: it may arrive after the thread has looked for orders and before it enters
//! KVM_RUN, and would then be lost. So the handler sets `kvm_run.immediate_exit` of the thread that it
//! interrupts (KVM API, section 5, "immediate_exit"): KVM_RUN then returns EINTR at once, whenever the signal came.
#![expect(unsafe_code, reason = "a signal handler, and the one byte it writes in kvm_run")]

use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

thread_local! {
    /// `immediate_exit` of the vCPU that runs on this thread; null elsewhere.
    static IMMEDIATE_EXIT: Cell<*const AtomicU8> = const { Cell::new(std::ptr::null()) };
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: non-null only between `Armed::new` and its drop, on this very thread, while the mapping lives.
        unsafe { (*flag).store(1, Ordering::Relaxed) };
    }
}

/// Installs the handler, once for the process, and lets the signal through: a parent may have left it blocked, and
/// threads inherit that.
pub fn install_kick_handler() -> std::io::Result<()> {
    // A failure means a set of signals that cannot be: that of one signal can.
    let _ = unblock_signal(SIGRTMIN());
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        result = register_signal_handler(SIGRTMIN(), on_kick)
            .map_err(|error| std::io::Error::from_raw_os_error(error.errno()));
    });
    result
}

/// A thread, for [`kick`]s. Kicking it is one system call, unlike pthread_kill(3).
#[derive(Default)]
pub struct Kickable {
    process: AtomicI32,
    thread: AtomicI32,
}

impl Kickable {
    /// It is the calling thread. To be called before that looks for orders for the first time.
    pub fn set_current(&self) {
        self.process.store(std::process::id().cast_signed(), Ordering::SeqCst);
        // Not libc's: std knows that as a weak symbol, which a static link may leave without a function.
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::SeqCst);
    }
}

/// Makes the vCPU thread leave KVM_RUN, now or as soon as it would enter it.
pub fn kick(target: &Kickable) {
    let (process, thread) = (target.process.load(Ordering::SeqCst), target.thread.load(Ordering::SeqCst));
    // One that is not there yet will look for orders before it enters the guest.
    if thread != 0 {
        // SAFETY: a signal to a thread of this process, which has a handler for it. The only failure is a thread that
        // has ended, which needs no kick.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGRTMIN()) };
    }
}

/// While it lives, kicks to this thread reach the vCPU whose `kvm_run` it was made from.
pub(crate) struct Armed {
    flag: *const AtomicU8,
}

impl Armed {
    /// Arms the calling thread. The caller keeps the vCPU's mapping alive for as long as the result.
    pub(super) fn new(run: &mut kvm_run) -> Self {
        let flag = std::ptr::from_mut(&mut run.immediate_exit).cast::<AtomicU8>().cast_const();
        IMMEDIATE_EXIT.set(flag);
        Self { flag }
    }

    /// Forgets earlier kicks. To be called before the caller looks for orders, so that none is lost.
    pub(crate) fn clear(&self) {
        // SAFETY: the mapping outlives self (contract of `new`); a u8 may always be read as an AtomicU8.
        unsafe { (*self.flag).store(0, Ordering::Relaxed) };
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(std::ptr::null());
    }
}
