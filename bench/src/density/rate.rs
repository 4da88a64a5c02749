//! How fast machines start, several at a time.

use std::iter;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use fastrand::Rng;

use super::{AT_A_TIME, BATCH, LIMIT, Limits, Rates, job};
use crate::headroom;
use crate::process::{Failure, Machine, Warden};
use crate::report::chain;
use crate::rounds::schedule;
use crate::subjects::{self, Subject};

/// Every subject's rates, with what failed. A round has each subject once at each number of starts at a time, in random order.
pub(super) fn measure(
    subjects: &[Box<dyn Subject>],
    limits: Limits,
    runs: usize,
    random: &mut Rng,
    warden: &Warden,
) -> Result<(Vec<Rates>, Vec<String>), Failure> {
    let mut rates: Vec<Rates> = subjects.iter().map(|_| Rates::default()).collect();
    let mut failures = Vec::new();
    let machines = BATCH.min(limits.at_most);
    for turn in schedule(&vec![runs; subjects.len() * AT_A_TIME.len()], random).into_iter().flatten() {
        let (subject, level) = (turn / AT_A_TIME.len(), turn % AT_A_TIME.len());
        if headroom::available_kib().map_err(Failure::Prepare)? < limits.margin_mib * 1024 {
            failures.push(format!("{}: less than {} MiB free", subjects[subject].name(), limits.margin_mib));
            rates[subject][level].push(None);
            continue;
        }
        let rate = start_batch(&*subjects[subject], machines, AT_A_TIME[level], warden);
        let rate = rate
            .map_err(|failure| failures.push(format!("{}: {}", subjects[subject].name(), chain(&failure))));
        rates[subject][level].push(rate.ok());
    }
    Ok((rates, failures))
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
