//! The escape suite from inside mote: a build of mote whose threads, under their filters and in a jail, make hostile
//! system calls (`examples/hostile`). Each is the end of the process, and the filter that ended it is named.
//!
//! In the testbed only (ci/jail-tests): a way out that works must not reach another host.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{MOTE, PATIENCE, skipped};

/// Nobody's.
const USER: &str = "61003";
/// What the hostile mote ends with where no filter has stopped it, and nothing else either.
const ESCAPED: i32 = 90;
/// What SIGSYS ends a process with, by the word of the jail's keeper.
const KILLED: i32 = 128 + libc::SIGSYS;
/// Each kind of thread, and what it is called by the kernel.
const THREADS: [(&str, &str); 3] = [("vmm", "hostile"), ("io", "io0"), ("vcpu", "vcpu0")];
/// What only a filter stops: without one, these succeed in a jail.
const LEFT_TO_SECCOMP: [&str; 10] = [
    "memory that is executable",
    "make memory executable",
    "a file in memory, to execute",
    "an io_uring of its own",
    "a second machine (KVM_CREATE_VM)",
    "TCP to the host (AF_INET)",
    "datagrams to host programs (AF_UNIX)",
    "a pair of sockets",
    "hold on to a process (pidfd_open)",
    "change a descriptor of others (F_SETFL)",
];

/// A try, as the hostile mote lists it.
struct Try {
    call: String,
    name: String,
}

/// How a machine ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    err: String,
}

/// Where the hostile mote is, and the jails.
struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    /// `None` where hostile calls have no place.
    fn new(test: &str) -> Option<Self> {
        if std::env::var_os("MOTE_JAIL_CGROUPS").is_none() {
            skipped(test, "it tries to break out: ci/jail-tests runs it in the testbed");
            return None;
        }
        let scene = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(scene.directory.path().join("base")).unwrap();
        fs::copy(Path::new(MOTE).with_file_name("examples").join("hostile"), scene.program()).unwrap();
        Some(scene)
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("hostile")
    }

    fn tries(&self) -> Vec<Try> {
        let output = Command::new(self.program()).arg("list").output().unwrap();
        let parse = |line: &str| {
            let (call, name) = line.split_once('\t').unwrap();
            Try { call: call.to_owned(), name: name.to_owned() }
        };
        String::from_utf8(output.stdout).unwrap().lines().map(parse).collect()
    }

    /// Runs a machine in a jail until its guest is there, and has one of its threads try what is called `name`.
    fn run(&self, thread: &str, name: &str, more: &[&str]) -> Ended {
        let base = self.directory.path().join("base");
        let mut command = Command::new(Path::new(MOTE).with_file_name("mote-jailer"));
        command.args(["--id", "a", "--uid", USER, "--gid", USER, "--new-pid-ns", "--exec-file"]);
        command.arg(self.program()).arg("--chroot-base-dir").arg(&base);
        command
            .args(["--", "run", "--memory", "16M", "--io-threads", "1", "--cmdline", "mode=idle"])
            .args(more);
        // Without /proc, mote cannot make sure that a pipe's reader would not hold its last words up.
        let complaints = self.directory.path().join("stderr");
        command.stderr(File::create(&complaints).unwrap());
        let mut jail = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = jail.stdin.take().unwrap();
        writeln!(input, "{name}").unwrap();
        let mut lines = BufReader::new(jail.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("READY"));
        if ready {
            let pid = fs::read_to_string(base.join("hostile/a/root/hostile.pid")).unwrap();
            signal(pid.trim(), thread);
        }
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = jail.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                jail.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Ended { code: status.code(), err: fs::read_to_string(&complaints).unwrap() }
    }
}

/// SIGUSR2 for the thread of a process that the kernel calls `name`.
#[expect(unsafe_code, reason = "tgkill has no safe wrapper")]
fn signal(pid: &str, name: &str) {
    let is_called = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim_end() == name;
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let task = tasks.find(is_called).unwrap();
    let tid: libc::pid_t = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let pid: libc::pid_t = pid.parse().unwrap();
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGUSR2) }, 0);
}

/// What the filter of `thread` did to `one`; `None` where it did nothing.
fn blocked(thread: &str, one: &Try, ended: &Ended) -> Option<String> {
    if one.call.is_empty() {
        return (ended.code == Some(KILLED)).then(|| "SIGSYS".to_owned());
    }
    let begin = format!("mote: seccomp: the {thread} thread made system call ");
    let end = format!(" ({}), which its filter forbids\n", one.call);
    let number = ended.err.strip_prefix(&begin)?.strip_suffix(&end)?;
    (ended.code == Some(4)).then(|| format!("exit code 4, call {number}"))
}

#[test]
fn no_thread_makes_a_call_that_its_filter_forbids() {
    let Some(scene) = Scene::new("no_thread_makes_a_call_that_its_filter_forbids") else { return };
    let tries = scene.tries();
    let mut escaped = Vec::new();
    for (thread, name) in THREADS {
        for one in &tries {
            let ended = scene.run(name, &one.name, &[]);
            match blocked(thread, one, &ended) {
                Some(how) => println!("blocked {} from the {thread} thread by seccomp ({how})", one.name),
                None => escaped.push(format!("{} from the {thread} thread: {ended:?}", one.name)),
            }
        }
    }
    assert!(escaped.is_empty(), "ESCAPED {escaped:#?}");
    assert!(tries.len() >= 80, "only {} tries", tries.len());
    assert_eq!(fs::read_dir(scene.directory.path().join("base")).unwrap().count(), 0, "a jail is left");
}

#[test]
fn without_filters_these_calls_succeed() {
    let Some(scene) = Scene::new("without_filters_these_calls_succeed") else { return };
    for name in LEFT_TO_SECCOMP {
        let ended = scene.run("vcpu0", name, &["--no-seccomp"]);
        assert_eq!(ended.code, Some(ESCAPED), "{name}: {ended:?}");
    }
}
