//! Tables as Markdown, and figures as comma-separated values.

use std::collections::BTreeMap;

use super::{Line, Results, history, isolation};

/// A table of one metric: heads, and a row for each subject.
pub(super) struct Table {
    pub(super) metric: String,
    pub(super) unit: String,
    pub(super) rows: Vec<Vec<String>>,
}

pub(super) const HEADS: [&str; 9] =
    ["subject", "p50", "p99", "min", "slope", "mote / it", "n", "outliers", "failed"];

/// The tables of a run, in the order in which its metrics were written.
pub(super) fn tables(lines: &[Line]) -> Vec<Table> {
    let ratio = |metric: &str, above: &str, below: &str| {
        let found = lines.iter().find(|line| {
            line.metric == metric && line.subject == above && line.relative_to.as_deref() == Some(below)
        })?;
        Some(interval(found.ratio?, found.low, found.high))
    };
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut rows: BTreeMap<&str, Vec<Vec<String>>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.p50.is_some() || line.slope.is_some()) {
        if !rows.contains_key(&*line.metric) {
            order.push((&line.metric, &line.unit));
        }
        let number = |value: Option<f64>| value.map(figure).unwrap_or_default();
        let count = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let slope = line.slope.map(|slope| interval(slope, line.low, line.high)).unwrap_or_default();
        let compared = (line.subject != "mote").then(|| ratio(&line.metric, "mote", &line.subject)).flatten();
        rows.entry(&line.metric).or_default().push(vec![
            line.subject.clone(),
            number(line.p50),
            number(line.p99),
            number(line.min),
            slope,
            compared.unwrap_or_default(),
            count(line.n),
            count(line.outliers),
            count(line.failures),
        ]);
    }
    let table = |(metric, unit): (&str, &str)| Table {
        metric: metric.to_owned(),
        unit: unit.to_owned(),
        rows: rows.remove(metric).unwrap_or_default(),
    };
    order.into_iter().map(table).collect()
}

fn interval(value: f64, low: Option<f64>, high: Option<f64>) -> String {
    let ends = low.zip(high).map(|(low, high)| format!(" ({}..{})", figure(low), figure(high)));
    figure(value) + &ends.unwrap_or_default()
}

/// A number with three digits that count, or all that stand before the point.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// What a run was of.
pub(super) fn provenance(lines: &[Line]) -> String {
    let Some(line) = lines.first() else { return String::new() };
    let host = |key: &str| match &line.host[key] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let [cpu, cpus, kernel, kvm] = ["cpu", "cpus", "kernel", "kvm"].map(host);
    let [thp, load, scheduling] = ["thp", "load", "scheduling"].map(host);
    let known = |text: String| if text.is_empty() || text == "null" { "unknown".to_owned() } else { text };
    let [governor, mitigations] = ["governor", "mitigations"].map(|key| known(host(key)));
    let partial = if lines.iter().any(|line| line.partial) { "interrupted, so partial; " } else { "" };
    format!(
        "{partial}commit {}, {}, seed {}; {cpus} CPUs, {cpu}; Linux {kernel}, {kvm}, governor {governor}, huge pages {thp}, load {load}, scheduling {scheduling}; \
         vulnerable or mitigated: {mitigations}",
        line.commit,
        date(line.started),
        line.seed
    )
}

/// A time in seconds since 1970 as date and time of day.
///
/// Counted from March of the year 0, a year's leap day is its last, and so needs no exception (H. Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second / 60 % 60)
}

pub(super) fn markdown(results: &Results) -> String {
    let mut text = String::from("# What mote's benches found\n");
    for (bench, lines) in &results.benches {
        text.push_str(&format!("\n## {bench}\n\n`cargo bench --bench {bench}`: {}\n", provenance(lines)));
        if let Some((heads, rows)) = isolation::table(lines) {
            text.push_str(&format!("\n{}", markdown_table(&heads, &rows)));
        }
        for table in tables(lines) {
            text.push_str(&format!("\n### {}, {}\n\n", table.metric, table.unit));
            text.push_str(&markdown_table(&HEADS, &table.rows));
        }
        for line in lines {
            if let Some(reason) = &line.reason {
                text.push_str(&format!("\nAbsent: {}: {reason}\n", line.subject));
            }
        }
    }
    if !results.history.is_empty() {
        let (heads, rows) = history::table(&results.history);
        let heads: Vec<&str> = heads.iter().map(|head| &**head).collect();
        text.push_str(&format!("\n## history\n\n{}", markdown_table(&heads, &rows)));
    }
    text
}

fn markdown_table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let row = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<_> = cells.map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = row(&mut heads.iter().copied());
    text.push_str(&format!("|---{}\n", "|---:".repeat(heads.len() - 1) + "|"));
    rows.iter().for_each(|cells| text.push_str(&row(&mut cells.iter().map(|cell| &**cell))));
    text
}

/// A row for each figure: the samples are in the files that this is made from.
pub(super) fn csv(results: &Results) -> String {
    let mut text = String::from(
        "bench,started,seed,commit,subject,version,metric,unit,relative_to,n,failures,min,p50,p99,mean,outliers,ratio,slope,low,high\n",
    );
    for line in results
        .benches
        .values()
        .flatten()
        .filter(|line| line.samples.is_none() && line.reason.is_none() && line.shares.is_none())
    {
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let count = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let cells = [
            quoted(&line.bench),
            line.started.to_string(),
            line.seed.to_string(),
            quoted(&line.commit),
            quoted(&line.subject),
            quoted(&line.version),
            quoted(&line.metric),
            quoted(&line.unit),
            quoted(line.relative_to.as_deref().unwrap_or_default()),
            count(line.n),
            count(line.failures),
            number(line.min),
            number(line.p50),
            number(line.p99),
            number(line.mean),
            count(line.outliers),
            number(line.ratio),
            number(line.slope),
            number(line.low),
            number(line.high),
        ];
        text.push_str(&(cells.join(",") + "\n"));
    }
    text
}

/// RFC 4180, section 2.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_660_793), "2026-11-26 02:39 UTC");
    }
}
