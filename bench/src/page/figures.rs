//! What the charts of a bench show.

use super::Line;
use super::bars::Bars;
use super::chart::{Chart, Curve};
use crate::phases::{self, PHASES};

/// A drawing and the lines that it was made from.
pub(super) struct Figure<'a> {
    pub(super) svg: String,
    pub(super) caption: String,
    pub(super) lines: Vec<&'a Line>,
}

/// All figures of a bench's last run.
pub(super) fn of(lines: &[Line]) -> Vec<Figure<'_>> {
    // A subject has the same colour in all figures, in whatever order it ran.
    let found = |wanted: &dyn Fn(&Line) -> bool| -> Vec<&Line> {
        let mut found: Vec<&Line> = lines.iter().filter(|line| wanted(line)).collect();
        found.sort_by_key(|line| lines.iter().position(|other| other.subject == line.subject));
        found
    };
    let samples = |metric: &str| found(&|line| line.metric == metric && line.samples.is_some());
    let medians = |prefix: &str| found(&|line| line.metric.starts_with(prefix) && line.p50.is_some());
    let figures = [
        distribution("How long starts take", "ms from spawn to READY", samples("spawn_to_ready")),
        stacked(medians("phase_")),
        distribution("How long starts take, 10 at once", REQUEST, samples("request_to_ready_of_10")),
        distribution("How long starts take, 100 at once", REQUEST, samples("request_to_ready_of_100")),
        by_number(
            "Starts among others",
            ["machines alive", "ms from spawn to READY, median"],
            medians("spawn_to_ready_among_"),
        ),
        left(samples("memory_available")),
        by_number(
            "Memory outside the guest's",
            ["MiB that the guest has", "private KiB, median"],
            medians("private_memory_of_guest_"),
        ),
        by_number(
            "Page tables of the VMM's process",
            ["MiB that the guest has", "KiB, median"],
            medians("page_tables_of_guest_"),
        ),
        by_number(
            "How fast they come",
            ["starts at a time", "starts a second, median"],
            medians("starts_per_second_"),
        ),
    ];
    figures.into_iter().flatten().collect()
}

fn chart<'a>(chart: &Chart<'_>, lines: Vec<&'a Line>) -> Option<Figure<'a>> {
    Some(Figure { svg: chart.svg()?, caption: chart.caption(), lines })
}

/// What runs along where many are asked for at one moment.
const REQUEST: &str = "ms from the request for all to READY";

fn distribution<'a>(title: &str, along: &str, lines: Vec<&'a Line>) -> Option<Figure<'a>> {
    let curves = lines.iter().map(|line| (line.subject.clone(), shares(line.good()))).collect();
    let axes = [along, "share of starts that are ready by then"];
    chart(
        &Chart { title: title.to_owned(), axes, logarithmic: true, names: Vec::new(), lines: curves },
        lines,
    )
}

fn left(lines: Vec<&Line>) -> Option<Figure<'_>> {
    let curves = lines.iter().map(|line| (line.subject.clone(), taken(&line.good()))).collect();
    let title = "Memory".to_owned();
    let axes = ["machines alive", "MiB that the host has less"];
    chart(&Chart { title, axes, logarithmic: false, names: Vec::new(), lines: curves }, lines)
}

/// The medians of metrics whose names end in what they run along.
fn by_number<'a>(title: &str, axes: [&str; 2], lines: Vec<&'a Line>) -> Option<Figure<'a>> {
    let mut curves: Vec<(String, Curve)> = Vec::new();
    for line in &lines {
        let number = line.metric.rsplit('_').next().and_then(|number| number.parse().ok());
        let Some(point) = number.zip(line.p50) else { continue };
        match curves.iter_mut().find(|(name, _)| *name == line.subject) {
            Some((_, points)) => points.push(point),
            None => curves.push((line.subject.clone(), vec![point])),
        }
    }
    chart(
        &Chart { title: title.to_owned(), axes, logarithmic: false, names: Vec::new(), lines: curves },
        lines,
    )
}

/// A bar for each number of starts at once.
fn stacked(lines: Vec<&Line>) -> Option<Figure<'_>> {
    let mut bars: Vec<(String, Vec<f64>)> = Vec::new();
    let titles = [("", "one at a time"), ("_of_10", "10 at once"), ("_of_100", "100 at once")];
    for (suffix, title) in titles {
        let size = |phase: &&str| {
            let metric = phases::metric(phase) + suffix;
            lines.iter().find(|line| line.metric == metric)?.p50
        };
        bars.extend(
            PHASES.iter().map(size).collect::<Option<Vec<_>>>().map(|sizes| (title.to_owned(), sizes)),
        );
    }
    let pieces = PHASES.iter().map(|phase| phase.replace('_', " ").replace("kvm", "KVM")).collect();
    let bars = Bars { title: "Where mote's start goes, once it is spawned".into(), unit: "ms", pieces, bars };
    Some(Figure { svg: bars.svg()?, caption: bars.caption(), lines })
}

/// The empirical distribution function of samples above 0.
fn shares(mut samples: Vec<f64>) -> Curve {
    samples.retain(|&sample| sample > 0.0);
    samples.sort_unstable_by(f64::total_cmp);
    let count = samples.len() as f64;
    (1..).zip(samples).map(|(rank, sample)| (sample, f64::from(rank) / count)).collect()
}

/// What each reading of memory, in KiB, is below the first, in MiB.
fn taken(samples: &[f64]) -> Curve {
    let first = samples.first().copied().unwrap_or_default();
    (1..).zip(samples).map(|(count, kib)| (f64::from(count), (first - kib).max(0.0) / 1024.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(metric: &str, p50: f64) -> Line {
        Line { subject: "mote".into(), metric: metric.into(), p50: Some(p50), ..Line::default() }
    }

    #[test]
    fn phases_are_stacked_where_all_are_known() {
        let mut lines: Vec<Line> = PHASES.iter().map(|phase| line(&phases::metric(phase), 0.5)).collect();
        lines.push(line("phase_exec_of_10", 7.0));
        let figures = of(&lines);
        assert_eq!(figures.len(), 1);
        assert!(figures[0].svg.contains("one at a time: 3.50 ms"), "{}", figures[0].svg);
        assert!(!figures[0].svg.contains("10 at once"), "one phase is not all");
    }

    #[test]
    fn a_distribution_ends_at_one_and_leaves_failures_out() {
        let samples = Some(vec![Some(3.0), None, Some(1.0)]);
        let lines = [Line { samples, ..line("spawn_to_ready", 0.0) }];
        assert_eq!(shares(lines[0].good()), [(1.0, 0.5), (3.0, 1.0)]);
        assert_eq!(of(&lines).len(), 1);
    }

    #[test]
    fn a_subject_keeps_its_colour() {
        let samples = Some(vec![Some(3.0), Some(1.0)]);
        let line = |subject: &str, metric: &str| {
            let (subject, samples) = (subject.to_owned(), samples.clone());
            Line { subject, samples, ..line(metric, 0.0) }
        };
        let lines = [
            line("floor", "spawn_to_ready"),
            line("mote", "spawn_to_ready"),
            line("mote", "request_to_ready_of_10"),
            line("floor", "request_to_ready_of_10"),
        ];
        let figures = of(&lines);
        assert_eq!(figures.len(), 2);
        assert!(figures.iter().all(|figure| figure.caption.contains("<li class=\"c0\">floor</li>")));
    }

    #[test]
    fn rates_run_along_the_starts_at_a_time() {
        let lines = [line("starts_per_second_1", 200.0), line("starts_per_second_8", 500.0)];
        let figures = of(&lines);
        assert!(figures[0].caption.contains("How fast they come"), "{}", figures[0].caption);
    }
}
