//! Whether one build of mote starts slower than another, by the clock of this machine: `mote-bench compare`, for
//! `ci/perf-gate --wall`.
//!
//! Each round starts both twice, in random order: neither more often than the other, as a start finds the caches warmer
//! after one of the same program. Slower is what is both certain and large: by a permutation test, and by the difference of
//! the medians. The base's two series show what the machine itself adds.

use std::path::{Path, PathBuf};
use std::{error, fs};

use fastrand::Rng;

use crate::binaries;
use crate::cold_start::{READY, Series, Starter, good, interleave};
use crate::options::Options;
use crate::process::Warden;
use crate::report::{chain, table};
use crate::results::{Comparison, Files, Run, Samples};
use crate::statistics::{Ratio, Summary, noise, pairs, permutation};
use crate::subjects;

/// Slower is what chance explains less often than this,
const LEAST_P: f64 = 0.01;
/// and what is larger than this, as a ratio of medians.
const MOST: f64 = 1.05;

const BASE: &str = "base";
const HEAD: &str = "head";
const UNIT: &str = "ms";

/// What came of a comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The head's starts take no longer, as far as can be told.
    NotSlower,
    /// They do, or some failed.
    Slower,
}

/// Starts both programs interleaved, prints what came of it, and appends it to the results.
///
/// # Errors
/// When a program is not there, or results cannot be kept.
pub fn run(base: &Path, head: &Path, options: &Options) -> Result<Verdict, Box<dyn error::Error>> {
    let warden = Warden::start()?;
    let builds = format!("{}, {}", base.display(), head.display());
    let run = Run::begin("compare", options.seed, builds);
    println!(
        "compare: {} interleaved runs, seed {}, load {}, scheduling {}\nbase: {}\nhead: {}\n",
        options.runs,
        run.seed,
        run.host.load,
        run.host.scheduling,
        base.display(),
        head.display()
    );
    let programs = [(BASE, beside(&warden, BASE, base)?), (HEAD, beside(&warden, HEAD, head)?)];
    let twice = programs.iter().chain(&programs);
    let starters = twice.map(|(_, program)| Starter::new(subjects::mote_at(program.clone()), &warden));
    let starters = starters.collect::<Result<Vec<_>, _>>()?;
    let mut random = Rng::with_seed(options.seed);
    let nobody_again = starters.len();
    let series = interleave(&starters, nobody_again, options.runs, &mut random, &warden);
    let [base, head, base_again, head_again] = &series[..] else {
        return Err("two programs, twice, have four series".into());
    };
    let both = |first: &Series, again: &Series| [first.of(READY), again.of(READY)].concat();
    let all = [(BASE, both(base, base_again)), (HEAD, both(head, head_again))];
    println!("{}", report(&all));
    let noise_pairs = pairs(base_again.of(READY), base.of(READY));
    println!("{}", noise(BASE, &noise_pairs, &mut random));
    let pairs = pairs(&all[1].1, &all[0].1);
    let failure = series.iter().find_map(Series::failure);
    let (verdict, words) = failure.map_or_else(
        || judge(&pairs, &mut random),
        |failure| (Verdict::Slower, format!("verdict: a start failed: {}", chain(failure))),
    );
    println!("{words}");

    let files = Files::of(&run, &binaries::results_directory()?);
    for (subject, samples) in &all {
        files.series(&Samples { subject, metric: READY, unit: UNIT, samples }, "")?;
    }
    let compared = [(HEAD, &pairs), (BASE, &noise_pairs)];
    let compared = compared.map(|(subject, pairs)| Comparison::of(subject, BASE, READY, pairs, &mut random));
    files.finish(&compared.into_iter().flatten().collect::<Vec<_>>())?;
    Ok(verdict)
}

/// A copy in the warden's directory: both programs are read from one filesystem, by paths of one length.
fn beside(warden: &Warden, name: &str, program: &Path) -> Result<PathBuf, String> {
    let copy = warden.directory().join(name);
    fs::copy(program, &copy).map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(copy)
}

fn report(all: &[(&str, Vec<Option<f64>>)]) -> String {
    let heads = ["spawn to READY, ms", "n", "failed", "min", "p50", "p99", "mean"];
    let row = |(name, samples): &(&str, Vec<Option<f64>>)| {
        let (good, failures) = good(samples);
        let figures = Summary::of(&good).map(|all| [all.min, all.p50, all.p99, all.mean]);
        let figures = figures.into_iter().flatten().map(|ms| format!("{ms:.3}"));
        let head = [(*name).to_owned(), good.len().to_string(), failures.to_string()];
        head.into_iter().chain(figures).collect()
    };
    table(&heads, &all.iter().map(row).collect::<Vec<_>>())
}

/// The verdict on what `pairs` of head and base took in the same rounds, and the words for it.
fn judge(pairs: &[(f64, f64)], random: &mut Rng) -> (Verdict, String) {
    let Some(Ratio { ratio, low, high }) = Ratio::of_medians(pairs, random) else {
        return (Verdict::Slower, "verdict: nothing was timed".to_owned());
    };
    let p = permutation(pairs, random);
    let medians = pairs.iter().copied().unzip::<f64, f64, Vec<_>, Vec<_>>();
    let p50 = |samples: &[f64]| Summary::of(samples).map_or(0.0, |summary| summary.p50);
    let ms = p50(&medians.0) - p50(&medians.1);
    let [change, low, high] = [ratio, low, high].map(|ratio| (ratio - 1.0) * 100.0);
    let certain = p < LEAST_P;
    let (verdict, word) = match (certain, ratio > MOST) {
        (true, true) => (Verdict::Slower, "slower"),
        (true, false) => (Verdict::NotSlower, "no slower than is let pass"),
        (false, _) => (Verdict::NotSlower, "not slower, as far as can be told"),
    };
    let limit = (MOST - 1.0) * 100.0;
    let words = format!(
        "difference: {ms:+.3} ms, {change:+.1} % ({low:+.1}..{high:+.1}), p = {p:.4}\n\
         verdict: head is {word} (slower is: p < {LEAST_P}, and more than {limit:.0} %)"
    );
    (verdict, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(f64, f64)]) -> (Verdict, String) {
        judge(pairs, &mut Rng::with_seed(1))
    }

    fn noisy(factor: f64) -> Vec<(f64, f64)> {
        let mut random = Rng::with_seed(3);
        (0..80).map(|_| (2.0 * factor + random.f64(), 2.0 + random.f64())).collect()
    }

    #[test]
    fn slower_is_certain_and_large() {
        let (verdict, words) = judged(&noisy(1.2));
        assert_eq!(verdict, Verdict::Slower);
        assert!(words.contains("verdict: head is slower") && words.contains("p = 0.0002"), "{words}");
        let (verdict, words) = judged(&noisy(1.03));
        assert_eq!(verdict, Verdict::NotSlower, "{words}");
        assert!(words.contains("difference: +"), "{words}");
    }

    #[test]
    fn faster_the_same_and_uncertain_are_not_slower() {
        assert_eq!(judged(&noisy(0.5)).0, Verdict::NotSlower);
        assert_eq!(judged(&noisy(1.0)).0, Verdict::NotSlower);
        assert_eq!(judged(&[(3.0, 2.0); 3]).0, Verdict::NotSlower);
    }

    #[test]
    fn without_a_sample_nothing_is_proved() {
        assert_eq!(judged(&[]), (Verdict::Slower, "verdict: nothing was timed".to_owned()));
    }
}
