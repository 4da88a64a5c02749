//! The jailer is killed at each of its system calls, one run for each: whatever it has made by then, `--clean` removes.
#![expect(unsafe_code, reason = "ptrace has no safe wrapper")]

mod support;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Place;

/// Many more than a jail takes.
const MOST: usize = 5000;
const PATIENCE: Duration = Duration::from_secs(20);

/// What happened to the one that was stopped.
#[derive(Debug, PartialEq, Eq)]
enum Killed {
    /// It had ended before.
    Nobody,
    /// The process that was started.
    Keeper,
    /// The one that it has made, which is to become the program, or is it already.
    Inside,
}

/// Follows the jailer and its child, and kills the one that makes system call number `victim`, counted over both.
fn kill_at(mut command: Command, victim: usize) -> Killed {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: `be_traced` is one system call: async-signal-safe, and touches no memory.
    unsafe { command.pre_exec(be_traced) };
    let mut child = command.spawn().expect("the jailer starts");
    let keeper = child.id().cast_signed();
    let mut entries = 0;
    let mut entering = std::collections::HashMap::new();
    let mut killed = Killed::Nobody;
    let mut first = true;
    // Until the keeper is gone.
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for the answer. Children of other tests are not waited for: they are no tracees of
        // this thread (__WNOTHREAD).
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(pid > 0, "{}", io::Error::last_os_error());
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if pid == keeper {
                break;
            }
            continue;
        }
        let event = status >> 16;
        let mut pass_on = 0;
        if first {
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_EXITKILL;
            trace(libc::PTRACE_SETOPTIONS, pid, i64::from(options));
            first = false;
        } else if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
            let entry = entering.entry(pid).or_insert(true);
            if *entry {
                entries += 1;
                if entries == victim && killed == Killed::Nobody {
                    killed = if pid == keeper { Killed::Keeper } else { Killed::Inside };
                    // SAFETY: a process of ours, stopped.
                    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
                    continue;
                }
            }
            *entry = !*entry;
        } else if event == 0
            && libc::WSTOPSIG(status) != libc::SIGSTOP
            && libc::WSTOPSIG(status) != libc::SIGTRAP
        {
            pass_on = libc::WSTOPSIG(status);
        }
        trace(libc::PTRACE_SYSCALL, pid, i64::from(pass_on));
    }
    // Reaped above already.
    let _ = child.try_wait();
    reap_the_rest();
    killed
}

/// What has lost its keeper ends too.
fn reap_the_rest() {
    let begun = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: as above.
        let pid =
            unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
        match pid {
            0 => {
                assert!(begun.elapsed() < PATIENCE, "the jailed process outlives its keeper");
                std::thread::sleep(Duration::from_millis(1));
            }
            -1 => return,
            _ if libc::WIFSTOPPED(status) => trace(libc::PTRACE_CONT, pid, 0),
            _ => {}
        }
    }
}

/// A tracee may be gone at any time.
fn trace(request: libc::c_uint, pid: i32, data: i64) {
    // SAFETY: none of the requests used here takes a pointer.
    let result = unsafe { libc::ptrace(request, pid, 0, data) };
    assert!(result >= 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH));
}

fn be_traced() -> io::Result<()> {
    // SAFETY: takes no pointer.
    let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Kills at each system call in turn. Gives how many times the keeper, and the one inside, were killed.
fn kill_everywhere(place: &Place, flags: &[&str]) -> (usize, usize) {
    let (mut keepers, mut insides) = (0, 0);
    for victim in 1..MOST {
        let mut command = place.jailer("a");
        command.args(flags).args(["--", "exit", "0"]);
        let killed = kill_at(command, victim);
        match killed {
            Killed::Nobody => {
                place.assert_empty();
                return (keepers, insides);
            }
            Killed::Keeper => {
                keepers += 1;
                let ended = place.clean("a");
                assert_eq!(ended.code, Some(0), "killed at system call {victim}: {ended:?}");
            }
            // Its keeper has cleaned up.
            Killed::Inside => insides += 1,
        }
        place.assert_empty();
        support::assert_no_cgroup();
    }
    panic!("more than {MOST} system calls");
}

/// With cgroups where the host is for that.
#[test]
fn killed_anywhere_it_leaves_nothing_that_clean_does_not_remove() {
    need_root!();
    let place = Place::new();
    let file = place.file("disk", "");
    let bind = format!("{}:/disk", file.display());
    let mut flags = vec!["--new-pid-ns", "--bind", &bind];
    if std::env::var_os("MOTE_JAIL_CGROUPS").is_some() {
        flags.extend(["--cgroup", "pids.max=20"]);
    }
    let (keepers, insides) = kill_everywhere(&place, &flags);
    println!("killed {keepers} keepers and {insides} jailed processes");
    assert!(keepers > 80 && insides > 100, "{keepers} keepers, {insides} inside");
}
