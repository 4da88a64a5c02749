//! What isolation costs: one job, from a plain process to a whole PC with firmware, side by side.
//!
//! Starts are interleaved, each subject once a round in an order of its own; one subject, mote if it is there, takes part twice, and
//! how its two medians differ is the noise below which no other difference means anything. Then a few of each live at
//! once, are looked at, and answer lines.

mod contender;
mod report;

use std::path::Path;
use std::time::Duration;
use std::{error, thread};

use fastrand::Rng;

use crate::binaries;
use crate::options::Options;
use crate::process::{Failure, Warden};
use crate::report::chain;
use crate::results::Run;
use crate::rounds::schedule;
use crate::subjects::{Absent, Job, Mode, Subjects};
use crate::syscalls;
use contender::{Contender, Instance};
use report::{Findings, Metric, Series};

/// Rounds before any that counts; those that are slow have none.
const WARM_UPS: usize = 2;
/// What is slow runs in one of so many rounds, but this often at least.
const SLOW_EVERY: usize = 10;
const SLOW_RUNS: usize = 3;
/// How many of each live at once.
const LIVE: usize = 10;
const SLOW_LIVE: usize = 2;
/// How often each is asked for an answer.
const QUESTIONS: usize = 100;
/// Steps of arithmetic, as many as take 100 ms, more or less, and how often each computes them.
const STEPS: u64 = 50_000_000;
const COMPUTATIONS: usize = 10;
/// Time for the last of them to come to rest.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs everything, prints what came of it, and appends it to the results.
///
/// `program` is the job for processes.
///
/// # Errors
/// When files cannot be written, or results cannot be kept. A subject that fails is part of what is printed.
pub fn run(
    subjects: Subjects,
    program: &Path,
    options: &Options,
    warden: &Warden,
) -> Result<(), Box<dyn error::Error>> {
    let run = Run::begin("isolation", options.seed, binaries::commit());
    println!(
        "isolation: {} interleaved runs, seed {}, commit {}, load {}, scheduling {}",
        options.runs, options.seed, run.commit, run.host.load, run.host.scheduling
    );
    let Subjects { present, absent } = subjects;
    let contenders: Vec<_> =
        present.into_iter().map(|subject| Contender::new(subject, program, warden)).collect();
    let mut random = Rng::with_seed(options.seed);
    let mut all: Vec<Findings> = contenders.iter().map(|one| Findings::new(&*one.subject)).collect();
    let again = time_starts(&contenders, &mut all, options.runs, &mut random)?;
    for (contender, findings) in contenders.iter().zip(&mut all) {
        if findings.works() {
            look(contender, findings);
            if contender.subject.listens() {
                ask(contender, findings);
            }
        }
    }
    compute(&contenders, &mut all, &mut random);
    let comparisons = report::compare(&all, again.as_ref(), &mut random);
    println!("\n{}", report::text(&all, &comparisons, again.as_ref(), &mut random));
    for Absent { name, reason } in &absent {
        println!("absent: {name}: {reason}");
    }
    report::keep(&run, &all, &comparisons)
}

/// Times every subject's start, interleaved. Returns the second series of the subject that takes part twice, with its
/// index.
fn time_starts(
    contenders: &[Contender<'_>],
    all: &mut [Findings],
    runs: usize,
    random: &mut Rng,
) -> Result<Option<(usize, Series)>, Box<dyn error::Error>> {
    let jobs = contenders.iter().map(|one| one.job(Mode::Ready.word())).collect::<Result<Vec<_>, _>>()?;
    let twice =
        contenders.iter().position(|one| one.name() == "mote").or((!contenders.is_empty()).then_some(0));
    let turns: Vec<usize> = (0..contenders.len()).chain(twice).collect();
    let start = |turn: usize| -> Result<f64, Failure> {
        let (instance, time) = contenders[turns[turn]].start(&jobs[turns[turn]])?;
        instance.let_end();
        Ok(time.as_secs_f64() * 1e3)
    };
    let mut gives_up = vec![false; turns.len()];
    for (index, contender) in contenders.iter().enumerate().filter(|(_, one)| !one.subject.is_slow()) {
        let results: Vec<_> = (0..WARM_UPS).map(|_| start(index)).collect();
        if results.iter().all(Result::is_err) {
            gives_up[index] = true;
            let failure = results.into_iter().find_map(Result::err);
            let reason = failure.map(|failure| chain(&failure)).unwrap_or_default();
            all[index].failures.push(format!("{} never started: {reason}", contender.name()));
        }
    }
    let often = |turn: usize| match contenders[turns[turn]].subject.is_slow() {
        _ if gives_up[turns[turn]] => 0,
        true => (runs / SLOW_EVERY).max(SLOW_RUNS).min(runs),
        false => runs,
    };
    let counts: Vec<usize> = (0..turns.len()).map(often).collect();
    let mut series = vec![Series::default(); turns.len()];
    for (round, order) in schedule(&counts, random).into_iter().enumerate() {
        for turn in order {
            let result = start(turn).map_err(|failure| all[turns[turn]].failures.push(chain(&failure)));
            series[turn].push(round, result.ok());
        }
    }
    let again = if twice.is_some() { series.pop() } else { None };
    for (findings, series) in all.iter_mut().zip(series) {
        findings.series.insert(Metric::Start, series);
    }
    Ok(twice.zip(again))
}

/// Starts a few, which wait, and looks at what they hold.
fn look(contender: &Contender<'_>, findings: &mut Findings) {
    let live = if contender.subject.is_slow() { SLOW_LIVE } else { LIVE };
    let result = contender.job(Mode::Idle.word()).map_err(Failure::Prepare).and_then(|job| {
        let instances =
            (0..live).map(|_| Ok(contender.start(&job)?.0)).collect::<Result<Vec<Instance>, Failure>>()?;
        thread::sleep(SETTLE);
        let looks: Vec<_> = instances.iter().map(|one| (one.memory(), one.processes().len())).collect();
        // Last, since it disturbs what it looks at.
        let calls = instances.first().map(|one| syscalls::reachable(&one.processes())).transpose()?;
        Ok((looks, calls))
    });
    match result {
        Ok((looks, calls)) => {
            if let Some(calls) = calls {
                findings.push(Metric::SystemCalls, 0, calls as f64);
            }
            for (round, (memory, processes)) in looks.into_iter().enumerate() {
                findings.push(Metric::Private, round, memory.private_kib as f64);
                findings.push(Metric::Pss, round, memory.pss_kib as f64);
                findings.push(Metric::Processes, round, processes as f64);
            }
        }
        Err(failure) => findings.failures.push(format!("{live} at once: {}", chain(&failure))),
    }
}

/// Starts one of each, which all live at once, and has them compute, interleaved.
fn compute(contenders: &[Contender<'_>], all: &mut [Findings], random: &mut Rng) {
    let command_line = format!("mode=echo n={STEPS}");
    let start = |contender: &Contender<'_>| {
        let job = contender.job(&command_line).map_err(Failure::Prepare)?;
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
    for (round, order) in schedule(&counts, random).into_iter().enumerate() {
        for index in order {
            let Some((instance, _)) = &mut instances[index] else { continue };
            match instance.ask("compute") {
                Ok(time) => all[index].push(Metric::Compute, round, time.as_secs_f64() * 1e3),
                Err(failure) => all[index].failures.push(format!("to compute: {}", chain(&failure))),
            }
        }
    }
}

/// Starts one and has it answer lines.
fn ask(contender: &Contender<'_>, findings: &mut Findings) {
    let answers = contender.job("mode=echo").map_err(Failure::Prepare).and_then(|job| {
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
