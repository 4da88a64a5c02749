//! What an operation of a virtio device costs: disk, network and vsock, driven by the embedded guest's own drivers, beside
//! the same operation by a plain process.
//!
//! The floor is this process: it reads the same image, writes to the same TAP and the same Unix sockets. Guests wait by
//! looking at their rings, so nothing is measured but the device and the way to it. Images lie on a tmpfs, networks in a
//! namespace of this process's own.

mod host;
mod network;
mod report;
mod tasks;

use std::time::Duration;
use std::{error, io};

use fastrand::Rng;

use crate::binaries;
use crate::options::Options;
use crate::process::Warden;
use crate::report::chain;
use crate::results::Run;
use crate::subjects::{self, Absent, Job, Subject};
use host::Host;
use tasks::{CHECKS, Figures, TASKS, Task};

/// How long each operation is repeated in one round.
const TIME: Duration = Duration::from_millis(100);
/// Rounds before any that counts.
const WARM_UPS: usize = 1;
/// A guest that has not ended by then has failed.
const LIMIT: Duration = Duration::from_secs(30);
/// The disk's size: more than caches hold, and little for a tmpfs.
const DISK_SIZE: u64 = 128 << 20;
/// What the floor is called.
const FLOOR: &str = "floor";
/// Who is compared with all others, and with itself.
const MOTE: &str = "mote";

/// What came of one task under one subject, an entry for each round.
struct Series {
    task: &'static Task,
    subject: &'static str,
    /// Microseconds for one operation.
    times: Vec<Option<f64>>,
    bytes: u64,
    notifications: Option<f64>,
    failure: Option<String>,
}

/// Who does it.
enum Doer {
    Floor,
    Machine(Box<dyn Subject>),
}

impl Doer {
    fn name(&self) -> &'static str {
        match self {
            Self::Floor => FLOOR,
            Self::Machine(subject) => subject.name(),
        }
    }

    fn version(&self) -> String {
        match self {
            Self::Floor => String::new(),
            Self::Machine(subject) => subject.version(),
        }
    }

    /// Does `task` once.
    fn run(&self, task: &Task, host: &Host, warden: &Warden, seed: u64) -> Result<Figures, String> {
        let subject = match self {
            Self::Floor => return host.run(task.operation, TIME, seed).map_err(|error| chain(&error)),
            Self::Machine(subject) => subject,
        };
        let command_line = format!("{} seed={seed} ms={}", task.command_line, TIME.as_millis());
        let said = boot(&**subject, command_line, task, host, warden)?;
        Figures::parse(&said)
    }
}

/// Runs all tasks under all subjects, interleaved, prints what came of it, and appends it to the results.
///
/// # Errors
/// When the host cannot be prepared or results cannot be kept. A subject that fails is part of what is printed.
pub fn run(
    subjects: Vec<Box<dyn Subject>>,
    mut absent: Vec<Absent>,
    options: &Options,
    warden: &Warden,
) -> Result<(), Box<dyn error::Error>> {
    let run = Run::begin("devices", options.seed, binaries::commit());
    println!(
        "devices: {} interleaved runs of {TIME:?}, seed {}, commit {}, load {}, scheduling {}",
        options.runs, options.seed, run.commit, run.host.load, run.host.scheduling
    );
    let host = Host::prepare(warden.directory(), DISK_SIZE)?;
    let mut doers = if options.wants(FLOOR) { vec![Doer::Floor] } else { Vec::new() };
    for subject in subjects {
        let name = subject.name();
        if subject.has_devices() {
            doers.push(Doer::Machine(subject));
        } else if name != FLOOR {
            absent.push(Absent { name, reason: "the guest has no drivers for its devices".into() });
        }
    }
    let mut random = Rng::with_seed(options.seed);
    let mut failures = check(&doers, &host, warden);
    let (series, again) = interleave(&doers, &host, options, &mut random, warden);
    let mut comparisons = report::compare(&series, &mut random);
    comparisons.extend(report::compare_again(&series, &again, &mut random));
    println!("\n{}", report::tables(&series, &comparisons));
    println!("{}", report::noise(&comparisons));
    failures.extend(series.iter().filter_map(|series| {
        let failure = series.failure.as_ref()?;
        Some(format!("{} under {}: {failure}", series.task.name, series.subject))
    }));
    for failure in failures {
        println!("failed: {failure}");
    }
    if let Some(reason) = host.network_failure() {
        println!("absent: networks: {reason}");
    }
    for Absent { name, reason } in &absent {
        println!("absent: {name}: {reason}");
    }
    for line in report::promises(&comparisons) {
        println!("{line}");
    }
    let versions: Vec<_> = doers.iter().map(|doer| (doer.name(), doer.version())).collect();
    report::keep(&run, &versions, &series, &comparisons)
}

/// Has every subject prove that its devices deliver what was stored and sent, before it is timed.
fn check(doers: &[Doer], host: &Host, warden: &Warden) -> Vec<String> {
    let mut failures = Vec::new();
    for doer in doers {
        let Doer::Machine(subject) = doer else { continue };
        for task in CHECKS.iter().filter(|task| host.has(task.operation)) {
            let said = boot(&**subject, task.command_line.into(), task, host, warden);
            if let Err(failure) = said.and_then(|said| Figures::parse(&said)) {
                failures.push(format!("{} under {}: {failure}", task.name, doer.name()));
            }
        }
    }
    failures
}

/// Every round does each task once under each subject, in an order of its own, and once more under mote: those are the second
/// series. One that fails the warm-up is given up.
fn interleave(
    doers: &[Doer],
    host: &Host,
    options: &Options,
    random: &mut Rng,
    warden: &Warden,
) -> (Vec<Series>, Vec<Series>) {
    let twice = doers.iter().position(|doer| doer.name() == MOTE);
    let turns: Vec<usize> = (0..doers.len()).chain(twice).collect();
    let mut series = Vec::new();
    for task in TASKS.iter().filter(|task| host.has(task.operation)) {
        series.push(turns.iter().map(|&doer| Series::new(task, doers[doer].name())).collect::<Vec<_>>());
    }
    let mut tasks: Vec<usize> = (0..series.len()).collect();
    let mut order: Vec<usize> = (0..turns.len()).collect();
    for round in 0..WARM_UPS + options.runs {
        random.shuffle(&mut tasks);
        for &task in &tasks {
            random.shuffle(&mut order);
            for &turn in &order {
                let series = &mut series[task][turn];
                if round < WARM_UPS || series.failure.is_none() || !series.times.is_empty() {
                    let seed = random.u64(..1 << 32);
                    let result = doers[turns[turn]].run(series.task, host, warden, seed);
                    series.push(result, round >= WARM_UPS);
                }
            }
        }
    }
    let again = series.iter_mut().filter_map(|all| all.drain(doers.len()..).next()).collect();
    (series.into_iter().flatten().collect(), again)
}

impl Series {
    fn new(task: &'static Task, subject: &'static str) -> Self {
        Self { task, subject, times: Vec::new(), bytes: 0, notifications: None, failure: None }
    }

    /// A warm-up leaves nothing but its failure.
    fn push(&mut self, result: Result<Figures, String>, counts: bool) {
        let figures = result.map_err(|failure| self.failure = Some(failure)).ok();
        if counts {
            self.times.push(figures.map(Figures::microseconds));
            if let Some(figures) = figures {
                self.bytes = figures.bytes_per_operation();
                self.notifications = figures.notifications_per_operation();
            }
        }
    }
}

/// Boots the guest with the device that `task` needs, and returns what it says.
fn boot(
    subject: &dyn Subject,
    command_line: String,
    task: &Task,
    host: &Host,
    warden: &Warden,
) -> Result<String, String> {
    let started = || -> Result<_, io::Error> {
        let job = Job::with_devices(command_line, host.devices(task.operation), warden.directory())?;
        let command = subjects::command(subject, &job)?;
        host.before_machine()?;
        Ok((job, command))
    };
    let (job, mut command) = started().map_err(|error| chain(&error))?;
    let machine = warden.spawn(&mut command, &job.file("stderr"));
    machine.and_then(|mut machine| machine.wait_until_end(LIMIT)).map_err(|failure| chain(&failure))
}
