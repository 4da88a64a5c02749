//! A guest under test: `Mote::run(..)`, `expect(..)`, `send(..)`, `finish()`.
//!
//! Every wait has an end, and the process is killed when its handle goes: a test that fails leaves nothing running.

// Each test file is a crate of its own and uses its part of this one.
#![expect(dead_code, unreachable_pub, reason = "shared by several test crates")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any step takes, even on a host that runs ten other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub const MOTE: &str = env!("CARGO_BIN_EXE_mote");

/// Whether this host has a KVM that mote can use; says why not.
pub fn have_kvm(test: &str) -> bool {
    match vmm::kvm::open() {
        Ok(_) => true,
        Err(error) => {
            skipped(test, &error.to_string());
            false
        }
    }
}

/// A test that cannot run here says so on a line of its own; `ci/test` counts these lines.
pub fn skipped(test: &str, reason: &str) {
    println!("SKIPPED: {test}: {reason}");
}

/// Returns from a test that needs `/dev/kvm` where there is none.
#[macro_export]
macro_rules! need_kvm {
    () => {
        if !support::have_kvm(std::thread::current().name().unwrap_or("a test")) {
            return;
        }
    };
}

/// The CPU time that a process has used so far.
pub fn cpu_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    // First field of each thread's schedstat, in ns (Linux's Documentation/scheduler/sched-stats.rst).
    let spent = tasks.map(|task| {
        let text = std::fs::read_to_string(task.expect("it runs").path().join("schedstat")).expect("it runs");
        text.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(spent.sum())
}

/// A running mote.
pub struct Mote {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: String,
    stderr: Option<JoinHandle<String>>,
}

/// How a mote ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The exit code, as a shell would show it.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }
}

impl Mote {
    /// `mote run` with these flags.
    pub fn run(flags: &[&str]) -> Self {
        let mut command = Command::new(MOTE);
        command.arg("run").args(flags);
        Self::spawn(command)
    }

    /// `mote run` with the embedded guest in this mode.
    pub fn guest(cmdline: &str) -> Self {
        Self::run(&["--cmdline", cmdline])
    }

    /// Any command that runs mote.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("mote starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut errors = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            // A test looks at what there is; bytes that are not text show as an empty string.
            let _ = errors.read_to_string(&mut text);
            text
        });
        Self { stdin: child.stdin.take(), child, lines, seen: String::new(), stderr: Some(stderr) }
    }

    /// The process, for signals and /proc.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `text`.
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.line_before(deadline) {
                Some(line) if line.contains(text) => return line,
                Some(_) => {}
                None => panic!("no line with '{text}' in:\n{}", self.seen),
            }
        }
    }

    /// The lines that come within `time`.
    pub fn lines_within(&mut self, time: Duration) -> Vec<String> {
        let deadline = Instant::now() + time;
        std::iter::from_fn(|| self.line_before(deadline)).collect()
    }

    fn line_before(&mut self, deadline: Instant) -> Option<String> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.seen.push_str(&line);
                self.seen.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.stdin.as_mut().expect("stdin is open").write_all(text.as_bytes()).expect("mote reads its stdin");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("mote runs");
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("mote is our child") {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("mote does not end; it said:\n{}", self.seen),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        while self.line_before(deadline).is_some() {}
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Finished { status, stdout: std::mem::take(&mut self.seen), stderr }
    }
}

impl Drop for Mote {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
