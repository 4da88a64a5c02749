//! Token buckets: so many bytes and so many operations in a time, and no more.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// A limit on one kind of thing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many may be taken in `refill_ms`, and at once after a pause of that length.
    pub size: u64,
    /// Milliseconds in which `size` is made up for.
    pub refill_ms: u64,
    /// How many more may be taken at the beginning, once.
    #[serde(default)]
    pub burst: u64,
}

/// The limits of one device or queue. None is no limit; nor is one whose size or time is 0.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimits {
    /// Bytes.
    pub bandwidth: Option<Limit>,
    /// Operations: requests, packets.
    pub operations: Option<Limit>,
}

/// Keeps count.
///
/// Something is allowed while both buckets hold anything, however large it is, and may leave a bucket in debt: so a request larger
/// than the bucket is possible, and over time the limit is met exactly.
#[derive(Debug)]
pub struct RateLimiter {
    bandwidth: Option<Bucket>,
    operations: Option<Bucket>,
}

/// What a snapshot holds of a [`RateLimiter`]: what is left in its buckets, in nanoseconds of their refill.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiterState {
    limits: RateLimits,
    bandwidth: i64,
    operations: i64,
    bandwidth_burst: u64,
    operations_burst: u64,
}

#[derive(Debug)]
struct Bucket {
    limit: Limit,
    /// What is left, as the time that it takes to refill it; negative is debt. Time keeps fractions of a token.
    left: i64,
    burst: u64,
    since: Instant,
}

impl RateLimiter {
    /// Full buckets.
    #[must_use]
    pub fn new(limits: RateLimits) -> Self {
        let now = Instant::now();
        let bucket = |limit| Bucket::new(limit, now);
        Self { bandwidth: limits.bandwidth.and_then(bucket), operations: limits.operations.and_then(bucket) }
    }

    /// Whether there is any limit.
    #[must_use]
    pub fn limits(&self) -> bool {
        self.bandwidth.is_some() || self.operations.is_some()
    }

    /// Whether something may be done now.
    ///
    /// # Errors
    /// If not: when to ask again.
    pub fn ready(&mut self, now: Instant) -> Result<(), Instant> {
        let buckets = [&mut self.bandwidth, &mut self.operations];
        match buckets.into_iter().flatten().filter_map(|bucket| bucket.wait(now)).max() {
            None => Ok(()),
            Some(wait) => Err(now.checked_add(wait).unwrap_or(now)),
        }
    }

    /// `operations` were done, of `bytes` in all.
    pub fn take(&mut self, operations: u64, bytes: u64, now: Instant) {
        if let Some(bucket) = &mut self.bandwidth {
            bucket.take(bytes, now);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.take(operations, now);
        }
    }

    /// What is left.
    #[must_use]
    pub fn save(&self) -> RateLimiterState {
        let left =
            |bucket: &Option<Bucket>| bucket.as_ref().map_or((0, 0), |bucket| (bucket.left, bucket.burst));
        let (bandwidth, bandwidth_burst) = left(&self.bandwidth);
        let (operations, operations_burst) = left(&self.operations);
        let limit = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| bucket.limit);
        let limits = RateLimits { bandwidth: limit(&self.bandwidth), operations: limit(&self.operations) };
        RateLimiterState { limits, bandwidth, operations, bandwidth_burst, operations_burst }
    }

    /// Goes on where it was saved; the time in between does not count. A state is never wrong: what does not fit a bucket is cut to it.
    #[must_use]
    pub fn restore(state: &RateLimiterState) -> Self {
        let mut limiter = Self::new(state.limits);
        if let Some(bucket) = &mut limiter.bandwidth {
            bucket.left = state.bandwidth.min(bucket.full());
            bucket.burst = state.bandwidth_burst.min(bucket.limit.burst);
        }
        if let Some(bucket) = &mut limiter.operations {
            bucket.left = state.operations.min(bucket.full());
            bucket.burst = state.operations_burst.min(bucket.limit.burst);
        }
        limiter
    }
}

impl Bucket {
    fn new(limit: Limit, now: Instant) -> Option<Self> {
        let bucket = Self { limit, left: 0, burst: limit.burst, since: now };
        let left = bucket.full();
        (limit.size > 0 && limit.refill_ms > 0).then_some(Self { left, ..bucket })
    }

    /// The time that it takes to fill the bucket.
    fn full(&self) -> i64 {
        i64::try_from(u128::from(self.limit.refill_ms) * 1_000_000).unwrap_or(i64::MAX)
    }

    /// How long until there is something in it.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        // One nanosecond more than the debt: then it is not merely paid.
        (self.burst == 0 && self.left <= 0)
            .then(|| Duration::from_nanos(self.left.unsigned_abs().saturating_add(1)))
    }

    fn take(&mut self, count: u64, now: Instant) {
        self.refill(now);
        let from_burst = count.min(self.burst);
        self.burst -= from_burst;
        let count = u128::from(count - from_burst);
        let cost = (count * u128::from(self.limit.refill_ms)).saturating_mul(1_000_000)
            / u128::from(self.limit.size);
        self.left = self.left.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_nanos();
        self.since = self.since.max(now);
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        self.left = self.left.saturating_add(passed).min(self.full());
    }
}
