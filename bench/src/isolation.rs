//! What isolation costs: one job, from a plain process to a whole PC with firmware, side by side.
//!
//! Starts are interleaved, each subject once a round in an order of its own; one subject, mote if it is there, takes part twice, and
//! how its two medians differ is the noise below which no other difference means anything. Then a few of each live at
//! once, are looked at, and answer lines.

mod contender;
mod report;
mod tasks;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{error, fs, io};

use fastrand::Rng;

use crate::binaries;
use crate::exit_count::Counter;
use crate::options::Options;
use crate::process::{Failure, Warden};
use crate::progress;
use crate::report::chain;
use crate::results::Run;
use crate::rounds::schedule;
use crate::subjects::{Absent, Mode, Subjects};
use contender::{Contender, Stock};
use report::{Findings, Metric, Series};

/// Rounds before any that counts; those that are slow have none.
const WARM_UPS: usize = 2;
/// What is slow runs in one of so many rounds, but this often at least.
const SLOW_EVERY: usize = 10;
const SLOW_RUNS: usize = 3;
/// How many of each live at once.
const LIVE: usize = 20;
const SLOW_LIVE: usize = 2;
/// Time for the last of them to come to rest.
const SETTLE: Duration = Duration::from_millis(500);

/// What is not ready, or does not answer, by then has failed. What is slow may take longer.
const LIMIT: Duration = Duration::from_secs(10);
/// The files that are read: their size.
const DATA: u64 = 64 << 20;

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
    let data = write_data(warden)?;
    let stock = Stock { program, data: &data, warden, limit: LIMIT };
    let contenders: Vec<_> = present.into_iter().map(|subject| Contender::new(subject, stock)).collect();
    let mut random = Rng::with_seed(options.seed);
    let mut all: Vec<Findings> = contenders.iter().map(|one| Findings::new(&*one.subject)).collect();
    let again = time_starts(&contenders, &mut all, options.runs, &mut random)?;
    let counter = Counter::find();
    let whose = contenders.iter().zip(&mut all).collect();
    for (contender, findings) in progress::over("look at each", whose) {
        if findings.works() {
            tasks::look(contender, findings);
            if let Some(counter) = &counter {
                tasks::count_exits(contender, counter, findings);
            }
            if contender.subject.listens() {
                tasks::ask(contender, findings);
            }
        }
    }
    tasks::compute(&contenders, &mut all, &mut random);
    tasks::read(&contenders, &mut all, &mut random);
    let comparisons = report::compare(&all, again.as_ref(), &mut random);
    println!("\n{}", report::text(&all, &comparisons, again.as_ref(), &mut random));
    if counter.is_none() {
        println!("left out: exits: strace is not on PATH");
    }
    for Absent { name, reason } in &absent {
        println!("absent: {name}: {reason}");
    }
    report::keep(&run, &all, &absent, &comparisons)
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
        instance.let_end()?;
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
    let rounds = schedule(&counts, random).into_iter().enumerate().collect();
    for (round, order) in progress::over("starts", rounds) {
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

/// Writes what is to be read: no two pieces of it are alike.
fn write_data(warden: &Warden) -> io::Result<PathBuf> {
    let file = warden.directory().join("data");
    let words = (0..DATA / 8).flat_map(u64::to_le_bytes);
    fs::write(&file, words.collect::<Vec<u8>>())?;
    Ok(file)
}

#[cfg(test)]
mod tests;
