//! mote on a terminal: raw while the machine runs, and as it was before on every way out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod support;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, getpgid, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use support::{MOTE, PATIENCE, skipped};

/// A pseudo-terminal: the test sits at it.
struct Terminal {
    master: File,
    slave: OwnedFd,
    before: Termios,
    seen: String,
    looked_at: usize,
}

impl Terminal {
    fn open() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        // Not what every terminal has: to be put back, it has to be remembered.
        let mut modes = tcgetattr(&slave).unwrap();
        modes.local_modes.toggle(LocalModes::ECHOCTL);
        modes.special_codes[SpecialCodeIndex::VERASE] = 0x15;
        tcsetattr(&slave, OptionalActions::Now, &modes).unwrap();
        let before = tcgetattr(&slave).unwrap();
        Self { master: File::from(master), slave, before, seen: String::new(), looked_at: 0 }
    }

    fn stdio(&self) -> Stdio {
        Stdio::from(self.slave.try_clone().unwrap())
    }

    /// A command on this terminal, which does not control its session: no job control.
    fn attach(&self, command: &mut Command) -> Running {
        Running(command.stdin(self.stdio()).stdout(self.stdio()).stderr(self.stdio()).spawn().unwrap())
    }

    /// A script in a session that this terminal controls. The shell outlives mote: a terminal whose session ends is reset.
    fn shell(&self, script: &str) -> Running {
        self.attach(Command::new("setsid").args(["--ctty", "sh", "-c", script, MOTE]))
    }

    /// `mote run` as a user has it: in the foreground of a shell, which then says `CODE=n.`.
    fn mote(&self, flags: &str) -> Running {
        self.shell(&format!("\"$0\" run {flags}; echo CODE=$?.; read end"))
    }

    /// Waits for `text` in what has come since the last one.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen[self.looked_at..].find(text) {
                self.looked_at += at + text.len();
                return;
            }
            assert!(Instant::now() < deadline, "no '{text}' in {:?}", self.seen);
            self.read(Duration::from_millis(100));
        }
    }

    fn read(&mut self, time: Duration) {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        if poll(&mut fds, Some(&time)).unwrap() > 0 {
            let mut bytes = [0; 4096];
            // EIO: nobody has the terminal open any more; then the deadline ends the wait.
            let length = (&self.master).read(&mut bytes).unwrap_or(0);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }

    #[track_caller]
    fn press(&self, keys: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut rest = keys.as_bytes();
        while !rest.is_empty() {
            match (&self.master).write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "nobody reads what is typed");
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn is_raw(&self) -> bool {
        let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        !tcgetattr(&self.slave).unwrap().local_modes.intersects(cooked)
    }

    #[track_caller]
    fn expect_code(&mut self, code: i32) {
        self.expect(&format!("CODE={code}."));
    }

    #[track_caller]
    fn expect_restored(&self) {
        assert_eq!(format!("{:?}", tcgetattr(&self.slave).unwrap()), format!("{:?}", self.before));
    }

    /// Fills what the terminal holds for its reader, who does not read.
    fn fill(&self) {
        let flags = rustix::fs::fcntl_getfl(&self.slave).unwrap();
        fcntl_setfl(&self.slave, flags | OFlags::NONBLOCK).unwrap();
        while rustix::io::write(&self.slave, &[b'.'; 256]).is_ok() {}
        while rustix::io::write(&self.slave, b".").is_ok() {}
        fcntl_setfl(&self.slave, flags).unwrap();
    }
}

/// A child that does not outlive its test.
struct Running(Child);

impl Running {
    /// The mote that our shell runs.
    fn mote(&self) -> Pid {
        let shell = self.0.id();
        let deadline = Instant::now() + PATIENCE;
        loop {
            for pid in children(shell) {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if name.trim() == "mote" {
                    return Pid::from_raw(pid).unwrap();
                }
            }
            assert!(Instant::now() < deadline, "the shell starts no mote");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn finish(mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return status.code().unwrap_or(-1),
                None if Instant::now() > deadline => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in children(self.0.id()) {
            // One that ends by itself at this moment is as good.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn children(pid: u32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The virtual CPU's thread puts it back itself: it may make no other call, and no other thread runs any more.
#[test]
fn a_violation_of_the_seccomp_filter_restores_the_terminal() {
    need_kvm!();
    let (run, other) = ("\"val\": 44672", "\"val\": 44673");
    let filters = include_str!("../../jailer/filters/mote.json");
    assert!(filters.contains(run), "KVM_RUN");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(filters.replace(run, other).as_bytes()).unwrap();
    let mut terminal = Terminal::open();
    let _shell = terminal.mote(&format!("--seccomp-filter {}", file.path().display()));
    terminal
        .expect("mote: seccomp: the vcpu thread made system call 16 (ioctl), which its filter forbids\r\n");
    terminal.expect_code(4);
    terminal.expect_restored();
}

#[test]
fn a_conversation_with_the_guest() {
    need_kvm!();
    let mut terminal = Terminal::open();
    let _shell = terminal.mote("--cmdline mode=echo");
    terminal.expect("READY");
    assert!(terminal.is_raw());
    for number in 0..5 {
        terminal.press(&format!("hello {number}\r"));
        terminal.expect(&format!("ECHO hello {number}"));
    }
    assert_eq!(terminal.seen.matches("hello").count(), 5, "the terminal echoes nothing itself");
    // One key at a time.
    for key in ["k", "e", "y"] {
        terminal.press(key);
        std::thread::sleep(Duration::from_millis(5));
    }
    terminal.press("\r");
    terminal.expect("ECHO key");
    // Ctrl-C, Ctrl-Z, Ctrl-\, Ctrl-S and Ctrl-D are the guest's.
    terminal.press("\x03\x1a\x1c\x13\x04!\r");
    terminal.expect("ECHO \x03\x1a\x1c\x13\x04!");
    // Ctrl-A Ctrl-A is one Ctrl-A; another key after Ctrl-A is that key.
    terminal.press("<\x01\x01>\x01q\r");
    terminal.expect("ECHO <\x01>q");
    terminal.press("exit\r");
    terminal.expect_code(0);
    terminal.expect_restored();
}

#[test]
fn a_paste_arrives_whole() {
    need_kvm!();
    let mut terminal = Terminal::open();
    let _shell = terminal.mote("--cmdline mode=echo");
    terminal.expect("READY");
    let lines: Vec<String> = (0..30).map(|number| format!("line {number} {}", "x".repeat(60))).collect();
    terminal.press(&(lines.join("\r") + "\r"));
    for line in &lines {
        terminal.expect(&format!("ECHO {line}"));
    }
    terminal.press("\x01x");
    terminal.expect_code(130);
}

#[test]
fn every_way_out_restores_the_terminal() {
    need_kvm!();
    let press = |keys: &'static str| move |terminal: &Terminal, _: Pid| terminal.press(keys);
    let send = |signal: Signal| move |_: &Terminal, mote: Pid| kill_process(mote, signal).unwrap();
    type Act = Box<dyn Fn(&Terminal, Pid)>;
    let ways: [(&str, Act, i32); 12] = [
        ("--cmdline mode=echo", Box::new(press("exit\r")), 0),
        ("--cmdline mode=idle", Box::new(press("\x01x")), 130),
        ("--cmdline mode=spin", Box::new(press("\x01X")), 130),
        ("--cmdline mode=idle", Box::new(send(Signal::TERM)), 0),
        ("--cmdline mode=spin --shutdown-timeout 0.1", Box::new(send(Signal::TERM)), 143),
        ("--cmdline mode=spin --shutdown-timeout 0", Box::new(send(Signal::TERM)), 143),
        ("--cmdline mode=spin", Box::new(send(Signal::HUP)), 129),
        ("--cmdline mode=spin", Box::new(send(Signal::INT)), 130),
        ("--cmdline mode=spin", Box::new(send(Signal::QUIT)), 131),
        ("--cmdline mode=idle --timeout 0.5", Box::new(|_, _| {}), 6),
        ("--cmdline mode=spin --timeout 0.5", Box::new(|_, _| {}), 6),
        ("--cmdline 'mode=tick n=3 status=7'", Box::new(|_, _| {}), 5),
    ];
    for (flags, act, code) in &ways {
        let mut terminal = Terminal::open();
        let shell = terminal.mote(flags);
        terminal.expect("READY");
        if *code != 6 {
            assert!(terminal.is_raw(), "{flags}");
        }
        if *code != 5 && *code != 6 {
            act(&terminal, shell.mote());
        }
        terminal.expect_code(*code);
        terminal.expect_restored();
    }
}

#[test]
fn a_guest_that_crashes_and_one_that_cannot_start_restore_the_terminal() {
    need_kvm!();
    for (flags, code, says) in [
        ("", 0, "READY"),
        ("--cmdline mode=triple", 3, "triple fault"),
        ("--cmdline mode=panic", 3, "panicked"),
        ("--kernel /nowhere", 1, "/nowhere"),
        ("--kernel /dev/null", 1, "/dev/null"),
        ("--initrd /nowhere", 1, "/nowhere"),
        ("--result /nowhere/file", 1, "/nowhere/file"),
        ("--cpus 0", 2, "vCPUs"),
    ] {
        let mut terminal = Terminal::open();
        let _shell = terminal.mote(flags);
        terminal.expect(says);
        terminal.expect_code(code);
        terminal.expect_restored();
    }
}

#[test]
fn signals_during_the_start_restore_the_terminal() {
    need_kvm!();
    for delay in 0..10 {
        let mut terminal = Terminal::open();
        let shell = terminal.mote("--cmdline mode=spin");
        let mote = shell.mote();
        std::thread::sleep(Duration::from_micros(700 * delay));
        kill_process(mote, Signal::HUP).unwrap();
        terminal.expect_code(129);
        terminal.expect_restored();
    }
}

/// What is typed to a guest that does not read must not bury Ctrl-A x.
#[test]
fn a_deaf_guest_can_be_quit() {
    need_kvm!();
    let mut terminal = Terminal::open();
    let _shell = terminal.mote("--cmdline mode=spin");
    terminal.expect("READY");
    for _ in 0..100 {
        terminal.press(&"x".repeat(1000));
    }
    terminal.press("\x01x");
    terminal.expect_code(130);
    terminal.expect_restored();
}

#[test]
fn a_background_job_leaves_the_terminal_alone() {
    need_kvm!();
    let mut terminal = Terminal::open();
    let shell =
        terminal.shell("set -m; \"$0\" run --cmdline 'mode=tick n=8' & wait $!; echo CODE=$?.; read line");
    let mote = shell.mote();
    terminal.expect("READY");
    let foreground = tcgetpgrp(&terminal.slave).ok();
    if foreground.is_some() {
        assert_ne!(getpgid(Some(mote)).ok(), foreground, "it is no background job");
    }
    terminal.expect_restored();
    // Typed for the shell: to read it would stop mote.
    terminal.press("for the shell\n");
    terminal.expect_code(0);
    terminal.expect_restored();
}

/// Stopped in the foreground, and sent on in the background: neither a key nor the end may stop it again.
#[test]
fn a_job_that_was_moved_to_the_background_ends() {
    need_kvm!();
    let mut terminal = Terminal::open();
    let shell = terminal.shell(
        "set -m; \"$0\" run --cmdline 'mode=tick n=15'; echo STOPPED; bg; wait %1; echo CODE=$?.; read line",
    );
    let mote = shell.mote();
    terminal.expect("tick=2 ");
    kill_process(mote, Signal::STOP).unwrap();
    terminal.expect("STOPPED");
    terminal.expect("tick=");
    terminal.press("x");
    terminal.expect_code(0);
}

#[test]
fn time_runs_out_on_a_terminal_that_is_held_with_ctrl_s() {
    need_kvm!();
    let terminal = Terminal::open();
    terminal.press("\x13");
    let mut command = Command::new(MOTE);
    command.args(["run", "--cmdline", "mode=flood mb=64", "--timeout", "1"]);
    // Stdin is something else: raw mode would let the output go on.
    let child = command.stdin(Stdio::null()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn();
    assert_eq!(Running(child.unwrap()).finish(), 6);
}

#[test]
fn time_runs_out_on_a_terminal_that_nobody_reads() {
    need_kvm!();
    let terminal = Terminal::open();
    terminal.fill();
    let mut command = Command::new(MOTE);
    command.args(["run", "--cmdline", "mode=flood mb=64", "--timeout", "1"]);
    assert_eq!(terminal.attach(&mut command).finish(), 6);
    terminal.expect_restored();
}

#[test]
fn keys_work_on_a_terminal_that_nobody_reads() {
    need_kvm!();
    let terminal = Terminal::open();
    terminal.fill();
    let mut command = Command::new(MOTE);
    let mote = terminal.attach(command.args(["run", "--cmdline", "mode=flood mb=64"]));
    let deadline = Instant::now() + PATIENCE;
    while !terminal.is_raw() {
        assert!(Instant::now() < deadline, "it does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    terminal.press("\x01x");
    let start = Instant::now();
    assert_eq!(mote.finish(), 130);
    assert!(start.elapsed() < Duration::from_secs(4), "it waited for the reader of its last output");
    terminal.expect_restored();
}

/// As after `su`: the terminal belongs to another user and cannot be opened a second time. (Here /proc is hidden.)
#[test]
fn a_terminal_that_cannot_be_opened_again_may_be_slow_too() {
    need_kvm!();
    let hidden = |terminal: &Terminal, flags: &str| {
        let script = format!("mount -t tmpfs none /proc && exec \"$0\" run {flags}");
        terminal.attach(Command::new("unshare").args(["--mount", "sh", "-c", &script, MOTE]))
    };
    let mut terminal = Terminal::open();
    let end = hidden(&terminal, "--cmdline 'mode=flood kb=4 poll=1'").finish();
    if end != 0 {
        return skipped("a_terminal_that_cannot_be_opened_again", "mount namespaces are not allowed here");
    }
    terminal.expect("READY");
    for _ in 0..64 {
        terminal.expect("\n");
    }
    terminal.fill();
    assert_eq!(hidden(&terminal, "--cmdline 'mode=flood mb=64' --timeout 1").finish(), 6);
    terminal.expect_restored();
}

/// A terminal that is gone is an end of input, not a guest's end: nohup asks for that.
#[test]
fn a_terminal_that_hangs_up_costs_no_time() {
    need_kvm!();
    let mut terminal = Terminal::open();
    let mut command = Command::new(MOTE);
    let mote = terminal.attach(command.args(["run", "--cmdline", "mode=tick n=30"]).process_group(0));
    terminal.expect("tick=1 ");
    let pid = mote.0.id();
    drop(terminal);
    std::thread::sleep(Duration::from_millis(200));
    let before = support::cpu_time(pid);
    std::thread::sleep(Duration::from_secs(1));
    let spent = support::cpu_time(pid) - before;
    assert!(spent < Duration::from_millis(300), "{spent:?} of a second");
    assert_eq!(mote.finish(), 0);
}

/// The terminal's open file description is shared with the shell: it must not become non-blocking.
#[test]
fn the_shells_descriptors_stay_as_they_are() {
    need_kvm!();
    let mut terminal = Terminal::open();
    let before = rustix::fs::fcntl_getfl(&terminal.slave).unwrap();
    let _shell = terminal.mote("--cmdline mode=echo");
    terminal.expect("READY");
    assert_eq!(rustix::fs::fcntl_getfl(terminal.slave.as_fd()).unwrap(), before);
    terminal.press("exit\r");
    terminal.expect_code(0);
    assert_eq!(rustix::fs::fcntl_getfl(&terminal.slave).unwrap(), before);
}
