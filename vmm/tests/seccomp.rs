//! The seccomp filters: what a violation does, which files of filters are refused, and that every rule is needed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use devices::virtio::block::{Block, BlockOptions, Engine};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{MOTE, Mote, skipped};

/// The filters as they are built in.
const FILTERS: &str = include_str!("../../jailer/filters/mote.json");
/// What a build with debug assertions needs besides.
const DEBUG: &str = include_str!("../../jailer/filters/debug.json");

/// A machine on a terminal.
const ON_TERMINAL: &str = "script --quiet --return --command \"$(declare -f mote); mote --cmdline 'mode=tick n=3'\" /dev/null </dev/null";

/// Machines that use what mote has, as scripts in which `mote` stands for `mote run` under a filter. At the
/// socket `vsock` a host program connects again and again; others send back what guests send to port 1, and
/// take their time to read what goes to port 2.
const WORKLOADS: [&str; 14] = [
    "mote --timeline timeline --result result",
    "echo exit | mote --cmdline mode=echo --cpus 2",
    "mote --cmdline mode=triple",
    "mote --disk disk --cmdline 'mode=blk op=read n=5'",
    "mote --disk disk --cmdline 'mode=blk op=write n=5'",
    "mote --disk \"$slow/disk\" --cmdline 'mode=blk op=read depth=4 n=50'",
    "rm -f vsock; mote --vsock cid=3,uds=vsock --cmdline 'mode=vsock op=echo port=1 n=50 size=5000'",
    "rm -f vsock; mote --vsock cid=3,uds=vsock --cmdline 'mode=tick n=5'",
    ON_TERMINAL,
    "unshare --net sh -c \"ip tuntap add t0 mode tap; ip addr add 10.0.0.1/24 dev t0; ip link set t0 up
        $(declare -f mote); mote --net tap=t0 --cmdline 'mode=net n=1' --timeout 1\"",
    "rm -f vsock; mote --vsock cid=3,uds=vsock --cmdline 'mode=vsock op=stream port=2 mb=1'",
    "(head -c 65536 /dev/zero; mote) | (sleep 0.3; cat) >/dev/null",
    "mote --cmdline mode=idle >out & until grep -q READY out; do kill -0 $! || break; done; kill $!; wait $!",
    "mote --cmdline 'mode=flood kb=64' --log-level debug | head -c 1 >/dev/null",
];

/// Rules that no machine here can be made to need: the thread, if it is not any, the call, what stands beside
/// its argument, and where it is needed.
const ELSEWHERE: [(&str, &str, Option<&str>, &str); 17] = [
    ("", "clock_gettime", None, "hosts whose clock the vDSO cannot read"),
    ("", "futex", Some("FUTEX_WAIT, private"), "two threads that allocate at the same instant"),
    ("", "brk", None, "an allocation from a full heap"),
    ("", "mmap", Some("PROT_READ | PROT_WRITE"), "an allocation of 128 KiB"),
    ("", "mremap", Some("MREMAP_MAYMOVE"), "one that grows"),
    ("", "getrandom", None, "ci/linux-tests seccomp-getrandom"),
    (
        "",
        "fallocate",
        Some("FALLOC_FL_KEEP_SIZE, PUNCH_HOLE or ZERO_RANGE only"),
        "ci/linux-tests seccomp-fallocate",
    ),
    ("", "madvise", Some("MADV_DONTNEED"), "ci/linux-tests seccomp-madvise"),
    ("", "sendto", Some("no address"), "ci/linux-tests seccomp-sendto"),
    ("", "shutdown", None, "ci/linux-tests seccomp-shutdown"),
    ("", "writev", None, "a frame in several pieces: ci/linux-tests seccomp-writev"),
    ("vcpu", "ioctl", Some("KVM_IRQ_LINE"), "a serial port with interrupts: ci/linux-tests"),
    ("io", "ioctl", Some("KVM_IRQ_LINE"), "a host without descriptors for irqfds"),
    ("io", "write", None, "interrupts, which a driver that polls turns off: ci/linux-tests"),
    ("io", "ppoll", None, "a log line whose reader is slow"),
    ("io", "futex", Some("FUTEX_WAIT_BITSET, private"), "a device that two threads want at the same instant"),
    ("io", "exit_group", None, "a violation, as for the other threads"),
];

/// In the comment of what is needed by the report of a violation.
const REPORT: &str = "report of a violation";

/// Files and host programs for the machines.
struct Scene {
    /// On a tmpfs, where disks are read by system calls.
    directory: tempfile::TempDir,
    /// On a disk, which is read by an io_uring.
    slow: tempfile::TempDir,
    over: Arc<AtomicBool>,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let slow = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for place in [directory.path(), slow.path()] {
            std::fs::write(place.join("disk"), vec![0; 1 << 20]).unwrap();
        }
        let over = Arc::<AtomicBool>::default();
        let listen = |port| UnixListener::bind(directory.path().join(format!("vsock_{port}"))).unwrap();
        let (echo, sink) = (listen(1), listen(2));
        std::thread::spawn(move || echo.incoming().for_each(|stream| answer(stream.unwrap(), false)));
        std::thread::spawn(move || sink.incoming().for_each(|stream| answer(stream.unwrap(), true)));
        let (stop, socket) = (Arc::clone(&over), directory.path().join("vsock"));
        std::thread::spawn(move || connect(&socket, &stop));
        Self { directory, slow, over }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The machine's ending.
    fn result(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path("result")).unwrap()).unwrap()
    }

    /// Runs a script, under these filters.
    fn run(&self, script: &str, filters: &Value, more: &str) -> Output {
        std::fs::write(self.path("filter.json"), filters.to_string()).unwrap();
        let script =
            format!("mote() {{ exec \"{MOTE}\" run --seccomp-filter filter.json {more} \"$@\"; }}; {script}");
        let mut command = Command::new("timeout");
        command
            .args(["30", "bash", "-o", "pipefail", "-c", &script])
            .env("slow", self.slow.path())
            .current_dir(&self.directory);
        command.stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A host program that sends back what a guest sends, or is `slow` to take it.
fn answer(mut stream: UnixStream, slow: bool) {
    std::thread::spawn(move || {
        if slow {
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if !slow && stream.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
}

/// A host program that connects to a guest again and again.
fn connect(socket: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if let Ok(mut stream) = UnixStream::connect(socket) {
            let _ = stream.write_all(b"CONNECT 7\n");
            let _ = stream.read(&mut [0; 64]);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The filters that are built in, as a file has them.
fn filters() -> Value {
    let mut filters: Value = serde_json::from_str(FILTERS).unwrap();
    if cfg!(debug_assertions) {
        let more: Value = serde_json::from_str(DEBUG).unwrap();
        for (thread, filter) in more.as_object().unwrap() {
            rules_of(&mut filters, thread).extend(filter["filter"].as_array().unwrap().iter().cloned());
        }
    }
    filters
}

fn rules_of<'a>(filters: &'a mut Value, thread: &str) -> &'a mut Vec<Value> {
    filters[thread]["filter"].as_array_mut().unwrap()
}

/// Whether mote ended for want of `rule` in the filter of `thread`.
fn missed(output: &Output, thread: &str, rule: &Value) -> bool {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let call = rule["syscall"].as_str().unwrap();
    let says = format!("the {thread} thread made system call ");
    let violated = |text: &str| text.contains(&says) && text.contains(&format!("({call}), which"));
    violated(&stderr) || violated(&stdout)
        // The report needs the same call: the second signal, which is blocked while the first is handled,
        // ends the process.
        || output.status.code() == Some(128 + 31)
}

/// Whether a rule is one of [`ELSEWHERE`].
fn is_elsewhere(thread: &str, rule: &Value) -> bool {
    let comment = rule["args"][0]["comment"].as_str();
    ELSEWHERE.iter().any(|&(only, call, argument, _)| {
        (only.is_empty() || only == thread) && rule["syscall"] == call && argument == comment
    })
}

/// Whether a thread that has violated its filter on a terminal cannot say so for want of a rule.
fn is_missed_in_report(scene: &Scene, filters: &Value, thread: &str, more: &str) -> bool {
    let mut filters = filters.clone();
    let violated = if thread == "vcpu" { "KVM_RUN" } else { "epoll_pwait" };
    rules_of(&mut filters, thread)
        .retain(|rule| rule["syscall"] != violated && rule["args"][0]["comment"] != violated);
    scene.run(ON_TERMINAL, &filters, more).status.code() != Some(4)
}

/// Why this host cannot have all of the workloads.
fn what_is_missing(scene: &Scene) -> Option<&'static str> {
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !works(Command::new("script").args(["--quiet", "--return", "--command", "true", "/dev/null"])) {
        return Some("no script(1), which makes terminals");
    }
    if !works(Command::new("unshare").args(["--net", "ip", "tuntap", "add", "t0", "mode", "tap"])) {
        return Some("no right to make a network namespace with a TAP device");
    }
    let slow = Block::open(&BlockOptions::new(scene.slow.path().join("disk")));
    let engine = slow.and_then(|mut disk| disk.prepare()).unwrap();
    (engine != Engine::IoUring).then_some("no io_uring for files in the target directory")
}

/// Takes each rule of the `thread` away, and looks for a machine that misses it. `more` are flags for all machines.
#[track_caller]
fn every_rule_is_needed(thread: &str, more: &str) {
    let scene = Scene::new();
    if let Some(missing) = what_is_missing(&scene) {
        return skipped(&format!("every rule of {thread} is needed"), missing);
    }
    for workload in WORKLOADS {
        let output = scene.run(workload, &filters(), more);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("seccomp"), "{workload}: {output:?}");
    }
    assert!(!is_missed_in_report(&scene, &filters(), thread, more), "a violation is not reported");
    let mut idle = Vec::new();
    for index in 0..rules_of(&mut filters(), thread).len() {
        let mut filters = filters();
        let rule = rules_of(&mut filters, thread).remove(index);
        let reports = rule["comment"].as_str().unwrap().contains(REPORT);
        let needed = is_elsewhere(thread, &rule)
            || reports && is_missed_in_report(&scene, &filters, thread, more)
            || WORKLOADS.iter().any(|workload| missed(&scene.run(workload, &filters, more), thread, &rule));
        if !needed {
            idle.push(rule);
        }
    }
    assert!(idle.is_empty(), "no workload needs {idle:#?}");
}

#[test]
fn every_rule_of_the_event_loop_is_needed() {
    need_kvm!();
    every_rule_is_needed("vmm", "");
}

#[test]
fn every_rule_of_an_io_thread_is_needed() {
    need_kvm!();
    every_rule_is_needed("io", "--io-threads 1");
}

#[test]
fn every_rule_of_a_virtual_cpu_is_needed() {
    need_kvm!();
    every_rule_is_needed("vcpu", "");
}

#[test]
fn a_violation_ends_the_machine_with_exit_code_4_and_is_named() {
    need_kvm!();
    let scene = Scene::new();
    for (thread, call, number, more) in [
        ("vcpu", "ioctl", 16, ""),
        ("vmm", "epoll_pwait", 281, ""),
        ("io", "epoll_pwait", 281, "--io-threads 1"),
    ] {
        let mut filters = filters();
        rules_of(&mut filters, thread).retain(|rule| rule["syscall"] != call);
        let output = scene.run("mote --result result --cmdline mode=idle --timeout 20", &filters, more);
        let reason = format!(
            "seccomp: the {thread} thread made system call {number} ({call}), which its filter forbids"
        );
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("mote: {reason}\n"));
        assert_eq!(scene.result(), json!({ "outcome": "seccomp", "guest_status": null, "reason": reason }));
    }
}

#[test]
fn a_filter_that_lets_calls_fail_or_be_logged_is_taken_too() {
    need_kvm!();
    let scene = Scene::new();
    let mut filters = filters();
    for thread in ["vmm", "io", "vcpu"] {
        filters[thread]["mismatch_action"] = json!("log");
        rules_of(&mut filters, thread).truncate(1);
    }
    let output = scene.run("mote", &filters, "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn the_signal_of_violations_from_elsewhere_ends_mote_as_itself() {
    need_kvm!();
    let mut vm = Mote::guest("mode=idle");
    vm.expect("READY");
    vm.signal(Signal::SYS);
    assert_eq!(vm.finish().code(), 128 + 31);
}
