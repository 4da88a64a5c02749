//! The system calls that have no safe wrapper.
#![expect(unsafe_code, reason = "clone3, close_range, mount_setattr and signalfd have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use vmm_sys_util::signal::{Error as SignalError, block_signal, create_sigset, unblock_signal};

/// linux/sched.h; it does not fit into the c_int that libc has for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// One of the two that [`clone`] returns in.
pub(super) enum Cloned {
    /// The new process.
    Child,
    /// The one that called.
    Parent(Child),
}

/// A child, by number and by descriptor.
pub(super) struct Child {
    /// Its number in our PID namespace.
    pub pid: Pid,
    /// Refers to it, and to no later process of the same number.
    pub pidfd: OwnedFd,
}

/// A copy of this process, as fork makes it, in the new namespaces that `namespaces` names (`CLONE_NEW*`), and from its
/// first moment in `cgroup` (a directory of cgroup v2).
pub(super) fn clone(namespaces: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut flags = u64::from(namespaces.cast_unsigned()) | libc::CLONE_PIDFD as u64;
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child has its own copy of all memory, and this program has one thread only, so that
    // copy is consistent. The kernel writes to `pidfd`, which lives.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(Cloned::Child) };
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(Cloned::Parent(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }))
}

/// Closes all descriptors above standard error but those in `kept`. To be called before anything else is opened.
pub(super) fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> =
        kept.iter().filter_map(|&fd| u32::try_from(fd).ok()).filter(|&fd| fd > 2).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: no descriptor above 2 has an owner in this program yet.
            check(unsafe { libc::close_range(first, fd - 1, 0) })?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// Lets descriptor `fd` outlive the exec. Fails with EBADF where it is not open.
pub(super) fn let_through(fd: RawFd) -> io::Result<()> {
    // SAFETY: changes a flag of a descriptor, or fails.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })
}

/// Adds attributes (`MOUNT_ATTR_*`) to the mount whose root `mount` is, and with `AT_RECURSIVE` to all that are below it.
pub(super) fn restrict_mount(mount: impl AsFd, attributes: u64, recursive: libc::c_int) -> io::Result<()> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | recursive;
    let mount = mount.as_fd().as_raw_fd();
    let size = size_of::<libc::mount_attr>();
    // SAFETY: `mount` is open, the path is an empty string, and `change` is valid for the call.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount, c"".as_ptr(), flags, &raw const change, size)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Signals that arrive as data of a descriptor.
pub(super) struct TakenSignals {
    fd: OwnedFd,
    blocked: Vec<libc::c_int>,
}

impl TakenSignals {
    /// Blocks `signals` and makes them readable; those that are ignored stay ignored.
    pub(super) fn new(signals: &[libc::c_int]) -> io::Result<Self> {
        let wanted: Vec<libc::c_int> = signals.iter().copied().filter(|&signal| !ignored(signal)).collect();
        let mut blocked = Vec::new();
        for &signal in &wanted {
            match block_signal(signal) {
                Ok(()) => blocked.push(signal),
                Err(SignalError::BlockSignal(error)) => {
                    return Err(io::Error::from_raw_os_error(error.errno()));
                }
                // Blocked already.
                Err(_) => {}
            }
        }
        let set = create_sigset(&wanted).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        // SAFETY: `set` is a valid signal set, and -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        check(fd)?;
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, blocked })
    }

    /// In a child: unblocks what [`Self::new`] has blocked. What is blocked stays so over an exec.
    pub(super) fn give_back(&self) -> io::Result<()> {
        let failed = |error| io::Error::other(format!("{error:?}"));
        self.blocked.iter().try_for_each(|&signal| unblock_signal(signal).map_err(failed))
    }

    /// The next one that has arrived.
    pub(super) fn next(&self) -> Option<Arrived> {
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        let length = rustix::io::read(&self.fd, &mut record).ok()?;
        // ssi_signo, ssi_errno, ssi_code are the first fields (signalfd(2)).
        let signo = record.first_chunk::<4>().filter(|_| length == record.len())?;
        let code = record.get(8..12)?.try_into().ok()?;
        let from_terminal = i32::from_ne_bytes(code) == libc::SI_KERNEL;
        Some(Arrived { signal: i32::from_ne_bytes(*signo), from_terminal })
    }
}

impl AsFd for TakenSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One of [`TakenSignals`].
pub(super) struct Arrived {
    /// Its number.
    pub signal: i32,
    /// Whether a terminal sent it, which sends it to every process of its foreground group.
    pub from_terminal: bool,
}

fn ignored(signal: libc::c_int) -> bool {
    // SAFETY: sigaction is a C struct for which all zeroes is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks; `action` is valid for the answer.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
