//! The escape suite: what an attacker who has the VMM's process tries. All of it runs in the testbed only, for a way out
//! that works would be one; elsewhere, what only looks.
#![expect(unsafe_code, reason = "System V and POSIX IPC have no safe interface")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command};

use support::{Ended, Place};

/// Every line is `blocked ...`, and there are at least so many.
fn assert_blocked(ended: &Ended, least: usize) {
    print!("{}", ended.out);
    let blocked = ended.out.lines().filter(|line| line.starts_with("blocked ")).count();
    assert!(!ended.out.contains("ESCAPED"), "{ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(blocked >= least, "only {blocked} tries: {ended:?}");
}

#[test]
fn there_is_nothing_to_see() {
    need_root!();
    let place = Place::new();
    assert_blocked(&place.run(&["--new-pid-ns"], &["escape"]), 16);
    assert_blocked(&place.run(&[], &["escape"]), 16);
}

#[test]
fn there_is_no_way_out() {
    need_cgroups!();
    let place = Place::new();
    // What there is to reach outside.
    let _tcp = TcpListener::bind("127.0.0.1:7777").expect("a port");
    let name = SocketAddr::from_abstract_name("mote-escape").expect("a name");
    let _unix = UnixListener::bind_addr(&name).expect("a socket");
    make_ipc();
    let netns = Netns::new();
    let flags = ["--new-pid-ns", "--netns", &netns.path(), "--cgroup", "pids.max=50"];
    let ended = place.run(&flags, &["escape", "--all"]);
    assert_blocked(&ended, 70);
    place.assert_empty();
    support::assert_no_cgroup();
}

/// A shared memory segment and a message queue that every user may open.
fn make_ipc() {
    // SAFETY: takes no pointer.
    let memory = unsafe { libc::shmget(0x6d6f_7465, 4096, libc::IPC_CREAT | 0o666) };
    assert!(memory >= 0, "{}", std::io::Error::last_os_error());
    let flags = libc::O_CREAT | libc::O_RDWR;
    // SAFETY: the name is a string, and a null pointer stands for the usual attributes.
    let queue = unsafe { libc::mq_open(c"/mote".as_ptr(), flags, 0o666, std::ptr::null::<libc::mq_attr>()) };
    assert!(queue >= 0, "{}", std::io::Error::last_os_error());
}

/// An empty network namespace, as long as a process is in it.
struct Netns(Child);

impl Netns {
    fn new() -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().expect("unshare");
        let netns = Self(child);
        let own = fs::read_link("/proc/self/ns/net").expect("/proc is mounted");
        for _ in 0..1000 {
            if fs::read_link(netns.path()).is_ok_and(|its| its != own) {
                return netns;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("unshare makes no network namespace");
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
