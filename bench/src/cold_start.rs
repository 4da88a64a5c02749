//! How long it takes from the spawn of a VMM to the first byte of its guest, and to READY.
//!
//! Subjects run interleaved: every round starts each of them once, in an order of its own, so that whatever else the machine
//! does hits all alike. Ratios are computed from such a run only.

mod crowd;

use std::time::Duration;
use std::{error, io};

use fastrand::Rng;

use crate::binaries;
use crate::options::Options;
use crate::process::{Failure, Times, Warden};
use crate::progress;
use crate::report::{chain, table};
use crate::results::{Comparison, Files, ResultsError, Run, Samples};
use crate::rounds::schedule;
use crate::statistics::{Ratio, Summary, noise, pairs};
use crate::subjects::{self, Absent, Job, Mode, Subject};

/// Rounds before any that counts.
const WARM_UPS: usize = 5;
/// A machine that is not ready by then has failed.
const LIMIT: Duration = Duration::from_secs(10);

const FIRST_BYTE: &str = "spawn_to_first_byte";
pub(crate) const READY: &str = "spawn_to_ready";
const METRICS: [&str; 2] = [FIRST_BYTE, READY];

/// What is promised of mote's median time to READY: at most so many times this subject's.
const PROMISES: [(&str, f64); 3] = [("floor", 1.20), ("firecracker", 0.42), ("cloud-hypervisor", 0.60)];

/// What is promised of five devices that the guest does not use: they add at most so much.
const DEVICES_MS: f64 = 0.8;

/// A subject that can be started again and again.
pub struct Starter {
    subject: Box<dyn Subject>,
    job: Job,
}

impl Starter {
    /// Prepares whatever starting `subject` needs.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn new(subject: Box<dyn Subject>, warden: &Warden) -> io::Result<Self> {
        let job = Job::new(Mode::Ready, warden.directory())?;
        Ok(Self { subject, job })
    }

    /// The subject's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.subject.name()
    }

    /// Starts a machine, waits until it is ready, and ends it.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn time(&self, warden: &Warden) -> Result<Times, Failure> {
        let mut command = subjects::command(&*self.subject, &self.job).map_err(Failure::Prepare)?;
        warden.spawn(&mut command, &self.job.file("stderr"))?.wait_until_ready(LIMIT)
    }
}

/// What a subject took, in ms, one entry for each round.
#[derive(Debug, Default)]
pub(crate) struct Series {
    first_byte: Vec<Option<f64>>,
    ready: Vec<Option<f64>>,
    failure: Option<Failure>,
}

impl Series {
    fn push(&mut self, result: Result<Times, Failure>) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let times = result.map_err(|failure| self.failure = Some(failure)).ok();
        self.first_byte.push(times.map(|times| ms(times.first_byte)));
        self.ready.push(times.map(|times| ms(times.ready)));
    }

    pub(crate) fn of(&self, metric: &str) -> &[Option<f64>] {
        if metric == READY { &self.ready } else { &self.first_byte }
    }

    /// Why the last run that failed did so.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Runs all subjects interleaved, prints what came of it, and appends it to the results.
///
/// # Errors
/// When results cannot be kept. A subject that fails is part of what is printed.
pub fn run(
    starters: &[Starter],
    absent: &[Absent],
    options: &Options,
    warden: &Warden,
) -> Result<(), Box<dyn error::Error>> {
    let run = Run::begin("cold_start", options.seed, binaries::commit());
    let Run { seed, commit, host, .. } = &run;
    println!(
        "cold_start: {} interleaved runs, seed {seed}, commit {commit}, load {}, scheduling {}",
        options.runs, host.load, host.scheduling
    );
    let mut random = Rng::with_seed(options.seed);
    let twice = starters.iter().position(|one| one.name() == "mote").unwrap_or(0);
    let mut series = interleave(starters, twice, options.runs, &mut random, warden);
    let again = series.pop().unwrap_or_default();
    let named: Vec<_> = starters.iter().map(Starter::name).zip(&series).collect();
    let mut comparisons = compare(&named, &mut random);
    for metric in METRICS {
        println!("\n{metric}, ms\n{}", report(&named, &comparisons, metric));
        if let Some((name, first)) = named.get(twice) {
            let pairs = pairs(again.of(metric), first.of(metric));
            println!("{}", noise(name, &pairs, &mut random));
            comparisons.extend(Comparison::of(name, name, metric, &pairs, &mut random));
        }
    }
    let crowds = crowd::measure(starters, &mut random, warden);
    println!("\n{}", crowds.text());
    for (name, series) in &named {
        if let Some(failure) = &series.failure {
            println!("failed: {name}: {}", chain(failure));
        }
    }
    for Absent { name, reason } in absent {
        println!("absent: {name}: {reason}");
    }
    for (relative_to, limit) in PROMISES {
        println!("{}", promise(&comparisons, relative_to, limit));
    }
    println!("{}", promise_of_devices(&named));
    let files = Files::of(&run, &binaries::results_directory()?);
    keep(&files, starters, &series)?;
    let version = |name: &str| starters.iter().find(|it| it.name() == name).map(|it| it.subject.version());
    crowds.keep(&files, |name| version(name).unwrap_or_default())?;
    files.absent(absent)?;
    files.finish(&comparisons)?;
    Ok(())
}

/// Times every subject `runs` times, and the one at `twice` as often again: its second series comes last. One that never
/// gets through a warm-up is given up.
pub(crate) fn interleave(
    starters: &[Starter],
    twice: usize,
    runs: usize,
    random: &mut Rng,
    warden: &Warden,
) -> Vec<Series> {
    let turns: Vec<usize> = (0..starters.len()).chain((twice < starters.len()).then_some(twice)).collect();
    let time = |counts: &[usize], random: &mut Rng| {
        let mut series: Vec<Series> = turns.iter().map(|_| Series::default()).collect();
        let order = schedule(counts, random).into_iter().flatten().collect();
        for turn in progress::over("cold_start", order) {
            series[turn].push(starters[turns[turn]].time(warden));
        }
        series
    };
    let warm_ups = time(&vec![WARM_UPS; turns.len()], random);
    let lives = |series: &Series| series.ready.iter().any(Option::is_some);
    let counts: Vec<usize> = warm_ups.iter().map(|series| if lives(series) { runs } else { 0 }).collect();
    let timed = time(&counts, random);
    warm_ups.into_iter().zip(timed).map(|(warm, timed)| if lives(&warm) { timed } else { warm }).collect()
}

/// Every subject with floor, and mote with every peer, in both metrics.
fn compare<'a>(named: &[(&'a str, &Series)], random: &mut Rng) -> Vec<Comparison<'a>> {
    let mut comparisons = Vec::new();
    for metric in METRICS {
        for &(above, above_series) in named {
            for &(below, below_series) in named {
                let wanted = above != below && (below == "floor" || above == "mote");
                let pairs = || pairs(above_series.of(metric), below_series.of(metric));
                let pairs = if wanted { pairs() } else { Vec::new() };
                comparisons.extend(Comparison::of(above, below, metric, &pairs, random));
            }
        }
    }
    comparisons
}

fn ratio(comparisons: &[Comparison<'_>], metric: &str, subject: &str, relative_to: &str) -> Option<Ratio> {
    let wanted = (subject, metric, relative_to);
    let found = comparisons.iter().find(|it| (it.subject, it.metric, it.relative_to) == wanted)?;
    Some(found.ratio)
}

/// A row for each subject: its figures, its median by floor's, and mote's by its.
fn report(named: &[(&str, &Series)], comparisons: &[Comparison<'_>], metric: &str) -> String {
    let heads =
        ["subject", "n", "failed", "min", "p50", "p99", "mean", "outliers", "it / floor", "mote / it"];
    let row = |(name, series): &(&str, &Series)| {
        let (good, failures) = good(series.of(metric));
        let figures = Summary::of(&good).map(|summary| {
            let [min, p50, p99, mean] =
                [summary.min, summary.p50, summary.p99, summary.mean].map(|ms| format!("{ms:.3}"));
            [min, p50, p99, mean, summary.outliers.to_string()]
        });
        let figures = figures.unwrap_or([const { String::new() }; 5]);
        let ratios = [(*name, "floor"), ("mote", *name)]
            .map(|(above, below)| ratio(comparisons, metric, above, below).map(words).unwrap_or_default());
        let head = [(*name).to_owned(), good.len().to_string(), failures.to_string()];
        head.into_iter().chain(figures).chain(ratios).collect()
    };
    table(&heads, &named.iter().map(row).collect::<Vec<_>>())
}

/// Whether a promise was kept in this run.
fn promise(comparisons: &[Comparison<'_>], relative_to: &str, limit: f64) -> String {
    let outcome = match ratio(comparisons, READY, "mote", relative_to) {
        Some(ratio) if ratio.ratio <= limit => format!("kept: {}", words(ratio)),
        Some(ratio) => format!("NOT KEPT: {}", words(ratio)),
        None => "UNMET: not both were measured".to_owned(),
    };
    format!("promise: p50 to READY, mote / {relative_to} <= {limit:.2}: {outcome}")
}

/// Whether devices that the guest does not use add no more than they may.
fn promise_of_devices(named: &[(&str, &Series)]) -> String {
    let p50 = |name| {
        let (_, series) = named.iter().find(|(other, _)| *other == name)?;
        Summary::of(&good(series.of(READY)).0).map(|summary| summary.p50)
    };
    let outcome = match p50("mote-devices").zip(p50("mote")) {
        Some((with, without)) if with - without <= DEVICES_MS => format!("kept: {:.3} ms", with - without),
        Some((with, without)) => format!("NOT KEPT: {:.3} ms", with - without),
        None => "UNMET: not both were measured".to_owned(),
    };
    format!("promise: p50 to READY, five devices add <= {DEVICES_MS} ms: {outcome}")
}

fn words(Ratio { ratio, low, high }: Ratio) -> String {
    format!("{ratio:.3} ({low:.3}..{high:.3})")
}

/// The samples of the runs that succeeded, and how many failed.
pub(crate) fn good(samples: &[Option<f64>]) -> (Vec<f64>, usize) {
    let good: Vec<f64> = samples.iter().copied().flatten().collect();
    let failures = samples.len() - good.len();
    (good, failures)
}

fn keep(files: &Files<'_>, starters: &[Starter], series: &[Series]) -> Result<(), ResultsError> {
    for (starter, series) in starters.iter().zip(series) {
        let (subject, version, unit) = (starter.name(), &*starter.subject.version(), "ms");
        for metric in METRICS {
            files.series(&Samples { subject, metric, unit, samples: series.of(metric) }, version)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(ready: &[Option<f64>]) -> Series {
        Series { first_byte: ready.to_vec(), ready: ready.to_vec(), failure: None }
    }

    #[test]
    fn a_report_has_ratios_of_common_rounds_and_counts_failures() {
        let floor = series(&[Some(2.0), Some(2.0), Some(2.0)]);
        let mote = series(&[Some(3.0), None, Some(3.0)]);
        let peer = series(&[Some(6.0), Some(6.0), Some(6.0)]);
        let named = [("floor", &floor), ("mote", &mote), ("peer", &peer)];
        let comparisons = compare(&named, &mut Rng::with_seed(1));
        let expected = "\
subject  n  failed    min    p50    p99   mean  outliers            it / floor             mote / it
floor    3       0  2.000  2.000  2.000  2.000         0                        1.500 (1.500..1.500)
mote     2       1  3.000  3.000  3.000  3.000         0  1.500 (1.500..1.500)
peer     3       0  6.000  6.000  6.000  6.000         0  3.000 (3.000..3.000)  0.500 (0.500..0.500)
";
        let report = report(&named, &comparisons, READY);
        assert_eq!(report, expected, "{report}");
        assert_eq!(ratio(&comparisons, READY, "mote", "peer").map(|ratio| ratio.ratio), Some(0.5));
        assert_eq!(ratio(&comparisons, READY, "peer", "mote"), None);
    }

    #[test]
    fn promises_are_kept_broken_or_unmet() {
        let (floor, mote) = (series(&[Some(2.0)]), series(&[Some(3.0)]));
        let comparisons = compare(&[("floor", &floor), ("mote", &mote)], &mut Rng::with_seed(1));
        let with_devices = series(&[Some(3.5)]);
        let devices = |name| promise_of_devices(&[("mote", &mote), (name, &with_devices)]);
        assert_eq!(
            devices("mote-devices"),
            "promise: p50 to READY, five devices add <= 0.8 ms: kept: 0.500 ms"
        );
        assert!(devices("another").ends_with("UNMET: not both were measured"));
        let outcome = |relative_to, limit| promise(&comparisons, relative_to, limit);
        let kept = "promise: p50 to READY, mote / floor <= 1.50: kept: 1.500 (1.500..1.500)";
        assert_eq!(outcome("floor", 1.5), kept);
        assert!(outcome("floor", 1.4).contains("NOT KEPT"));
        assert!(outcome("firecracker", 0.42).ends_with("UNMET: not both were measured"));
    }
}
