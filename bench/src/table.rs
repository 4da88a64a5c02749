//! Text in columns.

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

#[cfg(test)]
mod tests {
    use super::*;

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
