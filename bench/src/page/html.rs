//! The page for browsers.

use super::figures::{self, Figure};
use super::isolation;
use super::text::{HEADS, provenance, tables};
use super::{Line, Results, history};

const STYLE: &str = include_str!("style.css");

pub(super) fn page(results: &Results) -> String {
    let mut body = String::from(
        "<header><h1>What mote's benches found</h1>\n<p>The last run of each bench. Figures of different runs are not \
         comparable: each stands with its own.</p>\n",
    );
    let link = |name: &str| format!("<a href=\"#{0}\">{0}</a>", escape(name));
    let names = results.benches.keys().map(|name| &**name);
    let names = names.chain((!results.history.is_empty()).then_some("history"));
    body.push_str(&format!("<nav>{}</nav></header>\n", names.map(link).collect::<Vec<_>>().join(" ")));
    for (bench, lines) in &results.benches {
        body.push_str(&section(bench, lines));
    }
    if !results.history.is_empty() {
        body.push_str(&past(results));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>What mote's benches found</title>\n<style>\n{STYLE}</style>\n<main>\n{body}</main>\n</html>\n"
    )
}

/// One bench: figures, tables, and who was absent.
fn section(bench: &str, lines: &[Line]) -> String {
    let command = command(lines);
    let mut html = format!(
        "<section id=\"{0}\">\n<h2>{0}</h2>\n<p><code>{1}</code></p>\n",
        escape(bench),
        escape(&command)
    );
    html.push_str(&format!("<p class=\"small\">{}</p>\n", escape(&provenance(lines))));
    if lines.iter().any(|line| line.partial) {
        html.push_str("<p class=\"warning\">This run was interrupted: its figures come from fewer rounds than it would have had.</p>\n");
    }
    if let Some((heads, rows)) = isolation::table(lines) {
        html.push_str(&table(&heads, &rows));
        let whose: Vec<&Line> = lines.iter().filter(|line| line.samples.is_some()).collect();
        html.push_str(&data(&whose, &command));
    }
    html.push_str("<div class=\"figures\">\n");
    for figure in figures::of(lines) {
        html.push_str(&drawn(&figure, &command));
    }
    html.push_str("</div>\n");
    // What the stacked figure shows, and has below it, needs no table a phase.
    for found in tables(lines).into_iter().filter(|found| !found.metric.starts_with("phase_")) {
        let title = format!("{}, {}", found.metric, found.unit);
        let whose: Vec<&Line> = lines.iter().filter(|line| line.metric == found.metric).collect();
        html.push_str(&format!("<h3>{}</h3>\n{}", escape(&title), table(&HEADS, &found.rows)));
        html.push_str(&data(&whose, &command));
    }
    for line in lines {
        if let Some(reason) = &line.reason {
            html.push_str(&format!(
                "<p class=\"small\">Absent: <b>{}</b>: {}</p>\n",
                escape(&line.subject),
                escape(reason)
            ));
        }
    }
    html + "</section>\n"
}

/// What repeats a run, in the same random order. Older results know the bench only.
fn command(lines: &[Line]) -> String {
    match lines.first() {
        Some(line) if line.command.is_empty() => format!("cargo bench --bench {}", line.bench),
        Some(line) => line.command.clone(),
        None => String::new(),
    }
}

fn drawn(Figure { svg, caption, lines }: &Figure<'_>, command: &str) -> String {
    format!("<figure>{svg}<figcaption>{caption}</figcaption>\n{}</figure>\n", data(lines, command))
}

/// What a figure or table was made from, and the command that makes it anew: one click away.
fn data(lines: &[&Line], command: &str) -> String {
    let mut html =
        format!("<details><summary>Data and command</summary>\n<p><code>{}</code></p>\n", escape(command));
    for line in lines {
        let head = format!("{}, {}, {}", line.subject, line.metric, line.unit);
        let text = match (&line.samples, line.p50, line.slope) {
            (Some(samples), _, _) => {
                let sample = |it: &Option<f64>| it.map_or_else(|| "failed".to_owned(), |it| it.to_string());
                samples.iter().map(sample).collect::<Vec<_>>().join(" ")
            }
            (None, Some(p50), _) => format!(
                "n {}, failed {}, outliers {}, min {}, p50 {p50}, p99 {}, mean {}",
                line.n.unwrap_or_default(),
                line.failures.unwrap_or_default(),
                line.outliers.unwrap_or_default(),
                line.min.unwrap_or_default(),
                line.p99.unwrap_or_default(),
                line.mean.unwrap_or_default()
            ),
            (None, None, Some(slope)) => format!(
                "{slope} ({}..{}), from {}",
                line.low.unwrap_or_default(),
                line.high.unwrap_or_default(),
                line.n.unwrap_or_default()
            ),
            (None, None, None) => continue,
        };
        html.push_str(&format!("<p><b>{}</b></p><pre>{}</pre>\n", escape(&head), escape(&text)));
    }
    html + "</details>\n"
}

/// What each commit came to: one chart a unit, and all of it as a table.
fn past(results: &Results) -> String {
    let mut html = String::from(
        "<section id=\"history\">\n<h2>history</h2>\n<p class=\"small\">mote by commit, from bench/history.jsonl. Ratios are of one \
         run each; sizes depend little on the host.</p>\n<div class=\"figures\">\n",
    );
    for chart in history::charts(&results.history) {
        let Some(svg) = chart.svg() else { continue };
        let caption = chart.caption();
        html.push_str(&format!("<figure>{svg}<figcaption>{caption}</figcaption></figure>\n"));
    }
    let (heads, rows) = history::table(&results.history);
    let heads: Vec<&str> = heads.iter().map(|head| &**head).collect();
    html.push_str(&format!("</div>\n{}", table(&heads, &rows)));
    let lines: String = results
        .history
        .iter()
        .filter_map(|record| serde_json::to_string(record).ok())
        .map(|line| line + "\n")
        .collect();
    html.push_str(&format!(
        "<details><summary>Data and command</summary>\n<p><code>cargo run --release -p bench --bin mote-bench -- record</code></p>\n<pre>{}</pre></details>\n",
        escape(&lines)
    ));
    html + "</section>\n"
}

/// A table that scrolls by itself where it is too wide, without the columns that say nothing.
fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let says = |column: &usize| rows.iter().any(|row| row.get(*column).is_some_and(|cell| !cell.is_empty()));
    let columns: Vec<usize> = (0..heads.len()).filter(says).collect();
    let heads: String = columns.iter().map(|&column| format!("<th>{}</th>", escape(heads[column]))).collect();
    let mut html = format!("<div class=\"wide\"><table>\n<tr>{heads}</tr>\n");
    for row in rows {
        let cells = columns.iter().filter_map(|&column| row.get(column));
        let cells: String = cells.map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        html.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    html + "</table></div>\n"
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
