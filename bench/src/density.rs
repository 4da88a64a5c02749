//! How many machines a host holds, what one more costs it, and how fast they come and go.
//!
//! First each subject in turn fills the host up to a limit. What is available on the host is read after every start, and
//! a line through these readings is what one more machine costs, the kernel's share included, which no process's own
//! figures show. Then every machine must answer a line: one that does not is not alive. Then starts are timed, several
//! at a time, all kept alive, subjects interleaved.

mod rate;
mod report;

use std::collections::BTreeMap;
use std::error;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::binaries;
use crate::headroom;
use crate::options::Options;
use crate::process::{Failure, Machine, Warden};
use crate::progress;
use crate::report::chain;
use crate::results::Run;
use crate::statistics::Slope;
use crate::subjects::{self, Absent, Devices, Job, Subject, Subjects};

/// A machine that is not ready, or does not answer, by then has failed.
const LIMIT: Duration = Duration::from_secs(10);
/// So many that do not answer are enough.
const SILENT: usize = 3;
/// The starts at a time.
const AT_A_TIME: [usize; 4] = [1, 2, 4, 8];
/// Machines for one figure of a rate.
const BATCH: usize = 32;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At less memory available on the host, in MiB.
    pub margin_mib: u64,
    /// At so many machines.
    pub at_most: usize,
}

/// What came of filling the host with one subject.
struct Filling {
    /// How much was available after each start, in KiB.
    available: Vec<u64>,
    /// Why there are no more.
    stopped: String,
    /// How many answered; none were asked if the subject does not listen.
    answered: Option<usize>,
    /// What one more costs, in KiB.
    cost: Option<Slope>,
    /// How many ended in a second, when all were killed at once.
    ends: f64,
}

/// Rates of one subject, in machines a second, by [`AT_A_TIME`], an entry for each round.
type Rates = [Vec<Option<f64>>; AT_A_TIME.len()];

/// Runs everything, prints what came of it, and appends it to the results.
///
/// # Errors
/// When files cannot be written or results cannot be kept. A subject that fails is part of what is printed.
pub fn run(
    subjects: Subjects,
    limits: Limits,
    options: &Options,
    warden: &Warden,
) -> Result<(), Box<dyn error::Error>> {
    headroom::prefer_as_victim();
    let descriptors = headroom::raise_descriptor_limit();
    let at_most = limits.at_most.min(descriptors);
    if at_most < limits.at_most {
        println!(
            "left out: machines beyond {descriptors}, for which the limit of descriptors is enough (raise it: ulimit -Hn)"
        );
    }
    let limits = Limits { at_most, ..limits };
    let run = Run::begin("density", options.seed, binaries::commit());
    println!(
        "density: at most {at_most} machines, {} MiB left free, seed {}, commit {}, load {}, scheduling {}",
        limits.margin_mib, options.seed, run.commit, run.host.load, run.host.scheduling
    );
    let Subjects { mut present, absent } = subjects;
    // It would take most of the time, and idle_memory tells its price.
    present.retain(|subject| {
        subject.name() != "qemu-microvm" || options.subjects.contains(&"qemu-microvm".into())
    });
    let mut random = Rng::with_seed(options.seed);
    let mut fillings = Vec::new();
    for subject in progress::over("fill", present.iter().collect()) {
        fillings.push(fill(&**subject, limits, warden)?);
    }
    let twice = present.iter().position(|subject| subject.name() == "mote").unwrap_or(0);
    let measured = rate::measure(&present, twice, limits, options.runs, &mut random, warden)?;
    let rate::Measured { rates, again, failures } = measured;
    let mut comparisons = report::compare(&present, &rates, &mut random);
    println!("\n{}\n{}", report::fillings(&present, &fillings), report::rates(&present, &rates));
    if let (Some(subject), Some(first)) = (present.get(twice), rates.get(twice)) {
        print!("{}", report::noises(subject.name(), first, &again, &mut random));
        comparisons.extend(report::compare_twice(subject.name(), first, &again, &mut random));
    }
    for (failure, count) in tally(failures) {
        println!("failed: {failure}, {count} times");
    }
    for Absent { name, reason } in &absent {
        println!("absent: {name}: {reason}");
    }
    for line in report::promises(&comparisons) {
        println!("{line}");
    }
    report::keep(&run, &present, &absent, &fillings, &rates, &comparisons)
}

/// Each failure once, with how often it was.
fn tally(failures: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    failures.into_iter().for_each(|failure| *counts.entry(failure).or_default() += 1);
    counts
}

/// What the machines do: those that can listen wait for lines.
fn job(subject: &dyn Subject, warden: &Warden) -> Result<Job, Failure> {
    let mode = if subject.listens() { "mode=echo" } else { "mode=idle" };
    Job::with_devices(mode.into(), Devices::default(), warden.directory()).map_err(Failure::Prepare)
}

/// Starts machines one after the other until a limit, has them answer, and ends them.
fn fill(subject: &dyn Subject, limits: Limits, warden: &Warden) -> Result<Filling, Box<dyn error::Error>> {
    let job = job(subject, warden)?;
    let (mut machines, mut available) = (Vec::new(), Vec::new());
    headroom::settle()?;
    let stopped = loop {
        if machines.len() == limits.at_most {
            break format!("at most {}", limits.at_most);
        }
        if progress::is_interrupted() {
            break "interrupted".to_owned();
        }
        if headroom::available_kib()? < limits.margin_mib * 1024 {
            break format!("less than {} MiB free", limits.margin_mib);
        }
        match start(subject, &job, warden) {
            Ok(machine) => machines.push(machine),
            Err(failure) => break format!("the next did not start: {}", chain(&failure)),
        }
        available.push(headroom::available_kib()?);
    };
    let answered = subject.listens().then(|| answers(&mut machines));
    let (count, begun) = (machines.len() as f64, Instant::now());
    machines.iter_mut().for_each(Machine::kill);
    drop(machines);
    let ends = count / begun.elapsed().as_secs_f64();
    let cost = Slope::of_available(&available);
    Ok(Filling { available, stopped, answered, cost, ends })
}

fn start(subject: &dyn Subject, job: &Job, warden: &Warden) -> Result<Machine, Failure> {
    let mut command = subjects::command(subject, job).map_err(Failure::Prepare)?;
    let mut machine = warden.spawn_to_ask(&mut command, &job.file("stderr"))?;
    machine.wait_until_ready(LIMIT)?;
    Ok(machine)
}

/// How many answer, each with its own line. After a few that do not the others are not asked, since each takes its time.
fn answers(machines: &mut [Machine]) -> usize {
    let (mut count, mut silent) = (0, 0);
    for (number, machine) in machines.iter_mut().enumerate() {
        let line = format!("machine {number}");
        match machine.ask(&line, LIMIT) {
            Ok((said, _)) if said == format!("ECHO {line}") => count += 1,
            _ => silent += 1,
        }
        if silent == SILENT {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests;
