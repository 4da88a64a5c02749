//! The tables, the promise, and what is kept.

use std::error;

use fastrand::Rng;

use super::{AT_A_TIME, Filling, Rates};
use crate::binaries;
use crate::report::table;
use crate::results::{Comparison, Estimate, Files, Measurement, Run, Samples};
use crate::statistics::{Summary, noise, pairs};
use crate::subjects::{Absent, Subject};

/// What is promised of mote's rate: at least so many times the floor's.
const PROMISE: f64 = 0.7;
const METRICS: [&str; AT_A_TIME.len()] =
    ["starts_per_second_1", "starts_per_second_2", "starts_per_second_4", "starts_per_second_8"];

pub(super) fn fillings(subjects: &[Box<dyn Subject>], fillings: &[Filling]) -> String {
    let heads = ["subject", "live", "answered", "KiB each", "ends/s", "stopped"];
    let row = |(name, filling): (&'static str, &Filling)| {
        let cost = filling.cost.map(|slope| slope.to_string());
        let answered =
            filling.answered.map_or_else(|| "not asked".to_owned(), |answered| answered.to_string());
        let live = filling.available.len().to_string();
        let ends = format!("{:.0}", filling.ends);
        vec![name.to_owned(), live, answered, cost.unwrap_or_default(), ends, filling.stopped.clone()]
    };
    table(&heads, &names(subjects).zip(fillings).map(row).collect::<Vec<_>>())
}

fn names(subjects: &[Box<dyn Subject>]) -> impl Iterator<Item = &'static str> {
    subjects.iter().map(|subject| subject.name())
}

/// The median rates.
pub(super) fn rates(subjects: &[Box<dyn Subject>], rates: &[Rates]) -> String {
    let heads = ["starts/s, at a time:", "1", "2", "4", "8", "failed"];
    let row = |(name, rates): (&'static str, &Rates)| {
        let median =
            |rates: &Vec<Option<f64>>| summary(rates).map(|it| format!("{:.0}", it.p50)).unwrap_or_default();
        let failed = rates.iter().flatten().filter(|rate| rate.is_none()).count();
        let figures = rates.iter().map(median).chain([failed.to_string()]);
        std::iter::once(name.to_owned()).chain(figures).collect()
    };
    table(&heads, &names(subjects).zip(rates).map(row).collect::<Vec<_>>())
}

/// Every rate with the floor's of the same rounds.
pub(super) fn compare(
    subjects: &[Box<dyn Subject>],
    rates: &[Rates],
    random: &mut Rng,
) -> Vec<Comparison<'static>> {
    let named = || names(subjects).zip(rates);
    let Some((floor, below)) = named().find(|(name, _)| *name == "floor") else { return Vec::new() };
    let mut comparisons = Vec::new();
    for (name, above) in named().filter(|(name, _)| *name != floor) {
        for (level, metric) in METRICS.into_iter().enumerate() {
            comparisons.extend(Comparison::of(
                name,
                floor,
                metric,
                &pairs(&above[level], &below[level]),
                random,
            ));
        }
    }
    comparisons
}

/// How the two series of one subject differ.
pub(super) fn compare_twice(
    name: &'static str,
    first: &Rates,
    again: &Rates,
    random: &mut Rng,
) -> Vec<Comparison<'static>> {
    let levels = METRICS.into_iter().zip(first.iter().zip(again));
    levels
        .filter_map(|(metric, (first, again))| {
            Comparison::of(name, name, metric, &pairs(again, first), random)
        })
        .collect()
}

/// The same in words, a line for each number of starts at a time.
pub(super) fn noises(name: &str, first: &Rates, again: &Rates, random: &mut Rng) -> String {
    let levels = AT_A_TIME.into_iter().zip(first.iter().zip(again));
    levels
        .map(|(count, (first, again))| {
            format!("{count} at a time, {}\n", noise(name, &pairs(again, first), random))
        })
        .collect()
}

/// Whether mote starts as fast as it must.
pub(super) fn promises(comparisons: &[Comparison<'_>]) -> Vec<String> {
    let promise = |metric| {
        let found = comparisons.iter().find(|it| it.subject == "mote" && it.metric == metric);
        let outcome = match found.map(|it| it.ratio) {
            Some(it) => {
                let kept = if it.ratio >= PROMISE { "kept" } else { "NOT KEPT" };
                format!("{kept}: {:.2} ({:.2}..{:.2})", it.ratio, it.low, it.high)
            }
            None => "UNMET: not both were measured".to_owned(),
        };
        format!("promise: {metric}, mote / floor >= {PROMISE}: {outcome}")
    };
    METRICS.into_iter().map(promise).collect()
}

fn summary(samples: &[Option<f64>]) -> Option<Summary> {
    Summary::of(&samples.iter().copied().flatten().collect::<Vec<_>>())
}

/// Appends everything to the results.
pub(super) fn keep(
    run: &Run,
    subjects: &[Box<dyn Subject>],
    absent: &[Absent],
    fillings: &[Filling],
    rates: &[Rates],
    comparisons: &[Comparison<'_>],
) -> Result<(), Box<dyn error::Error>> {
    let files = Files::of(run, &binaries::results_directory()?);
    for ((subject, filling), rates) in subjects.iter().zip(fillings).zip(rates) {
        let (subject, version) = (subject.name(), &*subject.version());
        let available: Vec<_> = filling.available.iter().map(|&kib| Some(kib as f64)).collect();
        let (metric, unit) = ("memory_available", "KiB");
        files.samples(&Samples { subject, metric, unit, samples: &available })?;
        if let Some(slope) = filling.cost {
            let (metric, n) = ("memory_per_machine", available.len());
            files.result(&Estimate { subject, version, metric, unit, n, slope })?;
        }
        let unit = "1/s";
        if let Some(summary) = Summary::of(&[filling.ends]) {
            let metric = "ends_per_second";
            files.result(&Measurement { subject, version, metric, unit, failures: 0, summary })?;
        }
        for (metric, values) in METRICS.into_iter().zip(rates) {
            files.series(&Samples { subject, metric, unit, samples: values }, version)?;
        }
    }
    files.absent(absent)?;
    Ok(files.finish(comparisons)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Ratio;

    #[test]
    fn the_promise_is_kept_broken_or_unmet() {
        let comparison = |metric, ratio| {
            let ratio = Ratio { ratio, low: ratio, high: ratio };
            Comparison { subject: "mote", relative_to: "floor", metric, unit: "ratio", n: 5, ratio }
        };
        let comparisons = [comparison(METRICS[0], 0.9), comparison(METRICS[1], 0.5)];
        let expected = [
            "promise: starts_per_second_1, mote / floor >= 0.7: kept: 0.90 (0.90..0.90)",
            "promise: starts_per_second_2, mote / floor >= 0.7: NOT KEPT: 0.50 (0.50..0.50)",
            "promise: starts_per_second_4, mote / floor >= 0.7: UNMET: not both were measured",
            "promise: starts_per_second_8, mote / floor >= 0.7: UNMET: not both were measured",
        ];
        assert_eq!(promises(&comparisons), expected);
    }

    #[test]
    fn failures_are_counted_and_no_figures() {
        assert_eq!(summary(&[Some(2.0), None]).map(|it| (it.n, it.p50)), Some((1, 2.0)));
        assert_eq!(summary(&[None]), None);
    }
}
