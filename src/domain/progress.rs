//! A campaign's progress: every contact under exactly one heading (promise P4).

use std::collections::BTreeMap;

use super::call::Standing;
use super::outcome::{Outcome, SkipReason};

/// How many contacts stand where. `total` is always the sum of the rest: `pending` is what no call speaks for yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Contacts in the list.
    pub total: i64,
    /// Not dialed yet.
    pub pending: i64,
    /// To be dialed (again) later.
    pub waiting_retry: i64,
    /// Live calls.
    pub in_flight: i64,
    /// Over, by outcome.
    pub finals: BTreeMap<&'static str, i64>,
    /// Never to be dialed, by reason.
    pub skipped: BTreeMap<&'static str, i64>,
    /// The carrier could not tell.
    pub uncertain: i64,
}

impl Progress {
    /// Counts `standings` of the contacts that have a call against the list's `total`.
    #[must_use]
    pub fn count(total: i64, standings: impl IntoIterator<Item = (Standing, i64)>) -> Self {
        let mut progress = Self {
            total,
            ..Self::default()
        };
        let mut spoken_for = 0;
        for (standing, count) in standings {
            spoken_for += count;
            match standing {
                Standing::WaitingRetry => progress.waiting_retry += count,
                Standing::InFlight => progress.in_flight += count,
                Standing::Final(outcome) => {
                    *progress.finals.entry(outcome.as_str()).or_default() += count
                }
                Standing::Skipped(reason) => {
                    *progress.skipped.entry(reason.as_str()).or_default() += count
                }
                Standing::Uncertain => progress.uncertain += count,
            }
        }
        progress.pending = total - spoken_for;
        progress
    }

    /// Contacts with a final disposition.
    #[must_use]
    pub fn settled(&self) -> i64 {
        self.finals.values().sum::<i64>() + self.skipped.values().sum::<i64>() + self.uncertain
    }

    /// Settled contacts in percent of the total, 0 to 100, with one decimal; an empty campaign is 100 % done.
    #[must_use]
    pub fn percent(&self) -> f64 {
        if self.total == 0 {
            return 100.0;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of contacts are far below 2^52"
        )]
        let share = self.settled() as f64 / self.total as f64;
        (share * 1000.0).floor() / 10.0
    }

    /// Every heading of outcomes, so that an answer always lists them all.
    #[must_use]
    pub fn finals_complete(&self) -> BTreeMap<&'static str, i64> {
        Outcome::ALL
            .into_iter()
            .filter(|outcome| *outcome != Outcome::Uncertain)
            .map(|outcome| {
                (
                    outcome.as_str(),
                    self.finals.get(outcome.as_str()).copied().unwrap_or(0),
                )
            })
            .collect()
    }

    /// Every heading of reasons, likewise.
    #[must_use]
    pub fn skipped_complete(&self) -> BTreeMap<&'static str, i64> {
        SkipReason::ALL
            .into_iter()
            .map(|reason| {
                (
                    reason.as_str(),
                    self.skipped.get(reason.as_str()).copied().unwrap_or(0),
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn standings() -> impl Strategy<Value = Vec<(Standing, i64)>> {
        let standing = prop_oneof![
            Just(Standing::WaitingRetry),
            Just(Standing::InFlight),
            Just(Standing::Uncertain),
            proptest::sample::select(Outcome::ALL.to_vec()).prop_map(Standing::Final),
            proptest::sample::select(SkipReason::ALL.to_vec()).prop_map(Standing::Skipped),
        ];
        proptest::collection::vec((standing, 0i64..50), 0..40)
    }

    proptest! {
        #[test]
        fn the_headings_add_up(standings in standings(), pending in 0i64..100) {
            let total = pending + standings.iter().map(|(_, count)| count).sum::<i64>();
            let progress = Progress::count(total, standings);
            prop_assert_eq!(progress.pending, pending);
            prop_assert_eq!(progress.total, progress.pending + progress.waiting_retry + progress.in_flight + progress.settled());
            prop_assert!((0.0..=100.0).contains(&progress.percent()));
        }

        #[test]
        fn a_standing_survives_storage(standings in standings()) {
            for (standing, _) in standings {
                prop_assert_eq!(Standing::from_stored(&standing.to_stored()), Some(standing));
            }
        }
    }
}
