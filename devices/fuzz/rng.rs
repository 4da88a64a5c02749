//! The entropy device and an arbitrary driver.

use devices::rate_limiter::{Limit, RateLimits};
use devices::virtio::rng::Rng;

use super::driver;

/// Runs one input.
pub(crate) fn check(data: &[u8]) {
    let limit = Limit { size: 1000, refill_ms: 1, burst: 0 };
    driver::check(data, Box::new(Rng::new(RateLimits { bandwidth: Some(limit), operations: None })));
}
