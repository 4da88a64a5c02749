//! One page about the last run of each bench, made from the lines of JSON that the benches leave.
//!
//! The page needs no network and no script: charts are SVG, drawn here. Figures of different runs never stand in one table or
//! chart.

mod bars;
mod chart;
mod figures;
pub mod history;
mod html;
mod isolation;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// What a page is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// A browser.
    Html,
    /// A README or an issue.
    Markdown,
    /// Programs: the lines that count, in one array.
    Json,
    /// Spreadsheets: one figure a row.
    Csv,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "html" => Ok(Self::Html),
            "markdown" => Ok(Self::Markdown),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err("it is none of html, markdown, json, csv".into()),
        }
    }
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum PageError {
    /// A file or directory of results.
    #[error("{} could not be read: has a bench run? (cargo bench --bench cold_start)", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A line is not what a bench writes.
    #[error("{}, line {line}: this is no result of a bench", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is nothing to tell.
    #[error("{} holds no results: run a bench first (cargo bench --bench cold_start)", .0.display())]
    Empty(PathBuf),
    /// What was measured is no commit.
    #[error(
        "the last run was of {0:?}: only a commit without changes has a place in the history (commit, and run the bench again)"
    )]
    Commit(String),
    /// The history could not be written.
    #[error("{} could not be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// JSON was not written.
    #[error("the results could not be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// One line of results, of whatever kind: see docs/benchmark.md.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
struct Line {
    bench: String,
    started: u64,
    commit: String,
    seed: u64,
    host: Value,
    subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    metric: String,
    unit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outliers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slope: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    high: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<Vec<Option<f64>>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    command: String,
    /// Why the subject is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shares: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cannot: Option<String>,
    /// The run was interrupted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl Line {
    /// The samples of the runs that succeeded.
    fn good(&self) -> Vec<f64> {
        self.samples.iter().flatten().copied().flatten().collect()
    }
}

/// The lines of the last run of each bench, in the order in which they were written, and what earlier commits came to.
#[derive(Debug)]
pub struct Results {
    benches: BTreeMap<String, Vec<Line>>,
    history: Vec<history::Record>,
}

impl Results {
    /// The same with a history.
    #[must_use]
    pub fn with_history(self, history: Vec<history::Record>) -> Self {
        Self { history, ..self }
    }
}

/// Reads every `*.jsonl` of `directory`.
///
/// # Errors
/// When they cannot be read, hold something else, or hold nothing.
pub fn load(directory: &Path) -> Result<Results, PageError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| PageError::Read(path, error)
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        files.push(entry.map_err(failed(directory))?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let mut all = Vec::new();
    for path in files {
        all.extend(lines(&path)?);
    }
    let benches = last_runs(all);
    if benches.is_empty() {
        return Err(PageError::Empty(directory.to_owned()));
    }
    Ok(Results { benches, history: Vec::new() })
}

/// What each line of a file holds.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, PageError> {
    let text = fs::read_to_string(path).map_err(|error| PageError::Read(path.to_owned(), error))?;
    let parse = |(number, line)| {
        serde_json::from_str(line).map_err(|source| PageError::Line {
            path: path.to_owned(),
            line: number + 1,
            source,
        })
    };
    text.lines().enumerate().map(parse).collect()
}

/// A run is known by when it began and by its seed.
fn last_runs(lines: Vec<Line>) -> BTreeMap<String, Vec<Line>> {
    let mut last: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for line in &lines {
        let run = last.entry(line.bench.clone()).or_default();
        *run = (*run).max((line.started, line.seed));
    }
    let mut benches: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in lines {
        if last.get(&line.bench) == Some(&(line.started, line.seed)) {
            benches.entry(line.bench.clone()).or_default().push(line);
        }
    }
    benches
}

/// Writes the page.
///
/// # Errors
/// When JSON cannot be written.
pub fn render(results: &Results, format: Format) -> Result<String, PageError> {
    Ok(match format {
        Format::Html => html::page(results),
        Format::Markdown => text::markdown(results),
        Format::Csv => text::csv(results),
        Format::Json => {
            serde_json::to_string_pretty(&results.benches.values().flatten().collect::<Vec<_>>())? + "\n"
        }
    })
}

#[cfg(test)]
mod tests;
