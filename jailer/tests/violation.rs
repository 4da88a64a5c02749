//! A thread under its filter makes a call that this forbids: in a process of its own, since that is the end of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::UdpSocket;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use jailer::seccomp::{EXIT_CODE, Filters, Thread, on_violation};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Which of [`TRIES`] a process is to do, and under whose filter.
const TRY: &str = "JAILER_TEST_TRY";
const THREAD: &str = "JAILER_TEST_THREAD";

/// The call that is made first, its number, and what makes it.
const TRIES: [(&str, u32, fn()); 7] = [
    ("openat", 257, || drop(std::fs::File::open("/etc/hostname"))),
    ("socket", 41, || drop(UdpSocket::bind("127.0.0.1:0"))),
    ("mkdir", 83, || drop(std::fs::create_dir("/tmp/never"))),
    ("mmap", 9, || drop(std::thread::spawn(|| {}))),
    ("kill", 62, || kill_process(Pid::INIT, Signal::CONT).unwrap_or_default()),
    ("getpid", 39, || assert_ne!(std::process::id(), 0)),
    ("chdir", 80, || drop(std::env::set_current_dir("/"))),
];

/// How long a wait takes that is stopped in between.
const WAIT: Duration = Duration::from_millis(300);

fn start(name: &str, thread: Thread) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "in_the_process", "--nocapture"]).env(TRY, name).env(THREAD, thread.name());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What the processes of the other tests do.
#[test]
fn in_the_process() {
    let (Ok(name), Ok(thread)) = (std::env::var(TRY), std::env::var(THREAD)) else { return };
    let thread = Thread::ALL.into_iter().find(|known| known.name() == thread).unwrap();
    on_violation(|sentence| assert!(rustix::io::write(rustix::stdio::stderr(), sentence.as_bytes()).is_ok()))
        .unwrap();
    let action = TRIES.iter().find(|(call, ..)| *call == name).map_or(wait as fn(), |&(.., action)| action);
    Filters::default().install(thread).unwrap();
    action();
    std::process::exit(0);
}

fn wait() {
    let lock = Mutex::new(());
    let guard = lock.lock().unwrap();
    assert!(Condvar::new().wait_timeout(guard, WAIT).unwrap().1.timed_out());
}

#[test]
fn a_forbidden_call_ends_the_process_and_is_named() {
    for thread in Thread::ALL {
        for (call, number, _) in TRIES {
            let Output { status, stderr, .. } = start(call, thread).wait_with_output().unwrap();
            let says = format!(
                "seccomp: the {} thread made system call {number} ({call}), which its filter forbids",
                thread.name()
            );
            assert_eq!(String::from_utf8_lossy(&stderr), says);
            assert_eq!(status.code(), Some(EXIT_CODE.into()), "{says}");
        }
    }
}

#[test]
fn a_virtual_cpu_that_waits_goes_on_after_a_stop() {
    let child = start("nothing", Thread::Vcpu);
    let pid = Pid::from_child(&child);
    std::thread::sleep(WAIT / 2);
    kill_process(pid, Signal::STOP).unwrap();
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
}
