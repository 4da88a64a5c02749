//! Stdin, stdout, stderr, signals and limits as shells, supervisors and accidents hand them to mote.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod support;

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::Signal;
use support::{MOTE, Mote, PATIENCE, cpu_time, skipped};

/// A child that does not outlive its test.
struct Running(Child);

impl Running {
    fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    #[track_caller]
    fn finish(&mut self) -> i32 {
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
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mote(cmdline: &str) -> Command {
    let mut command = Command::new(MOTE);
    command.args(["run", "--cmdline", cmdline]).stdin(Stdio::null());
    command
}

/// The smallest pipe, soon full.
fn small_pipe() -> (PipeReader, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    (reader, writer.into())
}

#[track_caller]
fn expect_idle(pid: u32) {
    let before = cpu_time(pid);
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_time(pid) - before;
    assert!(spent < Duration::from_millis(100), "{spent:?} of a second");
}

fn has_vcpu(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread that ends between the two looks has no name any more.
    let name =
        |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("comm"));
    tasks.map(name).any(|name| name.is_ok_and(|name| name.starts_with("vcpu")))
}

#[test]
fn an_idle_machine_costs_no_time_whatever_stdin_is() {
    need_kvm!();
    let mut read = tempfile::tempfile().unwrap();
    read.write_all(b"more than the serial port takes at once: ".repeat(99).as_slice()).unwrap();
    std::io::Seek::rewind(&mut read).unwrap();
    let (closed, _) = std::io::pipe().unwrap();
    let (open, _writer) = std::io::pipe().unwrap();
    let (full, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'.'; 4096]).unwrap();
    let (socket, _) = UnixStream::pair().unwrap();
    let kinds: [(&str, Stdio); 9] = [
        ("nothing", Stdio::null()),
        ("an empty file", tempfile::tempfile().unwrap().into()),
        ("a file", read.into()),
        ("a directory", File::open("/").unwrap().into()),
        ("an endless device", File::open("/dev/zero").unwrap().into()),
        ("a pipe at its end", closed.into()),
        ("a pipe", open.into()),
        ("a pipe that the guest does not read", full.into()),
        ("a socket at its end", OwnedFd::from(socket).into()),
    ];
    for (kind, stdin) in kinds {
        let mut command = mote("mode=idle");
        let mut running = Running::spawn(command.stdin(stdin).stdout(Stdio::piped()));
        let mut ready = [0; 5];
        running.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        eprintln!("{kind}");
        expect_idle(running.0.id());
    }
}

#[test]
fn descriptors_are_few_and_not_inherited() {
    need_kvm!();
    let mut vm = Mote::run(&["--cmdline", "mode=idle"]);
    vm.expect("READY");
    let mut count = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", vm.pid())).unwrap() {
        let path = entry.unwrap().path();
        let number = path.file_name().unwrap().to_str().unwrap();
        let target = std::fs::read_link(&path).unwrap();
        // What this test's own parent left open is not mote's.
        let inherited =
            std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|ours| ours == target);
        if inherited || ["0", "1", "2"].contains(&number) {
            continue;
        }
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", vm.pid())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        // In octal (proc_pid_fdinfo(5)).
        let flags = OFlags::from_bits_retain(u32::from_str_radix(flags, 8).unwrap());
        assert!(flags.contains(OFlags::CLOEXEC), "{number} is {}", target.display());
        count += 1;
    }
    assert!((4..=13).contains(&count), "{count} descriptors");
}

#[test]
fn a_reader_that_comes_late_gets_everything_and_the_wait_costs_no_time() {
    need_kvm!();
    let (mut reader, writer) = small_pipe();
    let mut command = mote("mode=flood kb=16 poll=1");
    command.args(["--shutdown-timeout", "60"]).stdin(Stdio::piped()).stdout(writer);
    let mut running = Running::spawn(&mut command);
    drop(command);
    let mut ready = [0; 6];
    reader.read_exact(&mut ready).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while has_vcpu(running.0.id()) {
        assert!(Instant::now() < deadline, "the guest does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(running.0.stdin.take());
    expect_idle(running.0.id());
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert_eq!(running.finish(), 0);
    assert_eq!(output.len(), 16 << 10, "what was sent");
}

#[test]
fn a_user_who_wants_the_end_does_not_wait_for_the_reader() {
    need_kvm!();
    let (reader, writer) = small_pipe();
    let mut command = mote("mode=flood mb=64");
    let mut running = Running::spawn(command.args(["--shutdown-timeout", "50"]).stdout(writer));
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let start = Instant::now();
    assert_eq!(running.finish(), 130);
    assert!(start.elapsed() < Duration::from_secs(20));
    drop(reader);
}

/// `mote run 2>&1 | something slow`: the message at the end must not wait either.
#[test]
fn time_runs_out_though_all_output_is_one_full_pipe() {
    need_kvm!();
    let (_reader, writer) = small_pipe();
    let mut command = mote("mode=flood mb=64");
    command.args(["--timeout", "1"]).stdout(writer.try_clone().unwrap()).stderr(writer);
    let start = Instant::now();
    assert_eq!(Running::spawn(&mut command).finish(), 6);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn output_that_cannot_be_written_is_reported_once() {
    need_kvm!();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = mote("mode=flood kb=8").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "the guest goes on");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("output cannot be written") && stderr.contains("No space left"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// As inetd and systemd's sockets have it: one socket is stdin and stdout.
#[test]
fn a_socket_is_a_console() {
    need_kvm!();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let theirs = OwnedFd::from(theirs);
    let mut command = mote("mode=echo");
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs);
    let mut running = Running::spawn(&mut command);
    drop(command);
    ours.write_all(b"hello\nexit\n").unwrap();
    let mut output = String::new();
    ours.read_to_string(&mut output).unwrap();
    assert_eq!(running.finish(), 0);
    assert!(output.contains("READY\n") && output.contains("ECHO hello\n"), "{output}");

    let (unread, theirs) = UnixStream::pair().unwrap();
    let mut command = mote("mode=flood mb=64");
    command.args(["--timeout", "1"]).stdout(OwnedFd::from(theirs));
    assert_eq!(Running::spawn(&mut command).finish(), 6);
    drop(unread);

    let (gone, theirs) = UnixStream::pair().unwrap();
    drop(gone);
    let mut command = mote("mode=flood kb=8");
    assert_eq!(Running::spawn(command.stdout(OwnedFd::from(theirs))).finish(), 0);
}

/// Some supervisors start their children with every signal blocked.
#[test]
fn blocked_signals_are_no_obstacle() {
    need_kvm!();
    let run = |flags: &str| {
        let script = format!("exec env --block-signal \"$0\" run --cmdline mode=spin {flags}");
        Running::spawn(Command::new("sh").args(["-c", &script, MOTE]).stdin(Stdio::null())).finish()
    };
    match run("--timeout 0.3") {
        125 => skipped("blocked_signals_are_no_obstacle", "this env has no --block-signal"),
        code => assert_eq!(code, 6),
    }
}

#[test]
fn ignored_signals_stay_ignored() {
    need_kvm!();
    let script = "trap '' HUP INT; exec \"$0\" run --cmdline 'mode=tick n=5'";
    let mut command = Command::new("sh");
    command.args(["-c", script, MOTE]);
    let mut vm = Mote::spawn(command);
    vm.expect("READY");
    for signal in [Signal::HUP, Signal::INT] {
        vm.signal(signal);
    }
    vm.expect("tick=5 ");
    assert_eq!(vm.finish().code(), 0);
}

#[test]
fn a_background_job_of_a_script_runs_to_its_end() {
    need_kvm!();
    let script = "\"$0\" run --cmdline 'mode=tick n=3' & wait $!; echo CODE=$?.";
    let output = Command::new("sh").args(["-c", script, MOTE]).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("tick=3 ") && stdout.ends_with("CODE=0.\n"), "{output:?}");
}

#[test]
fn closed_standard_descriptors_do_no_harm() {
    need_kvm!();
    for redirection in ["<&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("\"$0\" run {redirection}");
        let output = Command::new("sh").args(["-c", &script, MOTE]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{redirection}: {output:?}");
    }
}

#[test]
fn too_few_descriptors_are_a_clear_error() {
    need_kvm!();
    for limit in 4..14 {
        let script = format!("ulimit -n {limit}; exec \"$0\" run --cpus 2");
        let output = Command::new("sh").args(["-c", &script, MOTE]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => assert_eq!(stderr, "", "{limit}"),
            Some(1) => {
                assert!(stderr.contains("Too many open files"), "{limit}: {stderr}");
                assert_eq!(stderr.lines().count(), 1, "{limit}: {stderr}");
            }
            _ => panic!("{limit}: {output:?}"),
        }
    }
}

#[test]
fn limits_may_be_longer_than_any_clock() {
    need_kvm!();
    for seconds in ["1e9", "1e15", "1.8e19"] {
        let end = Mote::run(&["--timeout", seconds, "--shutdown-timeout", seconds]).finish();
        assert_eq!((end.code(), end.stderr.as_str()), (0, ""), "{seconds}");
        let flags = ["--cmdline", "mode=idle", "--timeout", seconds, "--shutdown-timeout", seconds];
        let mut idle = Mote::run(&flags);
        idle.expect("READY");
        idle.signal(Signal::TERM);
        assert_eq!(idle.finish().code(), 0, "{seconds}");
    }
}
