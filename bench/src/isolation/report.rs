//! The tables, and what is kept.

use std::collections::BTreeMap;
use std::error;

use fastrand::Rng;

use crate::binaries;
use crate::report::table;
use crate::results::{Comparison, Estimate, Files, Run, Samples};
use crate::statistics::{Ratio, Slope, Summary, noise};
use crate::subjects::{Absent, Boundary, Subject};
use crate::syscalls;

/// What is measured of each subject.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Metric {
    Start,
    Private,
    Pss,
    Processes,
    SystemCalls,
    Rate,
    Answer,
    Compute,
    Read,
    Exits,
    ReadExits,
}

impl Metric {
    /// Its name in results, and its unit.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("spawn_to_ready", "ms"),
            Self::Private => ("private_memory_with_guest", "KiB"),
            Self::Pss => ("proportional_set_size", "KiB"),
            Self::Processes => ("processes", "1"),
            Self::SystemCalls => ("system_calls", "1"),
            Self::Answer => ("answer", "us"),
            Self::Compute => ("compute", "ms"),
            Self::Rate => ("starts_per_second", "1/s"),
            Self::Read => ("read_64_mib", "ms"),
            Self::Exits => ("exits_of_start", "1"),
            Self::ReadExits => ("exits_to_read", "1"),
        }
    }
}

/// Samples by the round that each was taken in; none where it failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<(usize, Option<f64>)>);

impl Series {
    pub(super) fn push(&mut self, round: usize, sample: Option<f64>) {
        self.0.push((round, sample));
    }

    fn samples(&self) -> Vec<Option<f64>> {
        self.0.iter().map(|&(_, sample)| sample).collect()
    }

    fn summary(&self) -> Option<Summary> {
        Summary::of(&self.samples().into_iter().flatten().collect::<Vec<_>>())
    }

    fn failed(&self) -> usize {
        self.samples().iter().filter(|sample| sample.is_none()).count()
    }

    /// The samples of those rounds in which both succeeded.
    fn pairs(&self, other: &Self) -> Vec<(f64, f64)> {
        let other: BTreeMap<usize, Option<f64>> = other.0.iter().copied().collect();
        self.0.iter().filter_map(|(round, sample)| (*sample).zip(*other.get(round)?)).collect()
    }
}

/// All that is known of one subject.
pub(super) struct Findings {
    pub(super) name: &'static str,
    version: String,
    boundary: Boundary,
    pub(super) series: BTreeMap<Metric, Series>,
    /// How many lived at once when they were looked at.
    pub(super) live: usize,
    /// What one more of them took from the host, in KiB.
    pub(super) marginal: Option<Slope>,
    pub(super) failures: Vec<String>,
}

impl Findings {
    pub(super) fn new(subject: &dyn Subject) -> Self {
        Self {
            name: subject.name(),
            version: subject.version(),
            boundary: subject.boundary(),
            series: BTreeMap::new(),
            live: 0,
            marginal: None,
            failures: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, metric: Metric, round: usize, sample: f64) {
        self.series.entry(metric).or_default().push(round, Some(sample));
    }

    /// Adds a sample, if there is one, of a round of its own.
    pub(super) fn extend(&mut self, metric: Metric, sample: Option<f64>) {
        if let Some(sample) = sample {
            let round = self.series.get(&metric).map_or(0, |series| series.0.len());
            self.push(metric, round, sample);
        }
    }

    fn summary(&self, metric: Metric) -> Option<Summary> {
        self.series.get(&metric)?.summary()
    }

    fn figure(&self, metric: Metric, of: fn(Summary) -> f64) -> String {
        let words = |value: f64| if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        self.summary(metric).map(|it| words(of(it))).unwrap_or_default()
    }

    /// How many samples there are.
    #[cfg(test)]
    pub(super) fn count(&self, metric: Metric) -> usize {
        self.series.get(&metric).map_or(0, |series| series.0.len())
    }

    /// Whether it has answered a line.
    pub(super) fn answers(&self) -> bool {
        self.summary(Metric::Answer).is_some()
    }

    /// Whether it has ever started.
    pub(super) fn works(&self) -> bool {
        self.summary(Metric::Start).is_some()
    }
}

/// How starts compare, as results keep it: every subject with a process, mote with every other, and the noise.
pub(super) fn compare(
    all: &[Findings],
    again: Option<&(usize, Series)>,
    random: &mut Rng,
) -> Vec<Comparison<'static>> {
    let start = |name: &str| all.iter().find(|one| one.name == name)?.series.get(&Metric::Start);
    let metric = Metric::Start.words().0;
    let mut comparisons = Vec::new();
    for name in all.iter().map(|one| one.name) {
        let below = (name != "process").then_some((name, "process"));
        let above = (!["mote", "process"].contains(&name)).then_some(("mote", name));
        for (above, below) in below.into_iter().chain(above) {
            let pairs = start(above).zip(start(below)).map(|(above, below)| above.pairs(below));
            comparisons.extend(Comparison::of(above, below, metric, &pairs.unwrap_or_default(), random));
        }
    }
    if let Some((name, pairs)) = twice(all, again) {
        comparisons.extend(Comparison::of(name, name, metric, &pairs, random));
    }
    comparisons
}

/// Who took part twice, and what it took the second and the first time, round by round.
fn twice(all: &[Findings], again: Option<&(usize, Series)>) -> Option<(&'static str, Vec<(f64, f64)>)> {
    let (index, second) = again?;
    let findings = all.get(*index)?;
    Some((findings.name, second.pairs(findings.series.get(&Metric::Start)?)))
}

/// All that people read.
pub(super) fn text(
    all: &[Findings],
    comparisons: &[Comparison<'_>],
    again: Option<&(usize, Series)>,
    random: &mut Rng,
) -> String {
    let mut text = format!("spawn_to_ready, ms\n{}", starts(all, comparisons));
    if let Some((name, pairs)) = twice(all, again) {
        text.push_str(&noise(name, &pairs, random));
        text.push('\n');
    }
    let tables = [holdings(all), work(all), boundaries(all)].join("\n");
    text.push_str(&format!("\neach, of several at once\n{tables}"));
    for findings in all {
        if let (Some(failure), count) = (findings.failures.last(), findings.failures.len()) {
            text.push_str(&format!("failed: {}, {count} times, the last: {failure}\n", findings.name));
        }
    }
    text
}

/// A row for each subject: its figures, its median by that of a process, and mote's by its.
fn starts(all: &[Findings], comparisons: &[Comparison<'_>]) -> String {
    let heads = ["subject", "n", "failed", "min", "p50", "p99", "it / process", "mote / it"];
    let row = |findings: &Findings| {
        let series = findings.series.get(&Metric::Start).cloned().unwrap_or_default();
        let figures = series.summary().map(|it| [it.min, it.p50, it.p99]);
        let figures =
            figures.map_or([const { String::new() }; 3], |figures| figures.map(|ms| format!("{ms:.2}")));
        let ratios = [(findings.name, "process"), ("mote", findings.name)].map(|pair| {
            let found =
                comparisons.iter().find(|it| (it.subject, it.relative_to) == pair && pair.0 != pair.1);
            found.map(|it| ratio(it.ratio)).unwrap_or_default()
        });
        let n = series.samples().len() - series.failed();
        let head = [findings.name.to_owned(), n.to_string(), series.failed().to_string()];
        head.into_iter().chain(figures).chain(ratios).collect()
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    table(&heads, &rows)
}

/// With more digits where it is small.
fn ratio(Ratio { ratio, low, high }: Ratio) -> String {
    let digits = if ratio < 0.1 { 4 } else { 2 };
    format!("{ratio:.digits$} ({low:.digits$}..{high:.digits$})")
}

fn holdings(all: &[Findings]) -> String {
    let heads =
        ["subject", "live", "processes", "private KiB", "PSS KiB", "host KiB for one more", "starts/s"];
    let row = |findings: &Findings| {
        let figure = |metric| findings.figure(metric, |it| it.p50);
        let marginal = findings.marginal.map(|slope| slope.to_string());
        vec![
            findings.name.to_owned(),
            findings.live.to_string(),
            figure(Metric::Processes),
            figure(Metric::Private),
            figure(Metric::Pss),
            marginal.unwrap_or_default(),
            figure(Metric::Rate),
        ]
    };
    table(&heads, &all.iter().map(row).collect::<Vec<_>>())
}

fn work(all: &[Findings]) -> String {
    let heads = [
        "subject",
        "answer us: p50",
        "p99",
        "compute ms: p50",
        "read ms: p50",
        "exits of a start",
        "exits to read",
    ];
    let row = |findings: &Findings| {
        vec![
            findings.name.to_owned(),
            findings.figure(Metric::Answer, |it| it.p50),
            findings.figure(Metric::Answer, |it| it.p99),
            findings.figure(Metric::Compute, |it| it.p50),
            findings.figure(Metric::Read, |it| it.p50),
            findings.figure(Metric::Exits, |it| it.p50),
            findings.figure(Metric::ReadExits, |it| it.p50),
        ]
    };
    table(&heads, &all.iter().map(row).collect::<Vec<_>>())
}

fn boundaries(all: &[Findings]) -> String {
    let heads = ["subject", "host's system calls", "shares with the host", "cannot"];
    let row = |findings: &Findings| {
        let Boundary { shares, cannot } = findings.boundary;
        let calls = findings.summary(Metric::SystemCalls).map(|it| it.p50 as usize);
        let calls = calls.map(|calls| {
            if calls == syscalls::all() { format!("all {calls}") } else { format!("at most {calls}") }
        });
        vec![findings.name.to_owned(), calls.unwrap_or_default(), shares.to_owned(), cannot.to_owned()]
    };
    table(&heads, &all.iter().map(row).collect::<Vec<_>>())
}

/// Appends everything to the results.
pub(super) fn keep(
    run: &Run,
    all: &[Findings],
    absent: &[Absent],
    comparisons: &[Comparison<'_>],
) -> Result<(), Box<dyn error::Error>> {
    let files = Files::of(run, &binaries::results_directory()?);
    for findings in all {
        let (subject, version) = (findings.name, &*findings.version);
        files.boundary(subject, findings.boundary)?;
        for (metric, series) in &findings.series {
            let (metric, unit) = metric.words();
            files.series(&Samples { subject, metric, unit, samples: &series.samples() }, version)?;
        }
        if let Some(slope) = findings.marginal {
            let (metric, unit, n) = ("memory_per_machine", "KiB", findings.live);
            files.result(&Estimate { subject, version, metric, unit, n, slope })?;
        }
    }
    files.absent(absent)?;
    Ok(files.finish(comparisons)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &'static str, starts: &[(usize, Option<f64>)]) -> Findings {
        Findings {
            name,
            version: String::new(),
            boundary: Boundary { shares: "kernel", cannot: "mount" },
            live: 0,
            marginal: None,
            series: BTreeMap::from([(Metric::Start, Series(starts.to_vec()))]),
            failures: Vec::new(),
        }
    }

    #[test]
    fn starts_are_compared_in_the_rounds_of_both() {
        let all = [
            findings("process", &[(0, Some(1.0)), (1, Some(1.0)), (2, Some(4.0))]),
            findings("mote", &[(0, Some(3.0)), (1, None), (2, Some(3.0))]),
            findings("slow", &[(1, Some(9.0))]),
        ];
        let expected = "\
subject  n  failed   min   p50   p99       it / process          mote / it
process  3       0  1.00  1.00  3.94                     1.20 (0.75..3.00)
mote     2       1  3.00  3.00  3.00  1.20 (0.75..3.00)
slow     1       0  9.00  9.00  9.00  9.00 (9.00..9.00)
";
        let text = starts(&all, &compare(&all, None, &mut Rng::with_seed(1)));
        assert_eq!(text, expected, "{text}");
    }

    #[test]
    fn what_never_started_is_no_figure() {
        let mut broken = findings("crun", &[]);
        broken.failures.push("crun never started: no cgroups".into());
        assert!(!broken.works());
        let again = Some((1, Series(vec![(0, Some(3.3))])));
        let all = [broken, findings("mote", &[(0, Some(3.0))])];
        let text = text(&all, &[], again.as_ref(), &mut Rng::with_seed(1));
        assert!(text.contains("failed: crun, 1 times, the last: crun never started: no cgroups\n"), "{text}");
        assert!(text.contains("noise: mote twice in this run, 1 rounds: medians differ by 10.0 %"), "{text}");
    }
}
