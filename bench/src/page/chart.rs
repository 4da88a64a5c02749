//! Lines in a frame, as SVG. Colours come from the page's style sheet, by number.

use super::html::escape;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 320.0;
/// Room for the labels of the axes.
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 50.0;
const MARGIN: f64 = 22.0;
/// How many colours there are.
pub(super) const COLOURS: usize = 8;
/// Marks on an axis, more or less; where there are fewer values than that, each has its own.
const MARKS: f64 = 5.0;

/// Places along and up, in the order in which they are joined.
pub(super) type Curve = Vec<(f64, f64)>;

/// What is drawn.
pub(super) struct Chart<'a> {
    pub(super) title: String,
    /// What runs along the axes.
    pub(super) axes: [&'a str; 2],
    /// Whether equal ratios of x are equally far apart. Every x must be above 0 then.
    pub(super) logarithmic: bool,
    /// What stands below the marks 0, 1, 2, .. of x instead of these numbers, if anything does.
    pub(super) names: Vec<String>,
    pub(super) lines: Vec<(String, Curve)>,
}

impl Chart<'_> {
    /// The chart without its legend; nothing without two different points.
    pub(super) fn svg(&self) -> Option<String> {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let [left, right] = range(points().map(|point| self.place(point.0)))?;
        let [_, highest] = range(points().map(|point| point.1).chain([0.0]))?;
        let heights = marks(0.0, highest, true);
        let top = heights.last().copied()?;
        let x = |value: f64| LEFT + (self.place(value) - left) / (right - left) * (WIDTH - LEFT - MARGIN);
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - MARGIN);
        let title = escape(&self.title);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        let (bottom, end) = (HEIGHT - BOTTOM, WIDTH - MARGIN);
        for at in self.along(left, right) {
            let label = if self.names.is_empty() { mark(at) } else { self.name(at) };
            svg.push_str(&format!(
                "<path class=\"grid\" d=\"M{0:.1} {MARGIN}V{bottom}\"/>\
                 <text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"middle\">{2}</text>",
                x(at),
                bottom + 18.0,
                escape(&label)
            ));
        }
        for at in heights {
            svg.push_str(&format!(
                "<path class=\"grid\" d=\"M{LEFT} {0:.1}H{end}\"/>\
                 <text x=\"{1:.1}\" y=\"{2:.1}\" text-anchor=\"end\">{3}</text>",
                y(at),
                LEFT - 6.0,
                y(at) + 4.0,
                mark(at)
            ));
        }
        for (number, (_, points)) in self.lines.iter().enumerate() {
            let corners: Vec<_> =
                points.iter().map(|&(at, value)| format!("{:.1} {:.1}", x(at), y(value))).collect();
            let class = class(number);
            svg.push_str(&format!("<path class=\"line {class}\" d=\"M{}\"/>", corners.join("L")));
            // Of few points each is a finding of its own.
            if points.len() <= 12 {
                let dot = |&(at, value): &(f64, f64)| {
                    format!(
                        "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                        x(at),
                        y(value)
                    )
                };
                svg.extend(points.iter().map(dot));
            }
        }
        let along = escape(self.axes[0]);
        let middle = (LEFT + WIDTH) / 2.0;
        let below = HEIGHT - 8.0;
        svg.push_str(&format!(
            "<text x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{along}</text></svg>"
        ));
        Some(svg)
    }

    /// What it shows, and whose line has which colour.
    pub(super) fn caption(&self) -> String {
        let [along, up] = self.axes.map(escape);
        let keys = legend(self.lines.iter().map(|(name, _)| &**name));
        format!("<b>{}</b>: {up}, against {along}.{keys}", escape(&self.title))
    }

    /// The marks of x.
    fn along(&self, left: f64, right: f64) -> Vec<f64> {
        let values = self.values();
        if values.len() as f64 <= MARKS {
            return values;
        }
        if !self.logarithmic {
            return marks(left, right, false);
        }
        let (least, greatest) = (left.exp(), right.exp());
        let decades = || least.log10().floor() as i32..=greatest.log10().ceil() as i32;
        let within = |steps: &[f64]| {
            let all = decades().flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
            all.filter(|at| (least..=greatest).contains(at)).collect::<Vec<_>>()
        };
        // On a phone more would touch.
        let few = |marks: &Vec<f64>| marks.len() as f64 <= MARKS + 1.0;
        let steps: [&[f64]; 2] = [&[1.0, 2.0, 5.0], &[1.0, 3.0]];
        steps.into_iter().map(within).find(few).unwrap_or_else(|| within(&[1.0]))
    }

    /// All that is drawn at, once each.
    fn values(&self) -> Vec<f64> {
        let mut values: Vec<f64> =
            self.lines.iter().flat_map(|(_, points)| points).map(|point| point.0).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.dedup();
        values
    }

    fn name(&self, at: f64) -> String {
        if at.fract() == 0.0 {
            self.names.get(at as usize).cloned().unwrap_or_default()
        } else {
            String::new()
        }
    }

    fn place(&self, x: f64) -> f64 {
        if self.logarithmic { x.ln() } else { x }
    }
}

/// Names in their colours.
pub(super) fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let key = |(number, name)| format!("<li class=\"{}\">{}</li>", class(number), escape(name));
    format!("<ul class=\"keys\">{}</ul>", names.enumerate().map(key).collect::<String>())
}

/// A colour, and if they have all been used, a way to draw.
pub(super) fn class(number: usize) -> String {
    format!("c{}{}", number % COLOURS, if number >= COLOURS { " dashed" } else { "" })
}

/// A round number, with no more digits than it has.
fn mark(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

/// Round numbers between two; with `beyond`, up to the first that is not below the greater.
fn marks(least: f64, greatest: f64, beyond: bool) -> Vec<f64> {
    let rough = (greatest - least) / MARKS;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((least / step).ceil() as i64, greatest / step);
    let last = if beyond { last.ceil() } else { last.floor() } as i64;
    (first..=last).map(|number| number as f64 * step).collect()
}

/// The least and the greatest of finite numbers, if they differ.
fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (least, greatest) = (least.min(value), greatest.max(value));
    }
    (least < greatest && least.is_finite() && greatest.is_finite()).then_some([least, greatest])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(logarithmic: bool, points: &[(f64, f64)]) -> Chart<'static> {
        let lines = vec![("mote".to_owned(), points.to_vec())];
        Chart { title: "Time".into(), axes: ["ms", "share"], logarithmic, names: Vec::new(), lines }
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(marks(0.0, 1.0, true), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(marks(0.0, 1030.0, true), [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!(marks(3.0, 17.0, false), [5.0, 10.0, 15.0]);
        let [few, many] = [4_u8, 30]
            .map(|count| chart(true, &[1, 2, 4, 8, 9, 10].map(|at| (f64::from(at.min(count)), 0.0))));
        assert_eq!(many.along(1.5_f64.ln(), 25_f64.ln()), [2.0, 5.0, 10.0, 20.0]);
        assert_eq!(few.along(0.0, 1.0), [1.0, 2.0, 4.0]);
        assert_eq!(many.along(15_f64.ln(), 5000_f64.ln()), [30.0, 100.0, 300.0, 1000.0, 3000.0]);
        assert_eq!(many.along(0.5_f64.ln(), 2e4_f64.ln()), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!([0.2 + 0.1, 1500.0].map(mark), ["0.3", "1500"]);
    }

    #[test]
    fn a_line_stays_within_its_frame() {
        let svg = chart(true, &[(1.0, 0.5), (100.0, 1.0)]).svg().unwrap();
        assert!(svg.contains("class=\"line c0\" d=\"M52.0 146.0L458.0 22.0\""), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn one_point_is_no_line() {
        assert_eq!(chart(false, &[(1.0, 1.0)]).svg(), None);
        assert_eq!(chart(false, &[(1.0, f64::NAN), (2.0, f64::INFINITY)]).svg(), None);
    }

    #[test]
    fn marks_may_have_names() {
        let mut chart = chart(false, &[(0.0, 1.0), (1.0, 2.0)]);
        chart.names = vec!["4b17".into(), "<e1>".into()];
        let svg = chart.svg().unwrap();
        assert!(svg.contains(">4b17</text>") && svg.contains(">&lt;e1&gt;</text>"), "{svg}");
    }

    #[test]
    fn more_lines_than_colours_are_told_apart() {
        assert_eq!([class(1), class(9)], ["c1", "c1 dashed"]);
        assert!(legend(["a<b"].into_iter()).contains("<li class=\"c0\">a&lt;b</li>"));
    }
}
