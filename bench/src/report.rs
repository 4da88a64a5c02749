//! Text for people: columns, and errors.

use std::error::Error;

/// Lays `rows` out under `heads`: the first column to the left, the others to the right.
#[must_use]
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let padded = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&padded);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// An error and its sources in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let (mut line, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Cause(&'static str, #[source] Option<Box<Cause>>);

        let error =
            Cause("no answer", Some(Box::new(Cause("no machine", Some(Box::new(Cause("no KVM", None)))))));
        assert_eq!(chain(&error), "no answer: no machine: no KVM");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["mote".into(), "1.25".into()], vec!["firecracker".into(), "10".into()]];
        assert_eq!(
            table(&["subject", "ms"], &rows),
            "subject        ms\nmote         1.25\nfirecracker    10\n"
        );
    }

    #[test]
    fn a_short_row_ends_early() {
        assert_eq!(table(&["a", "b"], &[vec!["absent".into()]]), "a       b\nabsent\n");
    }
}
