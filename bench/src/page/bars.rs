//! Bars of stacked pieces, as SVG: each bar is as wide as all others, and its pieces are shares of it.

use super::chart::{class, legend};
use super::html::escape;
use super::text::figure;

const WIDTH: f64 = 480.0;
/// Of a bar with its name.
const ROW: f64 = 60.0;
const BAR: f64 = 28.0;
/// A narrower piece does not tell its size: it is in the table.
const LABELLED: f64 = 48.0;

/// What is drawn.
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) unit: &'static str,
    /// What the pieces are, in their order.
    pub(super) pieces: Vec<String>,
    /// A name, and a size for each piece.
    pub(super) bars: Vec<(String, Vec<f64>)>,
}

impl Bars {
    /// The bars without their legend; nothing without any.
    pub(super) fn svg(&self) -> Option<String> {
        if self.bars.is_empty() {
            return None;
        }
        let height = ROW * self.bars.len() as f64;
        let title = escape(&self.title);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">");
        for (row, (name, sizes)) in self.bars.iter().enumerate() {
            let top = ROW * row as f64;
            let total: f64 = sizes.iter().sum();
            svg.push_str(&format!(
                "<text class=\"strong\" x=\"0\" y=\"{:.1}\">{}: {} {}</text>",
                top + 18.0,
                escape(name),
                figure(total),
                self.unit
            ));
            let mut left = 0.0;
            for (number, &size) in sizes.iter().enumerate() {
                let width = if total > 0.0 { size / total * WIDTH } else { 0.0 };
                svg.push_str(&piece(number, [left, top + 25.0, width], size));
                left += width;
            }
        }
        Some(svg + "</svg>")
    }

    pub(super) fn caption(&self) -> String {
        let keys = legend(self.pieces.iter().map(|piece| &**piece));
        format!("<b>{}</b>, medians in {}.{keys}", escape(&self.title), self.unit)
    }
}

fn piece(number: usize, [left, top, width]: [f64; 3], size: f64) -> String {
    let class = class(number);
    let mut svg = format!(
        "<rect class=\"piece {class}\" x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR}\"/>"
    );
    if width >= LABELLED {
        let (x, y) = (left + width / 2.0, top + BAR / 2.0 + 5.0);
        svg.push_str(&format!(
            "<text class=\"on\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
            figure(size)
        ));
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fill_their_bar() {
        let bars = Bars {
            title: "Phases".into(),
            unit: "ms",
            pieces: vec!["exec".into(), "KVM".into()],
            bars: vec![("one at a time".into(), vec![0.5, 1.5])],
        };
        let svg = bars.svg().unwrap();
        assert!(svg.contains("one at a time: 2.00 ms</text>"), "{svg}");
        assert!(svg.contains("c0\" x=\"0.0\" y=\"25\" width=\"120.0\""), "{svg}");
        assert!(svg.contains("c1\" x=\"120.0\" y=\"25\" width=\"360.0\""), "{svg}");
        assert!(bars.caption().contains("<li class=\"c1\">KVM</li>"));
        assert_eq!(Bars { bars: Vec::new(), ..bars }.svg(), None);
    }
}
