//! What is printed of a run, and kept.

use std::error;

use fastrand::Rng;

use super::{FLOOR, MOTE, Series};
use crate::binaries;
use crate::report::table;
use crate::results::{Comparison, Files, Run, Samples};
use crate::statistics::{Ratio, Summary};

const UNIT: &str = "us/op";

/// What is promised of mote: at most so many times this subject's time for an operation, and why so many.
const PROMISES: [(&str, &str, f64, &str); 2] = [
    ("blk_read_4k_depth32", "firecracker", 1.0 / 1.3, "1.3 times as many reads a second"),
    ("blk_read_128k", FLOOR, 1.0 / 0.85, "85 % of a host process's"),
];

/// Every subject with floor, and mote with every peer, for each task.
pub(super) fn compare(all: &[Series], random: &mut Rng) -> Vec<Comparison<'static>> {
    let mut comparisons = Vec::new();
    for above in all {
        for below in all.iter().filter(|below| below.task.name == above.task.name) {
            let (subject, relative_to) = (above.subject, below.subject);
            if subject != relative_to && (relative_to == FLOOR || subject == MOTE) {
                comparisons.extend(of(above, below, random));
            }
        }
    }
    comparisons
}

/// Mote with itself, for each task: its second series by its first.
pub(super) fn compare_again(all: &[Series], again: &[Series], random: &mut Rng) -> Vec<Comparison<'static>> {
    let first = |again: &Series| {
        all.iter().find(|first| (first.task.name, first.subject) == (again.task.name, again.subject))
    };
    again.iter().filter_map(|again| of(again, first(again)?, random)).collect()
}

fn of(above: &Series, below: &Series, random: &mut Rng) -> Option<Comparison<'static>> {
    let pairs = above.times.iter().zip(&below.times).filter_map(|(above, below)| above.zip(*below));
    Comparison::of(above.subject, below.subject, above.task.name, &pairs.collect::<Vec<_>>(), random)
}

/// How far mote's two series lie apart at most.
pub(super) fn noise(comparisons: &[Comparison<'_>]) -> String {
    let off = |it: &Comparison<'_>| (it.ratio.ratio - 1.0).abs();
    let twice = comparisons.iter().filter(|it| it.subject == it.relative_to);
    let Some(most) = twice.max_by(|one, other| off(one).total_cmp(&off(other))) else {
        return format!("noise: unknown: {MOTE} did not run twice");
    };
    let Ratio { ratio, low, high } = most.ratio;
    let [differ, low, high] = [ratio, low, high].map(|ratio| (ratio - 1.0) * 100.0);
    format!(
        "noise: {} twice in this run, {} rounds: medians differ most at {}: by {differ:.1} % ({low:.1}..{high:.1})",
        most.subject, most.n, most.metric
    )
}

fn ratio(comparisons: &[Comparison<'_>], metric: &str, subject: &str, relative_to: &str) -> Option<Ratio> {
    let wanted = (metric, subject, relative_to);
    comparisons.iter().find(|it| (it.metric, it.subject, it.relative_to) == wanted).map(|it| it.ratio)
}

/// A row for each task and subject.
pub(super) fn tables(all: &[Series], comparisons: &[Comparison<'_>]) -> String {
    let heads = [
        "task",
        "subject",
        "n",
        "failed",
        "us/op: min",
        "p50",
        "p99",
        "op/s",
        "MiB/s",
        "exits/op",
        "it / floor",
        "mote / it",
    ];
    let row = |series: &Series| {
        let (good, failures) = series.good();
        let mut cells = vec![
            series.task.name.to_owned(),
            series.subject.to_owned(),
            good.len().to_string(),
            failures.to_string(),
        ];
        if let Some(summary) = Summary::of(&good) {
            let rate = 1e6 / summary.p50;
            cells.extend([summary.min, summary.p50, summary.p99].map(|time| format!("{time:.2}")));
            cells.push(format!("{rate:.0}"));
            cells.push(format!("{:.1}", rate * series.bytes as f64 / f64::from(1 << 20)));
        } else {
            cells.resize(heads.len() - 3, String::new());
        }
        cells.push(series.notifications.map(|number| format!("{number:.2}")).unwrap_or_default());
        let ratios = [(series.subject, FLOOR), (MOTE, series.subject)];
        cells.extend(ratios.map(|(above, below)| {
            ratio(comparisons, series.task.name, above, below).map(words).unwrap_or_default()
        }));
        cells
    };
    table(&heads, &all.iter().map(row).collect::<Vec<_>>())
}

/// Whether each promise was kept in this run.
pub(super) fn promises(comparisons: &[Comparison<'_>]) -> Vec<String> {
    let promise = |&(task, relative_to, limit, meaning): &(&str, &str, f64, &str)| {
        let outcome = match ratio(comparisons, task, MOTE, relative_to) {
            Some(ratio) if ratio.ratio <= limit => format!("kept: {}", words(ratio)),
            Some(ratio) => format!("NOT KEPT: {}", words(ratio)),
            None => "UNMET: not both were measured".to_owned(),
        };
        format!("promise: p50 of {task}, mote / {relative_to} <= {limit:.2} ({meaning}): {outcome}")
    };
    PROMISES.iter().map(promise).collect()
}

/// Appends everything to the results.
pub(super) fn keep(
    run: &Run,
    versions: &[(&str, String)],
    all: &[Series],
    comparisons: &[Comparison<'_>],
) -> Result<(), Box<dyn error::Error>> {
    let files = Files::of(run, &binaries::results_directory()?);
    for series in all {
        let (subject, metric, unit) = (series.subject, series.task.name, UNIT);
        let version = versions.iter().find(|(name, _)| *name == subject).map_or("", |(_, version)| version);
        files.series(&Samples { subject, metric, unit, samples: &series.times }, version)?;
    }
    Ok(files.finish(comparisons)?)
}

fn words(Ratio { ratio, low, high }: Ratio) -> String {
    format!("{ratio:.3} ({low:.3}..{high:.3})")
}

impl Series {
    /// The times of the rounds that succeeded, and how many failed.
    fn good(&self) -> (Vec<f64>, usize) {
        let good: Vec<f64> = self.times.iter().copied().flatten().collect();
        let failures = self.times.len() - good.len();
        (good, failures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tasks::TASKS;
    use super::*;

    #[test]
    fn noise_is_the_task_whose_two_series_differ_most() {
        let all = [series(1, "mote", &[Some(4.0), Some(4.0)]), series(4, "mote", &[Some(2.0), Some(2.0)])];
        let again = [series(1, "mote", &[Some(4.4), Some(4.4)]), series(4, "mote", &[Some(1.5), Some(1.5)])];
        let random = &mut Rng::with_seed(1);
        let mut comparisons = compare(&all, random);
        assert_eq!(noise(&comparisons), "noise: unknown: mote did not run twice");
        comparisons.extend(compare_again(&all, &again, random));
        let expected = "noise: mote twice in this run, 2 rounds: medians differ most at blk_read_128k: \
                        by -25.0 % (-25.0..-25.0)";
        assert_eq!(noise(&comparisons), expected);
        let text = tables(&all, &comparisons);
        assert!(text.lines().nth(1).unwrap().ends_with("1.100 (1.100..1.100)"), "{text}");
    }

    fn series(task: usize, subject: &'static str, times: &[Option<f64>]) -> Series {
        let times = times.to_vec();
        Series { task: &TASKS[task], subject, times, bytes: 4096, notifications: Some(0.5), failure: None }
    }

    #[test]
    fn a_row_compares_with_floor_and_mote_within_its_task() {
        let all = [
            series(1, "floor", &[Some(1.0), Some(1.0)]),
            series(1, "mote", &[Some(4.0), Some(4.0)]),
            series(1, "firecracker", &[Some(8.0), None]),
            series(4, "mote", &[Some(2.0), Some(2.0)]),
        ];
        let comparisons = compare(&all, &mut Rng::with_seed(1));
        let of = |metric, subject, below| ratio(&comparisons, metric, subject, below).map(|it| it.ratio);
        assert_eq!(of("blk_read_4k_depth32", "mote", "floor"), Some(4.0));
        assert_eq!(of("blk_read_4k_depth32", "mote", "firecracker"), Some(0.5));
        assert_eq!(of("blk_read_4k_depth32", "firecracker", "mote"), None);
        assert_eq!(of("blk_read_128k", "mote", "floor"), None);
        let text = tables(&all, &comparisons);
        let row = text.lines().nth(3).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = "blk_read_4k_depth32 firecracker 1 1 8.00 8.00 8.00 125000 488.3 0.50 \
                        8.000 (8.000..8.000) 0.500 (0.500..0.500)";
        assert_eq!(row, expected);
        let promises = promises(&comparisons);
        assert!(
            promises[0].ends_with("<= 0.77 (1.3 times as many reads a second): kept: 0.500 (0.500..0.500)")
        );
        assert!(promises[1].ends_with("UNMET: not both were measured"));
    }
}
