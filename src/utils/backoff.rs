//! Waiting times with jitter, so that many containers do not knock at the same instant.

use std::time::Duration;

use rand::RngExt;

/// `base` doubled `attempt` times (0 = `base`), at most `cap`, of which the last half is random.
#[must_use]
pub fn exponential(base: Duration, attempt: u32, cap: Duration) -> Duration {
    let full = base
        .saturating_mul(2u32.saturating_pow(attempt.min(20)))
        .min(cap);
    full / 2 + (full / 2).mul_f64(rand::rng().random::<f64>())
}

/// `duration`, a fifth shorter or longer at random.
#[must_use]
pub fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(0.8 + 0.4 * rand::rng().random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_stays_under_the_cap() {
        let base = Duration::from_millis(100);
        for attempt in 0..40 {
            let wait = exponential(base, attempt, Duration::from_secs(5));
            assert!(wait >= base / 2 && wait <= Duration::from_secs(5));
        }
        assert!(
            jitter(base) >= Duration::from_millis(79) && jitter(base) <= Duration::from_millis(121)
        );
    }
}
