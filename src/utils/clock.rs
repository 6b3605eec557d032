//! The only reader of the wall clock. Every container follows the database's clock, so that one whose own clock is an
//! hour off still agrees with the others about deadlines, windows and leases.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Readings of the database's time that took longer are worthless.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(2);

/// The time of the database, carried forward on the monotonic clock between two [`Clock::sync`]s.
///
/// Cheap to clone; all clones share one reading.
#[derive(Debug, Clone)]
pub struct Clock {
    anchor: Arc<RwLock<Anchor>>,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: Instant,
    time: DateTime<Utc>,
}

impl Clock {
    /// A clock that starts from this machine's own time, until the first [`Clock::sync`].
    #[must_use]
    pub fn system() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the machine's clock"
        )]
        let time = Utc::now();
        Self {
            anchor: Arc::new(RwLock::new(Anchor {
                at: Instant::now(),
                time,
            })),
        }
    }

    /// Now, in UTC, in whole milliseconds: MongoDB keeps no finer time, and a value must equal its stored self.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let anchor = *self
            .anchor
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        (anchor.time + anchor.at.elapsed()).trunc_subsecs(3)
    }

    /// Takes over the database's time, asked for at `asked` and answered just now; half of the trip is taken as the answer's age.
    /// False, and ignored, when the trip took too long: the process may have been frozen meanwhile.
    pub fn sync(&self, database_time: DateTime<Utc>, asked: Instant) -> bool {
        let answered = Instant::now();
        let round_trip = answered.saturating_duration_since(asked);
        if round_trip > LONGEST_ROUND_TRIP {
            return false;
        }
        let anchor = Anchor {
            at: answered,
            time: database_time + round_trip / 2,
        };
        *self
            .anchor
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = anchor;
        true
    }
}

/// A span of the standard library as one of chrono's.
#[must_use]
pub fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_database_and_keeps_whole_milliseconds() {
        let clock = Clock::system();
        let hour_ahead = clock.now() + chrono::TimeDelta::hours(1);
        assert!(clock.sync(hour_ahead, Instant::now()));
        assert!(clock.now() >= hour_ahead);
        assert!(clock.now() < hour_ahead + chrono::TimeDelta::minutes(1));
        assert_eq!(clock.now().timestamp_subsec_micros() % 1000, 0);
        let frozen = Instant::now() - LONGEST_ROUND_TRIP - Duration::from_millis(1);
        assert!(!clock.sync(hour_ahead + chrono::TimeDelta::hours(9), frozen));
        assert!(clock.now() < hour_ahead + chrono::TimeDelta::minutes(1));
    }
}
