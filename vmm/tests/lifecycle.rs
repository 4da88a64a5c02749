//! Created, running, paused, stopped: a machine's states, through the library.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod support;

use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use support::PATIENCE;
use vmm::config::{CpuCount, VmConfig};
use vmm::console::{ConsoleOutput, Sink};
use vmm::event_loop::Waker;
use vmm::machine::{self, Lifecycle, LifecycleError, Machine, Shared};
use vmm::outcome::Outcome;
use vmm::timeline::Timeline;

/// How long silence is listened to: several ticks.
const SILENCE: Duration = Duration::from_millis(500);

/// One test at a time, since some count what the process has: descriptors, threads, memory.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine and the other end of its console, without a session: the test does what a session would.
struct Vm {
    machine: Machine,
    console: Arc<ConsoleOutput>,
    output: PipeReader,
    seen: String,
}

impl Vm {
    fn new(cmdline: &str, cpus: u64) -> Self {
        Self::with(&VmConfig {
            cmdline: boot::Cmdline::new(cmdline).unwrap(),
            cpus: CpuCount::try_from(cpus).unwrap(),
            ..VmConfig::default()
        })
    }

    fn with(config: &VmConfig) -> Self {
        let (output, writer) = std::io::pipe().unwrap();
        fcntl_setfl(&output, OFlags::NONBLOCK).unwrap();
        let (timeline, wake) = (Arc::<Timeline>::default(), Waker::new().unwrap());
        let sink = Sink::new(OwnedFd::from(writer)).unwrap();
        let console = Arc::new(ConsoleOutput::new(sink, wake.clone(), Arc::clone(&timeline)));
        let shared = Arc::new(Shared::new(timeline, wake, None));
        let machine = machine::build(config, Arc::clone(&console), shared).unwrap();
        Self { machine, console, output, seen: String::new() }
    }

    /// What has come out since the last look.
    fn take_output(&mut self) -> String {
        self.console.flush();
        let mut bytes = Vec::new();
        // Ends with the pipe empty.
        let _ = self.output.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        self.seen.push_str(&text);
        text
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let mut news = String::new();
        self.until(|vm| {
            news.push_str(&vm.take_output());
            news.contains(text)
        });
    }

    #[track_caller]
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < deadline,
                "in vain; it is {:?}, {:?}",
                self.machine.lifecycle(),
                self.seen
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[track_caller]
    fn expect_end(&mut self, outcome: Outcome) {
        self.until(|vm| vm.machine.lifecycle() == Lifecycle::Stopped);
        assert_eq!(self.machine.ending().unwrap().outcome, outcome);
    }

    #[track_caller]
    fn expect_silence(&mut self) {
        self.take_output();
        std::thread::sleep(SILENCE);
        assert_eq!(self.take_output(), "", "a machine that stands still says nothing");
    }
}

fn illegal(from: Lifecycle, wanted: &'static str) -> Result<(), LifecycleError> {
    Err(LifecycleError::Illegal { from, wanted })
}

#[test]
fn a_machine_is_created_runs_pauses_runs_and_ends() {
    need_kvm!();
    let _alone = alone();
    // The second CPU is never started by the guest: it waits for INIT in the kernel, and has to leave from there.
    for cpus in [1, 2, 4] {
        let mut vm = Vm::new("mode=tick n=20", cpus);
        assert_eq!(vm.machine.lifecycle(), Lifecycle::Created);
        vm.expect_silence();
        vm.machine.start().unwrap();
        assert_eq!(vm.machine.lifecycle(), Lifecycle::Running);
        vm.expect("tick=2 ");
        vm.machine.pause().unwrap();
        assert_eq!(vm.machine.lifecycle(), Lifecycle::Paused);
        vm.expect_silence();
        vm.machine.resume().unwrap();
        assert_eq!(vm.machine.lifecycle(), Lifecycle::Running);
        vm.expect_end(Outcome::PowerOff);
        vm.take_output();
        for tick in 1..=20 {
            assert_eq!(vm.seen.matches(&format!("tick={tick} ")).count(), 1, "{cpus} CPUs: {}", vm.seen);
        }
    }
}

#[test]
fn a_busy_guest_pauses_as_well() {
    need_kvm!();
    let _alone = alone();
    let mut vm = Vm::new("mode=spin", 2);
    vm.machine.start().unwrap();
    vm.expect("READY");
    for _ in 0..100 {
        vm.machine.pause().unwrap();
        vm.machine.resume().unwrap();
    }
    let mut flood = Vm::new("mode=flood mb=64", 1);
    flood.machine.start().unwrap();
    flood.expect("READY");
    for _ in 0..10 {
        flood.machine.pause().unwrap();
        flood.take_output();
        assert_eq!(flood.take_output(), "");
        flood.machine.resume().unwrap();
        flood.expect("\n");
    }
}

#[test]
fn a_pause_may_come_at_once() {
    need_kvm!();
    let _alone = alone();
    for cpus in [1, 2, 8] {
        // Far more ticks than a slow host takes to pause it: a guest that has ended cannot be paused.
        let mut vm = Vm::new("mode=tick n=10000", cpus);
        vm.machine.start().unwrap();
        vm.machine.pause().unwrap();
        vm.expect_silence();
        vm.machine.resume().unwrap();
        vm.expect("tick=1 ");
        vm.machine.stop();
        assert_eq!(vm.machine.lifecycle(), Lifecycle::Stopped);
    }
}

#[test]
fn what_is_typed_while_it_is_paused_is_read_afterwards() {
    need_kvm!();
    let _alone = alone();
    let mut vm = Vm::new("mode=echo", 1);
    vm.machine.start().unwrap();
    vm.expect("READY");
    vm.machine.pause().unwrap();
    assert_eq!(vm.machine.serial_input(b"later\n").unwrap(), 6);
    vm.expect_silence();
    vm.machine.resume().unwrap();
    vm.expect("ECHO later");
    vm.machine.serial_input(b"exit\n").unwrap();
    vm.expect_end(Outcome::PowerOff);
}

#[test]
fn what_no_state_allows_is_an_error() {
    need_kvm!();
    let _alone = alone();
    let mut vm = Vm::new("mode=spin", 1);
    let machine = &mut vm.machine;
    assert_eq!(machine.pause(), illegal(Lifecycle::Created, "paused"));
    assert_eq!(machine.resume(), illegal(Lifecycle::Created, "resumed"));
    machine.start().unwrap();
    assert_eq!(machine.start(), illegal(Lifecycle::Running, "started"));
    assert_eq!(machine.resume(), illegal(Lifecycle::Running, "resumed"));
    machine.pause().unwrap();
    assert_eq!(machine.pause(), illegal(Lifecycle::Paused, "paused"));
    assert_eq!(machine.start(), illegal(Lifecycle::Paused, "started"));
    machine.stop();
    for _ in 0..2 {
        assert_eq!(machine.lifecycle(), Lifecycle::Stopped);
        assert_eq!(machine.start(), illegal(Lifecycle::Stopped, "started"));
        assert_eq!(machine.pause(), illegal(Lifecycle::Stopped, "paused"));
        assert_eq!(machine.resume(), illegal(Lifecycle::Stopped, "resumed"));
        machine.stop();
    }
    assert_eq!(machine.ending(), None, "it was stopped; it did not end");
}

#[test]
fn a_guest_that_has_ended_is_stopped() {
    need_kvm!();
    let _alone = alone();
    for (cmdline, outcome) in [("", Outcome::PowerOff), ("mode=triple", Outcome::Crash)] {
        let mut vm = Vm::new(cmdline, 2);
        vm.machine.start().unwrap();
        vm.expect_end(outcome);
        assert_eq!(vm.machine.pause(), illegal(Lifecycle::Stopped, "paused"));
        assert_eq!(vm.machine.resume(), illegal(Lifecycle::Stopped, "resumed"));
        assert_eq!(vm.machine.start(), illegal(Lifecycle::Stopped, "started"));
    }
}

/// It is paused or stopped then, but never neither; and what is paused ends after it goes on.
#[test]
fn a_guest_may_end_while_it_is_paused() {
    need_kvm!();
    let _alone = alone();
    // A run takes a few milliseconds: find out how many, and pause before, at and after its end.
    let mut vm = Vm::new("", 1);
    let start = Instant::now();
    vm.machine.start().unwrap();
    vm.expect_end(Outcome::PowerOff);
    let run = start.elapsed();
    let (mut paused, mut stopped) = (0, 0);
    for step in 0..60 {
        // On a busy host this thread may come too late each time. One that takes 100 ms is still there.
        let cmdline = if step % 6 == 0 { "mode=tick n=1" } else { "" };
        let mut vm = Vm::new(cmdline, 1 + step % 2);
        vm.machine.start().unwrap();
        std::thread::sleep(run * u32::try_from(step).unwrap() / 20);
        match vm.machine.pause() {
            Ok(()) => {
                paused += 1;
                assert_eq!(vm.machine.lifecycle(), Lifecycle::Paused);
                assert_eq!(vm.machine.ending(), None);
                vm.machine.resume().unwrap();
            }
            Err(error) => {
                stopped += 1;
                assert_eq!(Err(error), illegal(Lifecycle::Stopped, "paused"));
            }
        }
        vm.expect_end(Outcome::PowerOff);
    }
    assert!(paused > 0 && stopped > 0, "{paused} paused, {stopped} stopped: this showed nothing");
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    vcpu_threads: usize,
}

fn held() -> Held {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    Held {
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        vcpu_threads: names.filter(|name| name.starts_with("vcpu")).count(),
    }
}

fn address_space_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_dropped_machine_leaves_nothing_behind_whatever_its_state() {
    need_kvm!();
    let _alone = alone();
    // Much more than the allocator takes for each thread.
    let config = |cmdline| VmConfig {
        cmdline: boot::Cmdline::new(cmdline).unwrap(),
        cpus: "3".parse().unwrap(),
        memory: "4G".parse().unwrap(),
        ..VmConfig::default()
    };
    let rounds: [fn(&mut Vm); 5] = [
        |_| {},
        |vm| vm.machine.start().unwrap(),
        |vm| {
            vm.machine.start().unwrap();
            vm.expect("READY");
            vm.machine.pause().unwrap();
        },
        |vm| {
            vm.machine.start().unwrap();
            vm.expect("READY");
            vm.machine.stop();
        },
        |vm| {
            vm.machine.start().unwrap();
            vm.machine.pause().unwrap();
            vm.machine.stop();
        },
    ];
    rounds[1](&mut Vm::with(&config("")));
    let (before, space) = (held(), address_space_kib());
    assert_eq!(before.vcpu_threads, 0);
    for round in 0..20 {
        let mut vm = Vm::with(&config("mode=spin"));
        // Each thread gives itself its name.
        vm.until(|_| held().vcpu_threads == 3);
        rounds[round % rounds.len()](&mut vm);
        drop(vm);
        assert_eq!(held(), before, "after round {round}");
    }
    let growth = address_space_kib().saturating_sub(space);
    assert!(growth < 2 << 20, "{growth} KiB of address space are left behind");
}

/// One that ended by itself, and one that could not be built.
#[test]
fn an_ended_machine_and_a_failed_one_leave_nothing_behind() {
    need_kvm!();
    let _alone = alone();
    let before = held();
    for _ in 0..5 {
        let mut vm = Vm::new("", 2);
        vm.machine.start().unwrap();
        vm.expect_end(Outcome::PowerOff);
        drop(vm);
        assert_eq!(held(), before);

        // The initrd is looked at when the threads and the VM are there already.
        let config =
            VmConfig { initrd: Some("/nowhere".into()), cpus: "3".parse().unwrap(), ..VmConfig::default() };
        let (output, writer) = std::io::pipe().unwrap();
        let wake = Waker::new().unwrap();
        let sink = Sink::new(OwnedFd::from(writer)).unwrap();
        let console = Arc::new(ConsoleOutput::new(sink, wake.clone(), Arc::default()));
        assert!(machine::build(&config, console, Arc::new(Shared::new(Arc::default(), wake, None))).is_err());
        drop(output);
        assert_eq!(held(), before);
    }
}
