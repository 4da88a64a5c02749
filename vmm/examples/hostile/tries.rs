//! The hostile system calls, each with the name of the call that a filter is to stop.

use std::arch::asm;
use std::ffi::CStr;
use std::sync::atomic::AtomicU64;

use libc::{c_int, c_long};

/// One way out.
pub(crate) struct Try {
    /// What it is called in the table of the escape suite.
    pub name: &'static str,
    /// The name of the system call; empty for one of another architecture, for which the kernel ends the process itself.
    pub call: &'static str,
    /// Makes the call. Negative: an error.
    pub run: fn() -> c_long,
}

macro_rules! tries {
    ($($call:literal, $name:literal, $run:expr;)*) => {
        &[$(Try { name: $name, call: $call, run: || $run }),*]
    };
}

/// All of them. What takes a pointer gets a valid one where the call could succeed, so that without a filter it would.
pub(crate) const TRIES: &[Try] = tries! {
    // Memory that holds code, or is somebody else's.
    "mmap", "memory that is executable", mmap(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    "mmap", "memory that is shared", mmap(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    "mprotect", "make memory executable", call(libc::SYS_mprotect, [page(), 4096, EXECUTABLE, 0, 0]);
    "pkey_mprotect", "make memory executable, with a key", call(libc::SYS_pkey_mprotect, [page(), 4096, EXECUTABLE, -1, 0]);
    "mremap", "move memory over other memory", call(libc::SYS_mremap, [page(), 4096, 4096, 3, page()]);
    "memfd_create", "a file in memory, to execute", call(libc::SYS_memfd_create, [text(c"x"), 0, 0, 0, 0]);
    "userfaultfd", "stop the kernel at a page (userfaultfd)", call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0]);
    "io_uring_setup", "an io_uring of its own", call(libc::SYS_io_uring_setup, [4, zeros(), 0, 0, 0]);
    "io_uring_register", "lift what an io_uring may do", call(libc::SYS_io_uring_register, [3, 11, 0, 0, 0]);
    "shmget", "shared memory of the host", call(libc::SYS_shmget, [0x6d6f_7465, 4096, 0o1666, 0, 0]);
    "modify_ldt", "a descriptor table of its own", call(libc::SYS_modify_ldt, [0, zeros(), 16, 0, 0]);

    // KVM, and other devices.
    "ioctl", "a second machine (KVM_CREATE_VM)", any_descriptor(0xae01, 0);
    "ioctl", "another virtual CPU (KVM_CREATE_VCPU)", any_descriptor(0xae41, 7);
    "ioctl", "own memory for the guest (KVM_SET_USER_MEMORY_REGION)", any_descriptor(0x4020_ae46, zeros());
    "ioctl", "a device of KVM's (KVM_CREATE_DEVICE)", any_descriptor(0xc00c_aee0, zeros());
    "ioctl", "registers of the host's choice (KVM_SET_MSRS)", any_descriptor(0x4008_ae89, zeros());
    "ioctl", "type into the terminal (TIOCSTI)", any_descriptor(0x5412, text(c"x"));
    "ioctl", "paste into the console (TIOCLINUX)", any_descriptor(0x541c, text(c"\x03"));
    "ioctl", "become another TAP device (TUNSETIFF)", any_descriptor(0x4004_54ca, zeros());
    "ioctl", "the host's interfaces (SIOCGIFCONF)", any_descriptor(0x8912, zeros());

    // Sockets.
    "socket", "TCP to the host (AF_INET)", socket(libc::AF_INET, libc::SOCK_STREAM);
    "socket", "TCP to the host (AF_INET6)", socket(libc::AF_INET6, libc::SOCK_STREAM);
    "socket", "sniff the network (AF_PACKET)", socket(libc::AF_PACKET, libc::SOCK_RAW);
    "socket", "the host's vsock (AF_VSOCK)", socket(libc::AF_VSOCK, libc::SOCK_STREAM);
    "socket", "the kernel's configuration (AF_NETLINK)", socket(libc::AF_NETLINK, libc::SOCK_RAW);
    "socket", "the kernel's ciphers (AF_ALG)", socket(libc::AF_ALG, libc::SOCK_SEQPACKET);
    "socket", "datagrams to host programs (AF_UNIX)", socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    "socketpair", "a pair of sockets", call(libc::SYS_socketpair, [libc::AF_UNIX.into(), 1, 0, zeros(), 0]);
    "bind", "take an address", call(libc::SYS_bind, [3, zeros(), 2, 0, 0]);
    "sendto", "send to an address", call(libc::SYS_sendto, [3, zeros(), 1, 0, text(c"\x01")]);
    "sendmsg", "hand a descriptor on (SCM_RIGHTS)", call(libc::SYS_sendmsg, [3, zeros(), 0, 0, 0]);
    "recvmsg", "be given a descriptor (SCM_RIGHTS)", call(libc::SYS_recvmsg, [3, zeros(), 0, 0, 0]);

    // Processes and threads.
    "fork", "a process (fork)", call(libc::SYS_fork, [0; 5]);
    "clone", "a process (clone)", call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0]);
    "clone", "root of a user namespace (clone)", call(libc::SYS_clone, [(libc::CLONE_NEWUSER | libc::SIGCHLD).into(), 0, 0, 0, 0]);
    "clone3", "a process (clone3)", call(libc::SYS_clone3, [zeros(), 64, 0, 0, 0]);
    "execve", "another program", call(libc::SYS_execve, [text(c"/hostile"), 0, 0, 0, 0]);
    "execveat", "another program, by descriptor", call(libc::SYS_execveat, [0, text(c""), 0, 0, 0x1000]);
    "unshare", "root of a user namespace (unshare)", call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0]);
    "setns", "another namespace", call(libc::SYS_setns, [0, 0, 0, 0, 0]);
    "kill", "signal all processes (kill)", call(libc::SYS_kill, [-1, 0, 0, 0, 0]);
    "tkill", "signal a thread of others (tkill)", call(libc::SYS_tkill, [2, 0, 0, 0, 0]);
    "tgkill", "end an own thread (tgkill)", call(libc::SYS_tgkill, [1, 1, libc::SIGKILL.into(), 0, 0]);
    "pidfd_open", "hold on to a process (pidfd_open)", call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0]);
    "pidfd_getfd", "take a process's descriptor", call(libc::SYS_pidfd_getfd, [3, 0, 0, 0, 0]);
    "ptrace", "trace a process", call(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), 2, 0, 0, 0]);
    "process_vm_readv", "read a process's memory", call(libc::SYS_process_vm_readv, [1, zeros(), 0, zeros(), 0]);
    "process_vm_writev", "write a process's memory", call(libc::SYS_process_vm_writev, [1, zeros(), 0, zeros(), 0]);
    "prlimit64", "lift the limits", call(libc::SYS_prlimit64, [0, 7, 0, zeros(), 0]);
    "sched_setaffinity", "another's CPU", call(libc::SYS_sched_setaffinity, [0, 8, text(c"\x01\x01\x01\x01\x01\x01\x01"), 0, 0]);

    // What the process is.
    "prctl", "dump core (PR_SET_DUMPABLE)", call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0]);
    "prctl", "no seccomp (PR_SET_SECCOMP)", call(libc::SYS_prctl, [libc::PR_SET_SECCOMP.into(), 0, 0, 0, 0]);
    "seccomp", "another filter", call(libc::SYS_seccomp, [2, 0, zeros(), 0, 0]);
    "setuid", "root (setuid)", call(libc::SYS_setuid, [0; 5]);
    "capset", "all capabilities", call(libc::SYS_capset, [zeros(), zeros(), 0, 0, 0]);
    "personality", "another personality", call(libc::SYS_personality, [0x004_0000, 0, 0, 0, 0]);
    "keyctl", "the host's keys", call(libc::SYS_keyctl, [0, -3, 0, 0, 0]);
    "rt_sigaction", "catch the filter's signal", call(libc::SYS_rt_sigaction, [libc::SIGSYS.into(), 0, 0, 8, 0]);

    // Files.
    "open", "open a host file (open)", call(libc::SYS_open, [text(c"/etc/passwd"), 0, 0, 0, 0]);
    "openat", "open a host file (openat)", call(libc::SYS_openat, [-100, text(c"/proc/1/root/etc/passwd"), 0, 0, 0]);
    "openat2", "open a host file (openat2)", call(libc::SYS_openat2, [-100, text(c"/etc/passwd"), zeros(), 24, 0]);
    "open_by_handle_at", "open a host file by its handle", call(libc::SYS_open_by_handle_at, [-100, zeros(), 0, 0, 0]);
    "creat", "make a file", call(libc::SYS_creat, [text(c"/x"), 0, 0, 0, 0]);
    "mkdir", "make a directory", call(libc::SYS_mkdir, [text(c"/x"), 0, 0, 0, 0]);
    "symlink", "make a symbolic link", call(libc::SYS_symlink, [text(c"/etc"), text(c"/x"), 0, 0, 0]);
    "mknod", "make a device node", call(libc::SYS_mknod, [text(c"/x"), 0o20600, 0x101, 0, 0]);
    "rename", "exchange a file", call(libc::SYS_rename, [text(c"/hostile"), text(c"/x"), 0, 0, 0]);
    "chmod", "make a program set-user-ID", call(libc::SYS_chmod, [text(c"/hostile"), 0o4755, 0, 0, 0]);
    "chroot", "another root (chroot)", call(libc::SYS_chroot, [text(c"/dev"), 0, 0, 0, 0]);
    "chdir", "another directory", call(libc::SYS_chdir, [text(c".."), 0, 0, 0, 0]);
    "mount", "mount a file system", call(libc::SYS_mount, [text(c"proc"), text(c"/"), text(c"proc"), 0, 0]);
    "fsopen", "make a file system", call(libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0]);
    "fcntl", "change a descriptor of others (F_SETFL)", call(libc::SYS_fcntl, [0, libc::F_SETFL.into(), 0, 0, 0]);
    "dup2", "put a descriptor in another's place", call(libc::SYS_dup2, [0, 3, 0, 0, 0]);
    "ftruncate", "cut a disk off", call(libc::SYS_ftruncate, [3, 0, 0, 0, 0]);
    "sendfile", "copy from file to file", call(libc::SYS_sendfile, [1, 3, 0, 4096, 0]);

    // The kernel.
    "bpf", "a BPF program", call(libc::SYS_bpf, [5, zeros(), 128, 0, 0]);
    "perf_event_open", "count the host's events", call(libc::SYS_perf_event_open, [zeros(), -1, 0, -1, 0]);
    "kexec_load", "another kernel", call(libc::SYS_kexec_load, [0; 5]);
    "init_module", "a kernel module", call(libc::SYS_init_module, [zeros(), 0, zeros(), 0, 0]);
    "reboot", "reboot", call(libc::SYS_reboot, [0xfee1_dead, 0x2812_1969, 0, 0, 0]);
    "syslog", "the kernel's log", call(libc::SYS_syslog, [10, 0, 0, 0, 0]);
    "clock_settime", "set the clock", call(libc::SYS_clock_settime, [0, zeros(), 0, 0, 0]);
    "iopl", "all I/O ports", call(libc::SYS_iopl, [3, 0, 0, 0, 0]);
    "", "a call of 32-bit programs (int 0x80)", call_of_32_bits();
    "of no known name", "a call of x32 programs", call(X32 | libc::SYS_openat, [-100, text(c"/etc/passwd"), 0, 0, 0]);
};

/// PROT_READ and PROT_EXEC.
const EXECUTABLE: i64 = 5;
/// Marks the calls of the x32 ABI (asm/unistd.h).
const X32: c_long = 0x4000_0000;
/// open(2) of 32-bit programs (asm/unistd_32.h).
const OPEN_32: c_int = 5;

/// What a call gets that reads or writes some memory.
static ZEROS: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];
/// A page of this program's data.
#[repr(align(4096))]
struct Page([u8; 4096]);
static PAGE: Page = Page([0; 4096]);

fn call(number: c_long, arguments: [i64; 5]) -> c_long {
    let [a, b, c, d, e] = arguments;
    // SAFETY: where the call succeeds, the process ends next, before it could notice what was changed.
    unsafe { libc::syscall(number, a, b, c, d, e, 0) }
}

fn text(text: &'static CStr) -> i64 {
    text.as_ptr() as i64
}

fn zeros() -> i64 {
    ZEROS.as_ptr() as i64
}

fn page() -> i64 {
    PAGE.0.as_ptr() as i64
}

fn mmap(protection: c_int, flags: c_int) -> c_long {
    call(libc::SYS_mmap, [0, 4096, protection.into(), flags.into(), -1])
}

fn socket(family: c_int, kind: c_int) -> c_long {
    call(libc::SYS_socket, [family.into(), (kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).into(), 0, 0, 0])
}

/// The first descriptor that takes it.
fn any_descriptor(request: i64, argument: i64) -> c_long {
    (0..64)
        .map(|fd| call(libc::SYS_ioctl, [fd, request, argument, 0, 0]))
        .find(|&result| result >= 0)
        .unwrap_or(-1)
}

/// The numbers of such calls mean others than a filter of 64-bit calls names.
fn call_of_32_bits() -> c_long {
    let mut result = OPEN_32;
    // SAFETY: the kernel changes only the registers that are named, and the arguments are null.
    unsafe {
        asm!("int 0x80", inout("eax") result, in("ecx") 0, in("edx") 0, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    };
    result.into()
}
