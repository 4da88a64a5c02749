//! How fast machines start, several at a time.

use std::iter;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use fastrand::Rng;

use super::{AT_A_TIME, BATCH, LIMIT, Limits, Rates, job};
use crate::headroom;
use crate::process::{Failure, Machine, Warden};
use crate::progress;
use crate::report::chain;
use crate::rounds::schedule;
use crate::subjects::{self, Subject};

/// What came of it.
pub(super) struct Measured {
    /// By subject.
    pub(super) rates: Vec<Rates>,
    /// Of the subject that took part twice, the second time.
    pub(super) again: Rates,
    pub(super) failures: Vec<String>,
}

/// Every subject's rates, and those of the one at `twice` again. A round has each once at each number of starts at a time, in random
/// order.
pub(super) fn measure(
    subjects: &[Box<dyn Subject>],
    twice: usize,
    limits: Limits,
    runs: usize,
    random: &mut Rng,
    warden: &Warden,
) -> Result<Measured, Failure> {
    let whose: Vec<usize> = (0..subjects.len()).chain((twice < subjects.len()).then_some(twice)).collect();
    let mut rates: Vec<Rates> = whose.iter().map(|_| Rates::default()).collect();
    let mut failures = Vec::new();
    let machines = BATCH.min(limits.at_most);
    let turns = schedule(&vec![runs; whose.len() * AT_A_TIME.len()], random).into_iter().flatten().collect();
    for turn in progress::over("rates", turns) {
        let (series, level) = (turn / AT_A_TIME.len(), turn % AT_A_TIME.len());
        let subject = &*subjects[whose[series]];
        if headroom::available_kib().map_err(Failure::Prepare)? < limits.margin_mib * 1024 {
            failures.push(format!("{}: less than {} MiB free", subject.name(), limits.margin_mib));
            rates[series][level].push(None);
            continue;
        }
        let rate = start_batch(subject, machines, AT_A_TIME[level], warden);
        let rate = rate.map_err(|failure| failures.push(format!("{}: {}", subject.name(), chain(&failure))));
        rates[series][level].push(rate.ok());
    }
    let again = rates.split_off(subjects.len()).pop().unwrap_or_default();
    Ok(Measured { rates, again, failures })
}

/// Machines a second, from the first spawn until all of `machines` are ready; all of them live till then.
fn start_batch(
    subject: &dyn Subject,
    machines: usize,
    at_a_time: usize,
    warden: &Warden,
) -> Result<f64, Failure> {
    let job = job(subject, warden)?;
    let commands = iter::repeat_with(|| subjects::command(subject, &job)).take(machines);
    let commands = Mutex::new(commands.collect::<Result<Vec<_>, _>>().map_err(Failure::Prepare)?);
    let complaints = job.file("stderr");
    let start_some = || -> Result<Vec<Machine>, Failure> {
        let mut live = Vec::new();
        loop {
            // Nothing that holds the lock can panic; if it did, what is left is still whole.
            let command = commands.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
            let Some(mut command) = command else { return Ok(live) };
            let mut machine = warden.spawn_to_ask(&mut command, &complaints)?;
            machine.wait_until_ready(LIMIT)?;
            live.push(machine);
        }
    };
    let begun = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_a_time).map(|_| scope.spawn(start_some)).collect();
        let live: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let elapsed = begun.elapsed();
        for live in live {
            live.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(machines as f64 / elapsed.as_secs_f64())
    })
}
