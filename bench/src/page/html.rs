//! The page for browsers.

use super::chart::Chart;
use super::text::{HEADS, provenance, tables};
use super::{Line, Results};

const STYLE: &str = include_str!("style.css");

pub(super) fn page(results: &Results) -> String {
    let mut body = String::from("<h1>What mote's benches found</h1>\n");
    body.push_str(
        "<p>The last run of each bench. Figures of different runs are not comparable: each stands with its own.</p>\n",
    );
    for (bench, lines) in &results.0 {
        let bench = escape(bench);
        body.push_str(&format!("<h2>{bench}</h2>\n<p><code>cargo bench --bench {bench}</code></p>\n"));
        body.push_str(&format!("<p class=\"small\">{}</p>\n", escape(&provenance(lines))));
        charts(lines).iter().for_each(|chart| body.push_str(&chart.svg()));
        for table in tables(lines) {
            let title = format!("{}, {}", table.metric, table.unit);
            body.push_str(&section(&title, &table.rows));
        }
        body.push_str(&raw(lines));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>What mote's benches found</title>\n<style>\n{STYLE}</style>\n<main>\n{body}</main>\n</html>\n"
    )
}

/// How long starts take, as shares of all, and what is left of memory.
fn charts(lines: &[Line]) -> Vec<Chart<'_>> {
    let series = |metric: &str| -> Vec<(&str, Vec<f64>)> {
        let found = lines.iter().filter(|line| line.metric == metric);
        found
            .filter_map(|line| {
                Some((&*line.subject, line.samples.as_ref()?.iter().copied().flatten().collect()))
            })
            .collect()
    };
    let starts =
        series("spawn_to_ready").into_iter().map(|(name, samples)| (name, shares(samples))).collect();
    let memory =
        series("memory_available").into_iter().map(|(name, samples)| (name, taken(&samples))).collect();
    vec![
        Chart {
            title: "Time to start",
            axes: ["ms from spawn to READY", "share of starts"],
            logarithmic: true,
            lines: starts,
        },
        Chart {
            title: "Memory",
            axes: ["machines alive", "MiB that the host has less"],
            logarithmic: false,
            lines: memory,
        },
    ]
}

/// The empirical distribution function of samples above 0.
fn shares(mut samples: Vec<f64>) -> Vec<(f64, f64)> {
    samples.retain(|&sample| sample > 0.0);
    samples.sort_unstable_by(f64::total_cmp);
    let count = samples.len() as f64;
    (1..).zip(samples).map(|(rank, sample)| (sample, f64::from(rank) / count)).collect()
}

/// What each reading of memory, in KiB, is below the first, in MiB.
fn taken(samples: &[f64]) -> Vec<(f64, f64)> {
    let first = samples.first().copied().unwrap_or_default();
    (1..).zip(samples).map(|(count, kib)| (f64::from(count), (first - kib).max(0.0) / 1024.0)).collect()
}

/// A table that scrolls by itself where it is too wide, without the columns that say nothing.
fn section(title: &str, rows: &[Vec<String>]) -> String {
    let says = |column: &usize| rows.iter().any(|row| row.get(*column).is_some_and(|cell| !cell.is_empty()));
    let columns: Vec<usize> = (0..HEADS.len()).filter(says).collect();
    let heads: String = columns.iter().map(|&column| format!("<th>{}</th>", escape(HEADS[column]))).collect();
    let mut html = format!("<h3>{}</h3>\n<div class=\"wide\"><table>\n<tr>{heads}</tr>\n", escape(title));
    for row in rows {
        let cells = columns.iter().filter_map(|&column| row.get(column));
        let cells: String = cells.map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        html.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    html + "</table></div>\n"
}

/// Every sample, for those who want to count again.
fn raw(lines: &[Line]) -> String {
    let mut html = String::from("<details><summary>Raw samples</summary>\n");
    for line in lines {
        let Some(samples) = &line.samples else { continue };
        let samples: Vec<_> = samples
            .iter()
            .map(|sample| sample.map_or_else(|| "failed".to_owned(), |it| it.to_string()))
            .collect();
        let head = format!("{}, {}, {}", line.subject, line.metric, line.unit);
        html.push_str(&format!("<p><b>{}</b></p><pre>{}</pre>\n", escape(&head), escape(&samples.join(" "))));
    }
    html + "</details>\n"
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
