//! The embedded guest on this host's KVM, as a user runs it.

#[macro_use]
mod support;

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{MOTE, Mote};

#[test]
fn a_machine_starts_says_ready_and_powers_off() {
    need_kvm!();
    let end = Mote::run(&[]).finish();
    assert_eq!((end.code(), end.stdout.as_str(), end.stderr.as_str()), (0, "READY\n", ""));
}

#[test]
fn what_is_typed_comes_back() {
    need_kvm!();
    let mut vm = Mote::guest("mode=echo");
    vm.expect("READY");
    vm.send("hello, guest\n");
    vm.expect("ECHO hello, guest");
    // More than the serial port's FIFO and the console's buffer hold at once.
    for number in 0..20 {
        vm.send(&format!("line {number} {}\n", "x".repeat(60)));
    }
    for number in 0..20 {
        vm.expect(&format!("ECHO line {number} "));
    }
    vm.send("exit\n");
    assert_eq!(vm.finish().code(), 0);
}

#[test]
fn input_may_come_from_a_file_and_end() {
    need_kvm!();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"from a file\nexit\n").unwrap();
    let output = Command::new(MOTE)
        .args(["run", "--cmdline", "mode=echo", "--timeout", "60"])
        .stdin(file.reopen().unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("ECHO from a file"));
}

#[test]
fn the_exit_code_says_how_the_guest_ended() {
    need_kvm!();
    for (cmdline, code, message) in [
        ("status=0", 0, ""),
        ("status=7", 5, "the guest reported status 7"),
        ("mode=panic", 3, "the guest's kernel panicked"),
        ("mode=triple", 3, "triple fault"),
        ("mode=unknown", 5, "the guest reported status 2"),
        ("mode=blk", 5, "the guest reported status 3"),
    ] {
        let end = Mote::guest(cmdline).finish();
        assert_eq!(end.code(), code, "{cmdline}: {end:?}");
        assert!(end.stderr.contains(message), "{cmdline}: {end:?}");
        assert!(end.stderr.lines().count() <= 1, "{cmdline}: more than one line: {end:?}");
    }
}

#[test]
fn a_guest_that_this_kvm_cannot_execute_ends_with_a_clear_word() {
    need_kvm!();
    let end = Mote::guest("mode=bad").finish();
    // A KVM that emulates kernel code gives up; any other executes the instruction, and the guest reports its exception.
    match end.code() {
        3 => assert!(end.stderr.contains("KVM cannot emulate") && end.stderr.contains("bytes cc"), "{end:?}"),
        5 => assert!(end.stdout.contains("exception vector=3"), "{end:?}"),
        other => panic!("exit code {other}: {end:?}"),
    }
}

#[test]
fn time_runs_out_with_exit_code_6() {
    need_kvm!();
    for cmdline in ["mode=idle", "mode=spin"] {
        let end = Mote::run(&["--cmdline", cmdline, "--timeout", "0.3"]).finish();
        assert_eq!(end.code(), 6, "{cmdline}: {end:?}");
        assert!(end.stderr.contains("--timeout"), "{end:?}");
    }
}

#[test]
fn signals_end_the_machine_with_128_and_their_number() {
    need_kvm!();
    for (signal, code) in [(Signal::INT, 130), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let mut vm = Mote::guest("mode=spin");
        vm.expect("READY");
        vm.signal(signal);
        assert_eq!(vm.finish().code(), code);
    }
}

#[test]
fn sigterm_presses_the_power_button() {
    need_kvm!();
    let mut vm = Mote::guest("mode=idle");
    vm.expect("READY");
    vm.signal(Signal::TERM);
    assert_eq!(vm.finish().code(), 0, "a guest that listens powers off");

    let mut deaf = Mote::run(&["--cmdline", "mode=spin", "--shutdown-timeout", "0.2"]);
    deaf.expect("READY");
    deaf.signal(Signal::TERM);
    let end = deaf.finish();
    assert_eq!(end.code(), 143, "one that does not is ended: {end:?}");
    assert!(end.stderr.contains("did not power off within 0.2 s"), "{end:?}");

    let mut deaf = Mote::run(&["--cmdline", "mode=spin", "--shutdown-timeout", "600"]);
    deaf.expect("READY");
    deaf.signal(Signal::TERM);
    // Two that arrive before either is read are one: POSIX does not count them.
    std::thread::sleep(Duration::from_millis(300));
    deaf.signal(Signal::TERM);
    assert_eq!(deaf.finish().code(), 143, "a second one does not wait");
}

#[test]
fn signals_during_the_start_end_it_too() {
    need_kvm!();
    for delay in 0..12 {
        let vm = Mote::guest("mode=spin");
        std::thread::sleep(Duration::from_micros(500 * delay));
        vm.signal(Signal::HUP);
        assert_eq!(vm.finish().code(), 129, "after {delay} half milliseconds");
    }
}

#[test]
fn the_result_is_one_json_object() {
    need_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("result");
    let path_text = path.to_str().unwrap();
    let read = || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
    Mote::run(&["--cmdline", "status=9", "--result", path_text]).finish();
    assert_eq!(read()["outcome"], "power-off");
    assert_eq!(read()["guest_status"], 9);
    Mote::run(&["--cmdline", "mode=triple", "--result", path_text]).finish();
    assert_eq!(read()["outcome"], "crash");
    Mote::run(&["--kernel", "/nowhere", "--result", path_text]).finish();
    assert_eq!(read()["outcome"], "error");
    assert!(read()["reason"].as_str().unwrap().contains("/nowhere"));

    let shell = format!("{MOTE} run --result fd:7 7>&1 >/dev/null");
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &result["outcome"]), (Some(0), &"power-off".into()));
}

#[test]
fn the_timeline_has_every_phase_in_order() {
    need_kvm!();
    let file = tempfile::NamedTempFile::new().unwrap();
    Mote::run(&["--timeline", file.path().to_str().unwrap()]).finish();
    let text = std::fs::read_to_string(file.path()).unwrap();
    let mut phases: Vec<(String, u64)> = Vec::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        phases.push((line["phase"].as_str().unwrap().to_owned(), line["ns"].as_u64().unwrap()));
    }
    assert!(phases.is_sorted_by_key(|(_, ns)| *ns), "{phases:?}");
    let at = |name: &str| {
        let found = phases.iter().find(|(phase, _)| phase == name);
        found.unwrap_or_else(|| panic!("no {name} in {phases:?}")).1
    };
    let starts = [
        "exec",
        "args",
        "kvm_open",
        "memory",
        "vm_created",
        "vcpu_created",
        "first_run",
        "first_exit",
        "exit",
    ];
    assert!(starts.is_sorted_by_key(|name| at(name)), "{phases:?}");
    assert!(at("vm_created") < at("devices") && at("kernel_loaded") < at("devices"));
    assert!(at("devices") < at("first_run") && at("first_exit") <= at("first_serial_byte"));
    assert!(at("guest_ready") < at("exit"));
    assert!(
        at("exec") > 0 && at("exit") < 60_000_000_000,
        "since the process started, not since the host did"
    );
}

#[test]
fn a_full_pipe_stops_neither_timers_nor_the_guest_nor_grows() {
    need_kvm!();
    let mut command = Command::new(MOTE);
    command.args(["run", "--cmdline", "mode=flood mb=64", "--timeout", "1.5", "--shutdown-timeout", "0"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    // Nobody reads. The memory that is not the guest's stays what it is.
    std::thread::sleep(Duration::from_millis(700));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert!(kib("RssAnon") < 4 << 10, "{status}");
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(6), "the time limit fires although stdout is stuck");
    assert!(start.elapsed() < Duration::from_secs(30));
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert!(output.starts_with(b"READY\n") || !output.is_empty());
}

#[test]
fn a_slow_reader_gets_every_byte_of_a_guest_that_looks_before_it_writes() {
    need_kvm!();
    // 128 KiB: twice what the console's buffer holds.
    let mut command = Command::new(MOTE);
    command.args(["run", "--cmdline", "mode=flood kb=192 poll=1", "--timeout", "300"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(output.len() >= 192 << 10, "{} bytes arrived", output.len());
}

#[test]
fn a_closed_stdout_does_not_stop_the_guest() {
    need_kvm!();
    let shell = format!("{MOTE} run --cmdline 'mode=flood kb=16' >&-; echo $? >&2");
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("0\n"), "{output:?}");
    let shell = format!("({MOTE} run --cmdline 'mode=flood kb=64'; echo $? >&2) | head -c 1 >/dev/null");
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("0\n"), "{output:?}");
}

#[test]
fn many_cpus_and_much_memory_are_there() {
    need_kvm!();
    for memory in ["16M", "3G", "3073M", "8G", "64G"] {
        let end = Mote::run(&["--cmdline", "mode=mem", "--memory", memory, "--cpus", "2"]).finish();
        assert_eq!(end.code(), 0, "{memory}: {end:?}");
        assert!(end.stdout.starts_with("READY\n"), "{memory}: {end:?}");
    }
}

#[test]
fn both_protocols_enter_the_guest() {
    need_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let elf = directory.path().join("guest.elf");
    let status = Command::new(MOTE).args(["guest", "--output"]).arg(&elf).status().unwrap();
    assert!(status.success());
    for protocol in ["auto", "linux64", "pvh"] {
        let end = Mote::run(&["--kernel", elf.to_str().unwrap(), "--boot-protocol", protocol]).finish();
        assert_eq!((end.code(), end.stdout.as_str()), (0, "READY\n"), "{protocol}: {end:?}");
    }
}

#[test]
fn memory_may_be_filled_in_advance_and_in_huge_pages() {
    need_kvm!();
    for flags in [&["--prefault"][..], &["--hugepages", "thp"], &["--hugepages", "thp", "--prefault"]] {
        assert_eq!(Mote::run(flags).finish().code(), 0, "{flags:?}");
    }
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: u64 = free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let end = Mote::run(&["--hugepages", "2m"]).finish();
    if free < 64 {
        assert_eq!(end.code(), 1, "{end:?}");
        assert!(end.stderr.contains("/proc/sys/vm/nr_hugepages"), "{end:?}");
    } else {
        assert_eq!(end.code(), 0, "{end:?}");
    }
}

#[test]
fn a_timeline_on_stderr_overwrites_nothing() {
    need_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let shell = format!(
        "exec 2>{}; echo before >&2; {MOTE} run --timeline /dev/stderr >/dev/null; echo after >&2",
        log.display()
    );
    assert!(Command::new("sh").args(["-c", &shell]).status().unwrap().success());
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.starts_with("before\n{\"phase\":\"exec\"") && text.ends_with("after\n"), "{text}");
}
