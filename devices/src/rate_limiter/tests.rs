use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limiter(size: u64, refill_ms: u64, burst: u64) -> (RateLimiter, Instant) {
    let limit = Limit { size, refill_ms, burst };
    let limiter = RateLimiter::new(RateLimits { bandwidth: Some(limit), operations: None });
    (limiter, Instant::now())
}

#[test]
fn no_limit_allows_everything() {
    let mut limiter = RateLimiter::new(RateLimits::default());
    assert!(!limiter.limits());
    limiter.take(u64::MAX, u64::MAX, Instant::now());
    assert_eq!(limiter.ready(Instant::now()), Ok(()));
    let none = Limit { size: 0, refill_ms: 100, burst: 5 };
    assert!(!RateLimiter::new(RateLimits { bandwidth: Some(none), operations: Some(none) }).limits());
}

#[test]
fn debt_is_paid_at_the_agreed_rate() {
    let (mut limiter, start) = limiter(1000, 1000, 0);
    limiter.take(1, 3000, start);
    let ready_at = limiter.ready(start).unwrap_err();
    assert!(ready_at > start + 2 * SECOND && ready_at <= start + 2 * SECOND + Duration::from_millis(1));
    assert_eq!(limiter.ready(ready_at), Ok(()));
}

#[test]
fn a_burst_comes_once() {
    let (mut limiter, start) = limiter(10, 1000, 90);
    limiter.take(1, 99, start);
    assert_eq!(limiter.ready(start), Ok(()), "one is left in the bucket");
    limiter.take(1, 1, start);
    assert!(limiter.ready(start).is_err());
    let later = start + 3600 * SECOND;
    limiter.take(1, 10, later);
    assert!(limiter.ready(later).is_err(), "an hour fills the bucket, not the burst");
}

#[test]
fn both_buckets_must_allow_it() {
    let limit = |size| Some(Limit { size, refill_ms: 1000, burst: 0 });
    let mut limiter = RateLimiter::new(RateLimits { bandwidth: limit(1_000_000), operations: limit(1) });
    let start = Instant::now();
    limiter.take(1, 1, start);
    assert!(limiter.ready(start).is_err());
}

#[test]
fn state_round_trip() {
    let (mut limiter, start) = limiter(100, 1000, 7);
    limiter.take(1, 250, start);
    let state = limiter.save();
    let text = serde_json::to_string(&state).unwrap();
    let restored = RateLimiter::restore(&serde_json::from_str(&text).unwrap());
    assert_eq!(restored.save(), state);
}

proptest! {
    #[test]
    fn over_time_no_more_than_the_limit_is_let_through(
        size in 1u64..1_000_000,
        refill_ms in 1u64..10_000,
        requests in proptest::collection::vec((1u64..100_000, 0u64..5_000), 1..50),
    ) {
        let (mut limiter, start) = limiter(size, refill_ms, 0);
        let (mut now, mut total, mut last) = (start, 0u64, 0);
        for (bytes, pause) in requests {
            now += Duration::from_micros(pause);
            if let Err(ready_at) = limiter.ready(now) {
                prop_assert!(ready_at > now);
                now = ready_at;
                prop_assert_eq!(limiter.ready(now), Ok(()));
            }
            limiter.take(1, bytes, now);
            total += bytes;
            last = bytes;
        }
        // All but the last request, which may leave debt, fit what was in the bucket and what came since; rounding is one unit a request.
        let refilled = (now - start).as_secs_f64() * 1e3 / refill_ms as f64 * size as f64;
        prop_assert!((total - last) as f64 <= size as f64 + refilled + 50.0);
    }

    #[test]
    fn nothing_overflows(
        size in any::<u64>(), refill_ms in any::<u64>(), burst in any::<u64>(), bytes in any::<u64>(),
    ) {
        let (mut limiter, start) = limiter(size, refill_ms, burst);
        limiter.take(u64::MAX, bytes, start);
        let _ = limiter.ready(start + SECOND);
        let _ = RateLimiter::restore(&limiter.save());
    }
}
