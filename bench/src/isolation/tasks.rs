//! What each subject is looked at for, and what its jobs are timed at, after its starts.

use std::thread;
use std::time::Instant;

use fastrand::Rng;

use super::contender::{Contender, Instance};
use super::report::{Findings, Metric};
use super::{LIVE, SETTLE, SLOW_LIVE};
use crate::exit_count::Counter;
use crate::headroom;
use crate::process::Failure;
use crate::progress;
use crate::report::chain;
use crate::rounds::schedule;
use crate::statistics::Slope;
use crate::subjects::{Boundary, Job, Mode};
use crate::syscalls;

/// How often each is asked for an answer.
const QUESTIONS: usize = 100;
/// Steps of arithmetic, as many as take 100 ms, more or less, and how often each computes them.
const STEPS: u64 = 50_000_000;
const COMPUTATIONS: usize = 10;
/// How often each reads.
const READINGS: usize = 5;
/// How often exits are counted.
const COUNTS: usize = 3;

/// Starts a few, which wait, and looks at what they hold and have cost.
pub(super) fn look(contender: &Contender<'_>, findings: &mut Findings) {
    let live = if contender.subject.is_slow() { SLOW_LIVE } else { LIVE };
    if let Err(failure) = look_at(contender, live, findings) {
        findings.failures.push(format!("{live} at once: {}", chain(&failure)));
    }
}

fn look_at(contender: &Contender<'_>, live: usize, findings: &mut Findings) -> Result<(), Failure> {
    let job = contender.job(Mode::Idle.word())?;
    let host = contender.host_memory()?;
    let (mut instances, mut available): (Vec<Instance>, Vec<u64>) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for _ in 0..live {
        instances.push(contender.start(&job)?.0);
        available.push(headroom::available_kib().map_err(Failure::Prepare)?);
    }
    findings.push(Metric::Rate, 0, live as f64 / begun.elapsed().as_secs_f64());
    findings.marginal = Slope::of_available(&available);
    thread::sleep(SETTLE);
    match host {
        // All are in one process: each holds its share of what that has more than before.
        Some(before) => {
            let now = contender.host_memory()?.unwrap_or_default();
            let each = |before: u64, now: u64| now.saturating_sub(before) as f64 / live as f64;
            findings.push(Metric::Private, 0, each(before.private_kib, now.private_kib));
            findings.push(Metric::Pss, 0, each(before.pss_kib, now.pss_kib));
        }
        None => {
            for (round, instance) in instances.iter().enumerate() {
                let processes = instance.processes();
                let memory = crate::processes::memory(&processes);
                findings.push(Metric::Private, round, memory.private_kib as f64);
                findings.push(Metric::Pss, round, memory.pss_kib as f64);
                findings.push(Metric::Processes, round, processes.len() as f64);
            }
        }
    }
    findings.live = live;
    // Last, since it disturbs what it looks at.
    let calls = instances.first().map(|one| syscalls::reachable(&one.processes())).transpose()?;
    findings.extend(Metric::SystemCalls, calls.map(|calls| calls as f64));
    Ok(())
}

/// Counts how often a machine has left its guest for its VMM, from its start to its end.
pub(super) fn count_exits(contender: &Contender<'_>, counter: &Counter, findings: &mut Findings) {
    if contender.subject.boundary() != Boundary::MACHINE {
        return;
    }
    for _ in 0..if contender.subject.is_slow() { 1 } else { COUNTS } {
        match contender.job(Mode::Ready.word()).and_then(|job| contender.exits(&job, counter)) {
            Ok(exits) => findings.extend(Metric::Exits, Some(exits as f64)),
            Err(failure) => findings.failures.push(format!("to count exits: {}", chain(&failure))),
        }
    }
}

/// Starts one and has it answer lines.
pub(super) fn ask(contender: &Contender<'_>, findings: &mut Findings) {
    let answers = contender.job("mode=echo").and_then(|job| {
        let (mut instance, _) = contender.start(&job)?;
        (0..QUESTIONS)
            .map(|number| instance.ask(&format!("question {number}")))
            .collect::<Result<Vec<_>, _>>()
    });
    match answers {
        Ok(times) => times
            .into_iter()
            .enumerate()
            .for_each(|(round, time)| findings.push(Metric::Answer, round, time.as_secs_f64() * 1e6)),
        Err(failure) => findings.failures.push(format!("to answer a line: {}", chain(&failure))),
    }
}

/// Starts one of each, which all live at once, and has them compute, interleaved.
pub(super) fn compute(contenders: &[Contender<'_>], all: &mut [Findings], random: &mut Rng) {
    let command_line = format!("mode=echo n={STEPS}");
    let start = |contender: &Contender<'_>| {
        let job = contender.job(&command_line)?;
        Ok((contender.start(&job)?.0, job))
    };
    let mut instances: Vec<Option<(Instance, Job)>> = Vec::new();
    for (contender, findings) in contenders.iter().zip(&mut *all) {
        let answers = findings.answers().then(|| start(contender));
        let instance =
            answers.transpose().map_err(|failure: Failure| findings.failures.push(chain(&failure)));
        instances.push(instance.ok().flatten());
    }
    let counts: Vec<usize> =
        instances.iter().map(|instance| if instance.is_some() { COMPUTATIONS } else { 0 }).collect();
    for (round, index) in progress::over("compute", turns(&counts, random)) {
        let Some((instance, _)) = &mut instances[index] else { continue };
        match instance.ask("compute") {
            Ok(time) => all[index].push(Metric::Compute, round, time.as_secs_f64() * 1e3),
            Err(failure) => all[index].failures.push(format!("to compute: {}", chain(&failure))),
        }
    }
}

/// Has each start and read 64 MiB, interleaved: those that have a way to files.
pub(super) fn read(contenders: &[Contender<'_>], all: &mut [Findings], random: &mut Rng) {
    let reads = |(contender, findings): (&Contender<'_>, &Findings)| {
        if findings.works() && contender.subject.reading_job().is_some() { READINGS } else { 0 }
    };
    let counts: Vec<usize> = contenders.iter().zip(&*all).map(reads).collect();
    for (round, index) in progress::over("read", turns(&counts, random)) {
        let Some(job) = contenders[index].reading_job() else { continue };
        let reading = job.and_then(|job| contenders[index].start(&job)?.0.read());
        match reading {
            Ok((time, exits)) => {
                all[index].push(Metric::Read, round, time.as_secs_f64() * 1e3);
                all[index].extend(Metric::ReadExits, exits.map(|exits| exits as f64));
            }
            Err(failure) => all[index].failures.push(format!("to read: {}", chain(&failure))),
        }
    }
}

/// Each turn's round and whose it is.
fn turns(counts: &[usize], random: &mut Rng) -> Vec<(usize, usize)> {
    let rounds = schedule(counts, random).into_iter().enumerate();
    rounds.flat_map(|(round, order)| order.into_iter().map(move |index| (round, index))).collect()
}
