//! What each commit came to: one line of JSON a commit, in a file that is kept with the sources.
//!
//! A line holds only what means something beside another day's: ratios of mote to the floor, each of one run, and sizes. Times
//! are left out, since the machine that they were taken on has not stood still.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chart::{Chart, Curve};
use super::text::figure;
use super::{Line, PageError, Results};

/// A commit, and what was found of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Record {
    commit: String,
    /// When the latest of its runs began, in seconds since 1970.
    started: u64,
    host: Value,
    figures: Vec<Kept>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Kept {
    bench: String,
    metric: String,
    /// `ratio`: mote by floor; else the unit of mote's own.
    unit: String,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    high: Option<f64>,
}

impl Kept {
    /// What is kept of a line, if anything is.
    fn of(line: &Line) -> Option<Self> {
        let (value, low, high) = match line {
            Line { ratio: Some(ratio), relative_to: Some(other), .. } if other == "floor" => {
                (*ratio, line.low, line.high)
            }
            Line { slope: Some(slope), .. } => (*slope, line.low, line.high),
            Line { p50: Some(p50), unit, .. } if unit == "KiB" => (*p50, None, None),
            _ => return None,
        };
        let Line { bench, metric, unit, subject, .. } = line;
        (subject == "mote").then(|| Self {
            bench: bench.clone(),
            metric: metric.clone(),
            unit: unit.clone(),
            value,
            low,
            high,
        })
    }

    fn name(&self) -> String {
        format!("{}: {}", self.bench, self.metric)
    }
}

/// The records of a file, oldest first; none if there is no such file.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn read(file: &Path) -> Result<Vec<Record>, PageError> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    super::lines(file)
}

/// Adds the last run of each bench of one commit, that of the latest, to `file`; the commit's line is replaced if it is there.
/// Returns the commit, and the benches that were left out because their last runs were of others.
///
/// # Errors
/// When the commit had changes beside it, or the file cannot be read or written.
pub fn record(results: &Results, file: &Path) -> Result<(String, Vec<String>), PageError> {
    let all = || results.benches.values().flatten();
    let latest = all().max_by_key(|line| line.started).cloned().unwrap_or_default();
    if latest.commit.is_empty() || latest.commit == "unknown" || latest.commit.ends_with("-dirty") {
        return Err(PageError::Commit(latest.commit));
    }
    let of_it = |lines: &&Vec<Line>| lines.iter().any(|line| line.commit == latest.commit && !line.partial);
    let others = results.benches.iter().filter(|(_, lines)| !of_it(lines));
    let others = others.map(|(bench, _)| bench.clone()).collect();
    let figures = results.benches.values().filter(of_it).flatten().filter_map(Kept::of).collect();
    let record =
        Record { commit: latest.commit.clone(), started: latest.started, host: latest.host.clone(), figures };
    let mut records = read(file)?;
    match records.iter_mut().find(|other| other.commit == record.commit) {
        Some(place) => *place = record,
        None => records.push(record),
    }
    let mut text = String::new();
    for record in records {
        text.push_str(&(serde_json::to_string(&record)? + "\n"));
    }
    fs::write(file, text).map_err(|error| PageError::Write(file.to_owned(), error))?;
    Ok((latest.commit, others))
}

/// A chart for each unit: metrics by commit.
pub(super) fn charts(records: &[Record]) -> Vec<Chart<'static>> {
    let mut units: BTreeMap<&str, BTreeMap<String, Curve>> = BTreeMap::new();
    for (number, record) in records.iter().enumerate() {
        for kept in &record.figures {
            let line = units.entry(&kept.unit).or_default().entry(kept.name()).or_default();
            line.push((number as f64, kept.value));
        }
    }
    let names: Vec<String> = records.iter().map(|record| record.commit.chars().take(7).collect()).collect();
    let chart = |(unit, lines): (&str, BTreeMap<String, Curve>)| {
        let (title, axis) = match unit {
            "ratio" => ("mote / floor", "ratio"),
            "KiB" => ("Sizes of mote", "KiB"),
            _ => ("Other figures of mote", "each in its unit"),
        };
        let lines = lines.into_iter().collect();
        let axes = ["commit", axis];
        Chart { title: title.to_owned(), axes, logarithmic: false, names: names.clone(), lines }
    };
    units.into_iter().map(chart).collect()
}

/// A row for each commit, the latest first, a column for each metric.
pub(super) fn table(records: &[Record]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut columns: Vec<(String, String)> = records
        .iter()
        .flat_map(|record| record.figures.iter().map(|kept| (kept.name(), kept.unit.clone())))
        .collect();
    columns.sort();
    columns.dedup();
    let row = |record: &Record| {
        let cell = |(name, unit): &(String, String)| {
            let found = record.figures.iter().find(|kept| kept.name() == *name && kept.unit == *unit);
            found.map(|kept| figure(kept.value)).unwrap_or_default()
        };
        std::iter::once(record.commit.clone()).chain(columns.iter().map(cell)).collect()
    };
    let heads = columns.iter().map(|(name, unit)| format!("{name}, {unit}"));
    let heads = std::iter::once("commit".to_owned()).chain(heads).collect();
    (heads, records.iter().rev().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(metric: &str, unit: &str, commit: &str) -> Line {
        Line {
            bench: "cold_start".into(),
            subject: "mote".into(),
            metric: metric.into(),
            unit: unit.into(),
            commit: commit.into(),
            ..Line::default()
        }
    }

    fn results(commit: &str, ratio: f64) -> Results {
        let relative_to = Some("floor".to_owned());
        let lines = vec![
            Line { ratio: Some(ratio), relative_to, ..line("spawn_to_ready", "ratio", commit) },
            Line { p50: Some(140.0), ..line("private_memory", "KiB", commit) },
            Line { p50: Some(2.5), ..line("spawn_to_ready", "ms", commit) },
            Line { subject: "floor".into(), p50: Some(76.0), ..line("private_memory", "KiB", commit) },
        ];
        let benches = BTreeMap::from([("cold_start".to_owned(), lines)]);
        Results { benches, history: Vec::new() }
    }

    #[test]
    fn a_commit_has_one_line_and_no_times() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("history.jsonl");
        for (commit, ratio) in [("aaaaaaaaaa", 1.1), ("bbbbbbbbbb", 1.2), ("bbbbbbbbbb", 1.3)] {
            let recorded = record(&results(commit, ratio), &file).unwrap();
            assert_eq!(recorded, (commit.to_owned(), Vec::new()));
        }
        let records = read(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
        let (heads, rows) = table(&records);
        assert_eq!(heads, ["commit", "cold_start: private_memory, KiB", "cold_start: spawn_to_ready, ratio"]);
        assert_eq!(rows, [["bbbbbbbbbb", "140", "1.30"], ["aaaaaaaaaa", "140", "1.10"]]);
        let charts = charts(&records);
        assert!(charts[1].svg().unwrap().contains(">aaaaaaa</text>"));
    }

    #[test]
    fn what_is_not_a_commit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("history.jsonl");
        for commit in ["aaaa-dirty", "unknown", ""] {
            let error = record(&results(commit, 1.0), &file).unwrap_err();
            assert!(matches!(error, PageError::Commit(_)), "{error}");
        }
        assert!(!file.exists());
    }

    #[test]
    fn runs_of_other_commits_are_left_out_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut results = results("aaaaaaaaaa", 1.0);
        results.benches.insert("density".into(), vec![line("x", "KiB", "older")]);
        results.benches.get_mut("cold_start").unwrap()[0].started = 9;
        let (commit, others) = record(&results, &directory.path().join("history.jsonl")).unwrap();
        assert_eq!((&*commit, &others[..]), ("aaaaaaaaaa", &["density".to_owned()][..]));
    }

    #[test]
    fn a_file_that_is_not_there_is_no_history() {
        assert_eq!(read(Path::new("/nonexistent/history.jsonl")).unwrap(), []);
    }
}
