//! Lines in a frame, as SVG. Colours come from the page's style sheet, by number.

use super::html::escape;
use super::text::figure;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Room for the labels of the axes.
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 40.0;
const MARGIN: f64 = 12.0;
/// How many colours there are.
const COLOURS: usize = 8;

/// What is drawn.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// What runs along the axes.
    pub(super) axes: [&'a str; 2],
    /// Whether equal ratios of x are equally far apart. Every x must be above 0 then.
    pub(super) logarithmic: bool,
    pub(super) lines: Vec<(&'a str, Vec<(f64, f64)>)>,
}

impl Chart<'_> {
    /// The chart, with its legend; nothing without two points.
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let Some([left, right]) = range(points().map(|point| self.place(point.0))) else {
            return String::new();
        };
        let Some([_, top]) = range(points().map(|point| point.1)) else { return String::new() };
        let x = |value: f64| LEFT + (self.place(value) - left) / (right - left) * (WIDTH - LEFT - MARGIN);
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - MARGIN);
        let title = escape(self.title);
        let mut svg =
            format!("<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        for step in 0..=4 {
            let share = f64::from(step) / 4.0;
            let at = self.back(left + (right - left) * share);
            let (vertical, horizontal) = (x(at), y(top * share));
            let (bottom, end) = (HEIGHT - BOTTOM, WIDTH - MARGIN);
            svg.push_str(&format!(
                "<path class=\"grid\" d=\"M{vertical:.1} {MARGIN}V{bottom}M{LEFT} {horizontal:.1}H{end}\"/>\
                 <text x=\"{vertical:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                bottom + 14.0,
                figure(at),
                LEFT - 6.0,
                horizontal + 4.0,
                figure(top * share)
            ));
        }
        for (number, (_, points)) in self.lines.iter().enumerate() {
            let corners: Vec<_> =
                points.iter().map(|&(at, value)| format!("{:.1} {:.1}", x(at), y(value))).collect();
            let colour = number % COLOURS;
            let dashed = if number >= COLOURS { " dashed" } else { "" };
            svg.push_str(&format!("<path class=\"line c{colour}{dashed}\" d=\"M{}\"/>", corners.join("L")));
        }
        let [along, up] = self.axes.map(escape);
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{along}</text></svg><figcaption>{title}: {up} against {along}. ",
            (LEFT + WIDTH) / 2.0,
            HEIGHT - 6.0
        ));
        for (number, (name, _)) in self.lines.iter().enumerate() {
            svg.push_str(&format!("<span class=\"key c{}\">{}</span> ", number % COLOURS, escape(name)));
        }
        svg + "</figcaption></figure>\n"
    }

    fn place(&self, x: f64) -> f64 {
        if self.logarithmic { x.ln() } else { x }
    }

    fn back(&self, place: f64) -> f64 {
        if self.logarithmic { place.exp() } else { place }
    }
}

/// The least and the greatest of finite numbers, if they differ.
fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (least, greatest) = (least.min(value), greatest.max(value));
    }
    (least < greatest && least.is_finite() && greatest.is_finite()).then_some([least, greatest])
}
