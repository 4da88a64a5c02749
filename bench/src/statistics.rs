//! A few figures about many, and how far to trust a ratio.

use std::fmt;

use fastrand::Rng;
use serde::Serialize;

/// How many times a ratio is computed anew for its confidence interval.
const RESAMPLES: usize = 2000;
/// How many interquartile ranges from the nearer quartile on a sample is an outlier (J. Tukey's fences).
const FENCE: f64 = 1.5;
/// How many orders a permutation test tries: p is no less than the inverse.
const PERMUTATIONS: usize = 5_000;

/// What a set of samples comes to, in their unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many there are.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// How many lie outside Tukey's fences. They are in all the other figures.
    pub outliers: usize,
}

impl Summary {
    /// Summarises `samples`; `None` if there are none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let min = *sorted.first()?;
        let (lower, upper) = (percentile(&sorted, 0.25), percentile(&sorted, 0.75));
        let fence = FENCE * (upper - lower);
        Some(Self {
            n: sorted.len(),
            min,
            p50: percentile(&sorted, 0.50),
            p99: percentile(&sorted, 0.99),
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            outliers: sorted.iter().filter(|&&it| it < lower - fence || it > upper + fence).count(),
        })
    }
}

/// The samples of those rounds of an interleaved run in which both succeeded.
pub(crate) fn pairs(above: &[Option<f64>], below: &[Option<f64>]) -> Vec<(f64, f64)> {
    above.iter().zip(below).filter_map(|(above, below)| above.zip(*below)).collect()
}

/// A ratio of two medians with the interval that holds the true one in 95 of 100 such runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The ratio in this run.
    pub ratio: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl Ratio {
    /// The median of the pairs' first numbers by the median of their second ones; `None` without pairs.
    ///
    /// A pair holds what two subjects took in one round of an interleaved run. The interval is a percentile bootstrap over
    /// rounds, not over samples: what else the machine did in a round hit both.
    #[must_use]
    pub fn of_medians(pairs: &[(f64, f64)], random: &mut Rng) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let ratio = median_ratio(pairs);
        let mut resample = || {
            let drawn: Vec<_> = pairs.iter().map(|_| pairs[random.usize(..pairs.len())]).collect();
            median_ratio(&drawn)
        };
        let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| resample()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        Some(Self { ratio, low: percentile(&ratios, 0.025), high: percentile(&ratios, 0.975) })
    }
}

/// How often chance alone makes the first median of the pairs larger than the second by as much as it is (p, one-sided).
///
/// If the two subjects of a pair are alike, it might as well have been the other way round: so each pair is turned round, or
/// not, at random, many times. Pairs are rounds of an interleaved run, as in [`Ratio::of_medians`].
#[must_use]
pub fn permutation(pairs: &[(f64, f64)], random: &mut Rng) -> f64 {
    if pairs.is_empty() {
        return 1.0;
    }
    let mut turned = pairs.to_vec();
    let seen = median_difference(pairs);
    let mut extreme = 1;
    for _ in 0..PERMUTATIONS {
        for (turned, &(first, second)) in turned.iter_mut().zip(pairs) {
            *turned = if random.bool() { (first, second) } else { (second, first) };
        }
        extreme += usize::from(median_difference(&turned) >= seen);
    }
    extreme as f64 / (PERMUTATIONS + 1) as f64
}

/// The slope of a straight line through points, with the interval that holds the true one in 95 of 100 cases, as far as
/// the points lie about the line independently of each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slope {
    /// How much y grows for each x.
    pub slope: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl fmt::Display for Slope {
    /// In whole units.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slope, low, high } = self;
        write!(formatter, "{slope:.0} ({low:.0}..{high:.0})")
    }
}

impl Slope {
    /// What one more takes, where so much was `available` after each.
    #[must_use]
    pub fn of_available(available: &[u64]) -> Option<Self> {
        let points = available.iter().enumerate().map(|(n, &left)| (n as f64, -(left as f64)));
        Self::of(&points.collect::<Vec<_>>())
    }

    /// The line of least squares; `None` with fewer than three points, or without two different x.
    #[must_use]
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        let mean = |side: fn(&(f64, f64)) -> f64| points.iter().map(side).sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if points.len() < 3 || spread == 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let off = |(x, y): &(f64, f64)| (y - mean_y - slope * (x - mean_x)).powi(2);
        let error = (points.iter().map(off).sum::<f64>() / (n - 2.0) / spread).sqrt();
        let margin = student(n - 2.0) * error;
        Some(Self { slope, low: slope - margin, high: slope + margin })
    }
}

/// The 97.5th percentile of Student's distribution with so many degrees of freedom: the normal one's, and the first two terms
/// of its expansion (Abramowitz and Stegun, 26.7.5).
fn student(degrees: f64) -> f64 {
    const Z: f64 = 1.959_963_985;
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    Z + first / degrees + second / degrees.powi(2)
}

/// What an A/A comparison says: how two series of the same subject in one run differ, by the `pairs` of their rounds.
/// A difference of two subjects that is not clearly larger is none.
#[must_use]
pub fn noise(name: &str, pairs: &[(f64, f64)], random: &mut Rng) -> String {
    let n = pairs.len();
    let Some(Ratio { ratio, low, high }) = Ratio::of_medians(pairs, random) else {
        return format!("noise: unknown: {name} did not run twice");
    };
    let [differ, low, high] = [ratio, low, high].map(|ratio| (ratio - 1.0) * 100.0);
    format!(
        "noise: {name} twice in this run, {n} rounds: medians differ by {differ:.1} % ({low:.1}..{high:.1})"
    )
}

fn median_ratio(pairs: &[(f64, f64)]) -> f64 {
    let (first, second) = medians(pairs);
    first / second
}

fn median_difference(pairs: &[(f64, f64)]) -> f64 {
    let (first, second) = medians(pairs);
    first - second
}

fn medians(pairs: &[(f64, f64)]) -> (f64, f64) {
    let median = |side: fn(&(f64, f64)) -> f64| {
        let mut sorted: Vec<f64> = pairs.iter().map(side).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        percentile(&sorted, 0.5)
    };
    (median(|pair| pair.0), median(|pair| pair.1))
}

/// The value below which `share` (0 to 1) of `sorted` lies, interpolated between the two nearest. There must be one.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    #[test]
    fn outliers_are_counted_and_kept() {
        let summary = Summary::of(&[1.0, 2.0, 3.0, 4.0, 100.0]).unwrap();
        assert_eq!((summary.n, summary.outliers, summary.mean), (5, 1, 22.0));
        assert_eq!(Summary::of(&[-100.0, 2.0, 2.0, 2.0, 2.0]).map(|it| it.outliers), Some(1));
    }

    #[test]
    fn a_summary_of_a_hundred_and_one() {
        let samples: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let summary = Summary::of(&samples).unwrap();
        assert_eq!(summary, Summary { n: 101, min: 0.0, p50: 50.0, p99: 99.0, mean: 50.0, outliers: 0 });
    }

    #[test]
    fn summaries_of_few() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(
            Summary::of(&[7.0]),
            Some(Summary { n: 1, min: 7.0, p50: 7.0, p99: 7.0, mean: 7.0, outliers: 0 })
        );
        let two = Summary::of(&[1.0, 3.0]).unwrap();
        assert_eq!((two.p50, two.mean), (2.0, 2.0));
        assert!((two.p99 - 2.98).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_without_spread_is_certain() {
        let ratio = Ratio::of_medians(&[(3.0, 2.0); 10], &mut Rng::with_seed(1)).unwrap();
        assert_eq!(ratio, Ratio { ratio: 1.5, low: 1.5, high: 1.5 });
        assert_eq!(Ratio::of_medians(&[], &mut Rng::with_seed(1)), None);
    }

    /// Noise that hits both subjects of a round cancels out of neither median, but widens the interval little.
    #[test]
    fn an_interval_holds_the_truth() {
        let mut random = Rng::with_seed(7);
        let pairs: Vec<_> = (0..200)
            .map(|_| {
                let (mut noise, load) = (|| 1.0 + random.f64() * 0.2, 5.0);
                (1.2 * load * noise(), load * noise())
            })
            .collect();
        let ratio = Ratio::of_medians(&pairs, &mut Rng::with_seed(1)).unwrap();
        assert!(ratio.low < 1.2 && 1.2 < ratio.high, "{ratio:?}");
        assert!(ratio.high - ratio.low < 0.1, "{ratio:?}");
    }

    #[test]
    fn a_slope_is_found_and_its_interval_holds_it() {
        let line: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 - 2.0 * f64::from(x))).collect();
        let Slope { slope, low, high } = Slope::of(&line).unwrap();
        assert!((slope + 2.0).abs() < 1e-9 && high - low < 1e-6, "{slope} {low} {high}");
        let mut random = Rng::with_seed(5);
        let noisy: Vec<_> =
            (0..200).map(|x| (f64::from(x), 860.0 * f64::from(x) + 5000.0 * random.f64())).collect();
        let Slope { slope, low, high } = Slope::of(&noisy).unwrap();
        assert!(low < 860.0 && 860.0 < high && high - low < 20.0, "{slope} {low} {high}");
        assert_eq!(Slope::of(&line[..2]), None);
        let price = Slope::of_available(&[1000, 900, 800, 700]).map(|slope| slope.to_string());
        assert_eq!(price.as_deref(), Some("100 (100..100)"));
        assert_eq!(Slope::of(&[(1.0, 1.0); 5]), None);
    }

    /// Against a table: two-sided 95 %, 8 and 30 degrees of freedom.
    #[test]
    fn students_distribution_is_close() {
        assert!((student(8.0) - 2.306).abs() < 0.01);
        assert!((student(30.0) - 2.042).abs() < 0.001);
    }

    #[test]
    fn a_permutation_test_tells_a_shift_from_chance() {
        let mut random = Rng::with_seed(9);
        let mut p = |shift: f64| {
            let pairs: Vec<_> = (0..40).map(|_| (random.f64() + shift, random.f64())).collect();
            permutation(&pairs, &mut Rng::with_seed(1))
        };
        assert!(p(0.5) < 0.001 && p(-0.5) > 0.999);
        // Alike: p is anything, and seldom small.
        let small = (0..25).filter(|_| p(0.0) < 0.05).count();
        assert!(small < 6, "{small} of 25");
        assert!((permutation(&[], &mut Rng::with_seed(1)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn noise_is_told_in_per_cent() {
        let told = |pairs: &[(f64, f64)]| noise("mote", pairs, &mut Rng::with_seed(1));
        let expected = "noise: mote twice in this run, 3 rounds: medians differ by -2.0 % (-2.0..-2.0)";
        assert_eq!(told(&[(0.98, 1.0); 3]), expected);
        assert_eq!(told(&[]), "noise: unknown: mote did not run twice");
    }

    #[test]
    fn a_seed_repeats_an_interval() {
        let pairs: Vec<_> = (1..50).map(|n| (f64::from(n), f64::from(n * n))).collect();
        let interval = || Ratio::of_medians(&pairs, &mut Rng::with_seed(3));
        assert_eq!(interval(), interval());
    }

    proptest! {
        #[test]
        fn a_summary_is_ordered(samples in proptest::collection::vec(0.0..1e9, 1..300)) {
            let summary = Summary::of(&samples).unwrap();
            let largest = samples.iter().copied().fold(0.0, f64::max);
            prop_assert!(summary.min <= summary.p50 && summary.p50 <= summary.p99 && summary.p99 <= largest);
            prop_assert!(summary.min <= summary.mean * (1.0 + 1e-9) && summary.mean <= largest * (1.0 + 1e-9));
        }

        #[test]
        fn a_ratio_lies_in_its_interval(pairs in proptest::collection::vec((1.0..1e6, 1.0..1e6), 1..20)) {
            let ratio = Ratio::of_medians(&pairs, &mut Rng::with_seed(1)).unwrap();
            prop_assert!(ratio.low <= ratio.high && ratio.low.is_finite() && ratio.high.is_finite());
        }
    }
}
