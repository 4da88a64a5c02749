//! The table of `isolation`: a row for each subject, a column for what each kind of isolation costs, and what it is.

use super::Line;
use super::text::figure;

/// A column: what stands above it, and where it comes from.
struct Column {
    head: &'static str,
    metric: &'static str,
    of: fn(&Line) -> Option<f64>,
}

const fn column(head: &'static str, metric: &'static str, of: fn(&Line) -> Option<f64>) -> Column {
    Column { head, metric, of }
}

const COLUMNS: [Column; 14] = [
    column("start ms p50", "spawn_to_ready", |line| line.p50),
    column("p99", "spawn_to_ready", |line| line.p99),
    column("failed", "spawn_to_ready", |line| {
        line.failures.filter(|count| *count > 0).map(|count| count as f64)
    }),
    column("private KiB", "private_memory_with_guest", |line| line.p50),
    column("PSS KiB", "proportional_set_size", |line| line.p50),
    column("host KiB for one more", "memory_per_machine", |line| line.slope),
    column("processes", "processes", |line| line.p50),
    column("starts/s", "starts_per_second", |line| line.p50),
    column("answer us", "answer", |line| line.p50),
    column("compute ms", "compute", |line| line.p50),
    column("read 64 MiB ms", "read_64_mib", |line| line.p50),
    column("system calls", "system_calls", |line| line.p50),
    column("exits of a start", "exits_of_start", |line| line.p50),
    column("exits to read", "exits_to_read", |line| line.p50),
];

/// The heads and rows, in the order in which subjects were measured; nothing if no start was.
pub(super) fn table(lines: &[Line]) -> Option<(Vec<&'static str>, Vec<Vec<String>>)> {
    let boundaries: Vec<&Line> = lines.iter().filter(|line| line.shares.is_some()).collect();
    if boundaries.is_empty() {
        return None;
    }
    let row = |boundary: &&Line| {
        let cell = |Column { metric, of, .. }: &Column| {
            let same = |line: &&Line| line.subject == boundary.subject && line.metric == *metric;
            lines.iter().filter(same).find_map(of).map(counted).unwrap_or_default()
        };
        let words = [boundary.shares.clone(), boundary.cannot.clone()].map(Option::unwrap_or_default);
        std::iter::once(boundary.subject.clone()).chain(COLUMNS.iter().map(cell)).chain(words).collect()
    };
    let heads = std::iter::once("subject").chain(COLUMNS.iter().map(|column| column.head));
    let heads = heads.chain(["shares with the host", "cannot"]).collect();
    Some((heads, boundaries.iter().map(row).collect()))
}

/// A whole number as such.
fn counted(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { figure(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_what_is_known() {
        let line = |metric: &str| Line { subject: "crun".into(), metric: metric.into(), ..Line::default() };
        let lines = [
            Line { p50: Some(42.5), p99: Some(90.0), ..line("spawn_to_ready") },
            Line { slope: Some(1234.0), ..line("memory_per_machine") },
            Line { shares: Some("kernel".into()), cannot: Some("mount".into()), ..line("boundary") },
        ];
        let (heads, rows) = table(&lines).unwrap();
        let cell = |head: &str| &*rows[0][heads.iter().position(|other| *other == head).unwrap()];
        assert_eq!(
            ["subject", "start ms p50", "p99", "host KiB for one more", "exits to read", "cannot"].map(cell),
            ["crun", "42.5", "90", "1234", "", "mount"]
        );
        assert_eq!(table(&lines[..2]), None, "another bench");
    }
}
