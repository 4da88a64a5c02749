//! Durations in TSC cycles, sorted to find the quantiles.

/// How many are kept.
pub(super) const LIMIT: usize = 1 << 16;

/// Shell sort: core's own sorts would be half of this program.
pub(super) fn sort(samples: &mut [u64]) {
    let mut gap = samples.len() / 2;
    while gap > 0 {
        for end in gap..samples.len() {
            let mut at = end;
            while at >= gap && samples[at - gap] > samples[at] {
                samples.swap(at - gap, at);
                at -= gap;
            }
        }
        gap /= 2;
    }
}

/// The value below which `percent` of 100 sorted samples lie. 0 where there is none.
pub(super) fn quantile(sorted: &[u64], percent: usize) -> u64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}
