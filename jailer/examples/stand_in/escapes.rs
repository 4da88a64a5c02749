//! Ways out of a jail, each tried once. One line each: `blocked NAME by WALL (what the kernel said)`, or `ESCAPED NAME`.
//!
//! None of them needs a guest: this is what the attacker can do who has the VMM's process. What the room leaves to
//! seccomp, the filters of mote's threads, is tried by a hostile mote (vmm/tests/hostile.rs).
#![expect(unsafe_code, reason = "an attacker calls the kernel directly")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::process::ExitCode;

use libc::{c_int, c_long, c_ulong};

/// What a try gives: an error is what it should be.
type Outcome = io::Result<()>;

struct Try {
    name: &'static str,
    wall: &'static str,
    run: fn() -> Outcome,
}

const ROOM: &str = "the empty room";
const READ_ONLY: &str = "the read-only room";
const CAPABILITIES: &str = "no capabilities";
const USER: &str = "the jail's user";
const NO_PRIVS: &str = "no_new_privs and the bounding set";
const CHROOT: &str = "a root that is no mount's root";
const PIDS: &str = "the PID namespace";
const NET: &str = "the network namespace";
const IPC: &str = "the IPC namespace";
const LIMITS: &str = "resource limits";
const CGROUP: &str = "the cgroup";

macro_rules! tries {
    ($($name:literal, $wall:expr, $run:expr;)*) => { &[$(Try { name: $name, wall: $wall, run: $run }),*] };
}

/// Only look: harmless even where they succeed.
const LOOKS: &[Try] = tries! {
    "open /etc/passwd", ROOM, || open("/etc/passwd");
    "open /etc/shadow", ROOM, || open("/etc/shadow");
    "open ../../../../../../etc/passwd", ROOM, || open("../../../../../../etc/passwd");
    "open /proc/1/root/etc/passwd", ROOM, || open("/proc/1/root/etc/passwd");
    "open /proc/self/exe", ROOM, || open("/proc/self/exe");
    "open /proc/self/mem", ROOM, || open("/proc/self/mem");
    "open /sys/kernel/notes", ROOM, || open("/sys/kernel/notes");
    "open /sys/fs/cgroup/cgroup.procs", ROOM, || open("/sys/fs/cgroup/cgroup.procs");
    "open /dev/mem", ROOM, || open("/dev/mem");
    "open /dev/kmsg", ROOM, || open("/dev/kmsg");
    "open /dev/vda", ROOM, || open("/dev/vda");
    "open /dev/sda", ROOM, || open("/dev/sda");
    "open /dev/tty", ROOM, || open("/dev/tty");
    "open /run/docker.sock", ROOM, || open("/run/docker.sock");
    "enter a directory that is open by mistake", ROOM, || {
        (3..256).find(|&fd| call(libc::SYS_fchdir, [fd, 0, 0, 0, 0]).is_ok()).map_or_else(not_found, |_| Ok(()))
    };
    "change directory above the root", ROOM, || {
        std::env::set_current_dir("/../../../..")?;
        open("etc/passwd")
    };
};

/// Would change something.
const ACTS: &[Try] = tries! {
    "write a file into the root", READ_ONLY, || fs::write("/x", "x");
    "write a file into /dev", READ_ONLY, || fs::write("/dev/x", "x");
    "make a directory", READ_ONLY, || fs::create_dir("/x");
    "overwrite the program", READ_ONLY, || fs::write("/program", "x");
    "remove the program", READ_ONLY, || fs::remove_file("/program");
    "make the program set-user-ID", READ_ONLY, || chmod("/program", 0o4755);
    "remove a device node", READ_ONLY, || fs::remove_file("/dev/urandom");
    "make a symbolic link", READ_ONLY, || std::os::unix::fs::symlink("/etc", "/x");
    "make a device node for memory", CAPABILITIES, || {
        path_call(libc::SYS_mknod, "/m", [i64::from(libc::S_IFCHR | 0o600), 0x101, 0, 0])
    };
    "fill the disk", READ_ONLY, || fill_disk();
    "mount a tmpfs", CAPABILITIES, || mount("tmpfs", "tmpfs", 0);
    "mount proc", CAPABILITIES, || mount("proc", "proc", 0);
    "mount the host's disk", CAPABILITIES, || mount("/dev/vda", "ext4", 0);
    "mount the root writable", CAPABILITIES, || mount("none", "none", libc::MS_REMOUNT | libc::MS_BIND);
    "make a file system without a mount (fsopen)", CAPABILITIES, || path_call(SYS_FSOPEN, "tmpfs", [0; 4]);
    "copy the mount tree (open_tree)", CAPABILITIES, || open_tree();
    "unmount the root", CAPABILITIES, || path_call(libc::SYS_umount2, "/", [i64::from(libc::MNT_DETACH), 0, 0, 0]);
    "chroot", CAPABILITIES, || path_call(libc::SYS_chroot, "/dev", [0; 4]);
    "pivot_root", CAPABILITIES, || pivot_root();
    "open by handle", CAPABILITIES, || open_by_handle();
    "become root (setuid)", USER, || call(libc::SYS_setuid, [0; 5]);
    "become root's group (setgid)", USER, || call(libc::SYS_setgid, [0; 5]);
    "join a group (setgroups)", USER, || setgroups();
    "raise a capability (ambient)", NO_PRIVS, || {
        call(libc::SYS_prctl, [i64::from(libc::PR_CAP_AMBIENT), i64::from(libc::PR_CAP_AMBIENT_RAISE), 21, 0, 0])
    };
    "allow new privileges again", NO_PRIVS, || call(libc::SYS_prctl, [i64::from(libc::PR_SET_NO_NEW_PRIVS), 0, 0, 0, 0]);
    "become root of a user namespace (unshare)", CHROOT, || unshare(libc::CLONE_NEWUSER);
    "become root of a user namespace (clone)", CHROOT, || clone_into_user_namespace();
    "a mount namespace", CAPABILITIES, || unshare(libc::CLONE_NEWNS);
    "a network namespace", CAPABILITIES, || unshare(libc::CLONE_NEWNET);
    "a PID namespace", CAPABILITIES, || unshare(libc::CLONE_NEWPID);
    "load a BPF program", CAPABILITIES, || bpf();
    "count the host's events (perf_event_open)", CAPABILITIES, || perf();
    "load another kernel (kexec_load)", CAPABILITIES, || call(libc::SYS_kexec_load, [0; 5]);
    "load a kernel module", CAPABILITIES, || module();
    "unload a kernel module", CAPABILITIES, || path_call(libc::SYS_delete_module, "tun", [0; 4]);
    "reboot", CAPABILITIES, || {
        call(libc::SYS_reboot, [0xfee1_dead, 0x2812_1969, i64::from(libc::LINUX_REBOOT_CMD_CAD_ON), 0, 0])
    };
    "all I/O ports (iopl)", CAPABILITIES, || call(libc::SYS_iopl, [3, 0, 0, 0, 0]);
    "one I/O port (ioperm)", CAPABILITIES, || call(libc::SYS_ioperm, [0x3f8, 1, 1, 0, 0]);
    "swap to a file", CAPABILITIES, || path_call(libc::SYS_swapon, "/program", [0; 4]);
    "process accounting", CAPABILITIES, || call(libc::SYS_acct, [0; 5]);
    "read the kernel's log", CAPABILITIES, || syslog();
    "set the clock", CAPABILITIES, || set_clock();
    "set the host's name", CAPABILITIES, || path_call(libc::SYS_sethostname, "x", [1, 0, 0, 0]);
    "a higher priority", CAPABILITIES, || {
        // The kernel answers 20 - nice.
        call(libc::SYS_setpriority, [i64::from(libc::PRIO_PROCESS), 0, -20, 0, 0])
    };
    "real-time scheduling", CAPABILITIES, || real_time();
    "more descriptors than allowed", LIMITS, || raise(libc::RLIMIT_NOFILE, 1 << 20);
    "a core dump", LIMITS, || raise(libc::RLIMIT_CORE, u64::MAX);
    "signal the keeper", PIDS, || kill(i64::from(std::os::unix::process::parent_id().max(2)));
    "signal any process", PIDS, || (2..400).find(|&pid| kill(pid).is_ok()).map_or_else(not_found, |_| Ok(()));
    "trace any process", PIDS, || {
        let attach = |&pid: &i64| call(libc::SYS_ptrace, [i64::from(libc::PTRACE_SEIZE), pid, 0, 0, 0]).is_ok();
        (2..400).find(attach).map_or_else(not_found, |_| Ok(()))
    };
    "read any process's memory", PIDS, || {
        let read = |&pid: &i32| read_memory(pid).is_ok();
        (2..400).find(read).map_or_else(not_found, |_| Ok(()))
    };
    "sniff the network (AF_PACKET)", CAPABILITIES, || socket(libc::AF_PACKET, libc::SOCK_RAW, 0x300);
    "forge packets (SOCK_RAW)", CAPABILITIES, || socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW);
    "make a TAP device", CAPABILITIES, || make_tap();
    "connect to the host's TCP port", NET, || std::net::TcpStream::connect("127.0.0.1:7777").map(drop);
    "connect to the host's abstract socket", NET, || abstract_socket();
    "attach the host's shared memory", IPC, || call(libc::SYS_shmget, [0x6d6f_7465, 0, 0, 0, 0]);
    "open the host's message queue", IPC, || path_call(libc::SYS_mq_open, "mote", [0; 4]);
    "a fork bomb", CGROUP, || fork_bomb();
};

const SYS_FSOPEN: c_long = 430;
const SYS_OPEN_TREE: c_long = 428;

/// Tries them and prints the table. Fails where one succeeds.
pub(crate) fn try_all(acts_too: bool) -> ExitCode {
    let mut escaped = 0;
    let acts = if acts_too { ACTS } else { &[] };
    for Try { name, wall, run } in LOOKS.iter().chain(acts) {
        match run() {
            Err(error) => println!("blocked {name} by {wall} ({error})"),
            Ok(()) => {
                println!("ESCAPED {name}");
                escaped += 1;
            }
        }
    }
    if escaped == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn not_found() -> Outcome {
    Err(io::Error::new(io::ErrorKind::NotFound, "there is none"))
}

fn open(path: &str) -> Outcome {
    fs::File::open(path).map(drop)
}

fn chmod(path: &str, mode: u32) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn call(number: c_long, arguments: [i64; 5]) -> Outcome {
    let [a, b, c, d, e] = arguments;
    // SAFETY: all that is tried here either takes no pointer, or fails on a null one.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A call whose first argument is a string.
fn path_call(number: c_long, path: &str, rest: [i64; 4]) -> Outcome {
    let path = CString::new(path)?;
    let [a, b, c, d] = rest;
    call(number, [path.as_ptr() as i64, a, b, c, d])
}

fn unshare(namespace: c_int) -> Outcome {
    call(libc::SYS_unshare, [i64::from(namespace), 0, 0, 0, 0])
}

fn kill(pid: i64) -> Outcome {
    call(libc::SYS_kill, [pid, 0, 0, 0, 0])
}

/// From where a static program has its code.
fn read_memory(pid: i32) -> Outcome {
    let mut byte = 0u8;
    let here = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let there = libc::iovec { iov_base: 0x40_0000 as *mut libc::c_void, iov_len: 1 };
    // SAFETY: one byte is written, into `byte`.
    let count = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> Outcome {
    call(libc::SYS_socket, [family.into(), kind.into(), protocol.into(), 0, 0])
}

fn mount(source: &str, kind: &str, flags: c_ulong) -> Outcome {
    let (source, kind) = (CString::new(source)?, CString::new(kind)?);
    call(
        libc::SYS_mount,
        [source.as_ptr() as i64, c"/".as_ptr() as i64, kind.as_ptr() as i64, flags.cast_signed(), 0],
    )
}

fn open_tree() -> Outcome {
    call(SYS_OPEN_TREE, [i64::from(libc::AT_FDCWD), c"/".as_ptr() as i64, 1, 0, 0])
}

fn pivot_root() -> Outcome {
    call(libc::SYS_pivot_root, [c"/".as_ptr() as i64, c"/".as_ptr() as i64, 0, 0, 0])
}

/// A handle for inode 2, the root of an ext4.
fn open_by_handle() -> Outcome {
    let handle: [u32; 4] = [8, 1, 2, 0];
    call(libc::SYS_open_by_handle_at, [i64::from(libc::AT_FDCWD), handle.as_ptr() as i64, 0, 0, 0])
}

fn setgroups() -> Outcome {
    let groups = [0u32];
    call(libc::SYS_setgroups, [1, groups.as_ptr() as i64, 0, 0, 0])
}

fn clone_into_user_namespace() -> Outcome {
    call(libc::SYS_clone, [i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD), 0, 0, 0, 0])
}

/// BPF_PROG_LOAD of a tracing program: `r0 = 0; exit`.
fn bpf() -> Outcome {
    let code: [u64; 2] = [0xb7, 0x95];
    let attributes: [u64; 16] =
        [5 | 2 << 32, code.as_ptr() as u64, c"GPL".as_ptr() as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    call(libc::SYS_bpf, [5, attributes.as_ptr() as i64, 128, 0, 0])
}

/// A software event of all processes on CPU 0.
fn perf() -> Outcome {
    let attributes: [u64; 16] = [1 | 128 << 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    call(libc::SYS_perf_event_open, [attributes.as_ptr() as i64, -1, 0, -1, 0])
}

fn module() -> Outcome {
    call(libc::SYS_init_module, [c"".as_ptr() as i64, 0, c"".as_ptr() as i64, 0, 0])
}

/// SYSLOG_ACTION_READ_ALL.
fn syslog() -> Outcome {
    let mut log = [0u8; 64];
    call(libc::SYS_syslog, [3, log.as_mut_ptr() as i64, 64, 0, 0])
}

fn set_clock() -> Outcome {
    let time = [0i64; 2];
    call(libc::SYS_clock_settime, [libc::CLOCK_REALTIME.into(), time.as_ptr() as i64, 0, 0, 0])
}

fn real_time() -> Outcome {
    let priority: c_int = 1;
    call(libc::SYS_sched_setscheduler, [0, libc::SCHED_FIFO.into(), (&raw const priority) as i64, 0, 0])
}

fn raise(resource: libc::__rlimit_resource_t, value: u64) -> Outcome {
    let limit = [value; 2];
    call(libc::SYS_prlimit64, [0, resource.into(), limit.as_ptr() as i64, 0, 0])
}

/// TUNSETIFF with a name that is not there.
fn make_tap() -> Outcome {
    use std::os::fd::AsRawFd;
    let tun = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0u8; 40];
    request[..5].copy_from_slice(b"newer");
    request[16..18].copy_from_slice(&0x1002u16.to_ne_bytes());
    call(libc::SYS_ioctl, [tun.as_raw_fd().into(), 0x4004_54ca, request.as_ptr() as i64, 0, 0])
}

/// One that the test has made.
fn abstract_socket() -> Outcome {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    UnixStream::connect_addr(&SocketAddr::from_abstract_name("mote-escape")?).map(drop)
}

/// Everywhere a name can be made.
fn fill_disk() -> Outcome {
    let places = ["/", "/dev/", "/dev/net/", "/tmp/", "/var/tmp/", "/run/", "/dev/shm/"];
    places
        .iter()
        .map(|place| fs::write(format!("{place}fill"), vec![0; 1 << 20]))
        .find(io::Result::is_ok)
        .unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "no place takes a file")))
}

/// Children that only wait; at most 300.
fn fork_bomb() -> Outcome {
    let mut children = Vec::new();
    let mut stopped = Ok(());
    for _ in 0..300 {
        // SAFETY: the child does nothing but wait and end.
        match unsafe { libc::fork() } {
            0 => wait_and_end(),
            -1 => {
                stopped = Err(io::Error::last_os_error());
                break;
            }
            child => children.push(child),
        }
    }
    for child in children {
        call(libc::SYS_kill, [child.into(), libc::SIGKILL.into(), 0, 0, 0])?;
    }
    stopped
}

fn wait_and_end() -> ! {
    std::thread::sleep(std::time::Duration::from_secs(20));
    std::process::exit(0)
}
