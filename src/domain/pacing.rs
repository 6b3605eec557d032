//! How fast calls start, and which numbered slots a client may take: the arithmetic, without a clock or a database.
//!
//! **Rates** are GCRA, the generic cell rate algorithm, with no burst: one timestamp a scope, the moment at which the next
//! call may start. Calls of a scope are at least one [`interval_of`] apart, so no window of any position holds more calls
//! than the limit.
//!
//! **Slots** are numbers (promise P1): a live call holds one of the global numbers, and a unique index keeps two calls from
//! holding the same. Guarantees are ranges of those numbers that belong to one client: see [`GlobalRanges`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest time between two calls of a campaign: one hour, in milliseconds.
const MAX_INTERVAL_MS: u64 = 60 * 60 * 1_000;
/// Most calls a second that a campaign may ask for.
const MAX_CALLS_PER_SECOND: f64 = 1_000.0;
/// Fewest: one an hour.
const MIN_CALLS_PER_SECOND: f64 = 1.0 / 3_600.0;

/// A campaign's own pace. Both fields may be given; the slower one counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pacing {
    /// Milliseconds from one call's start to the next: 0 to one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Calls a second: one an hour (1/3600) to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_second: Option<f64>,
}

impl Pacing {
    /// Checks every rule.
    ///
    /// # Errors
    /// All faults at once, each as field path (relative to the pacing) and reason.
    pub fn validate(&self) -> Result<(), Vec<(String, String)>> {
        let mut faults = Vec::new();
        if self
            .interval_ms
            .is_some_and(|interval| interval > MAX_INTERVAL_MS)
        {
            faults.push((
                "intervalMs".to_owned(),
                format!("must be at most {MAX_INTERVAL_MS} (one hour)"),
            ));
        }
        if self.calls_per_second.is_some_and(|rate| !is_rate(rate)) {
            let reason = format!("must be between 1/3600 (one an hour) and {MAX_CALLS_PER_SECOND}");
            faults.push(("callsPerSecond".to_owned(), reason));
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        }
    }

    /// The time between two calls' starts; `default` where the campaign says nothing.
    pub fn interval(&self, default: Duration) -> Duration {
        let by_interval = self.interval_ms.map(Duration::from_millis);
        let by_rate = self
            .calls_per_second
            .filter(|&rate| is_rate(rate))
            .map(|rate| whole_milliseconds(Duration::from_secs_f64(1.0 / rate)));
        by_interval.max(by_rate).unwrap_or(default)
    }
}

fn is_rate(rate: f64) -> bool {
    (MIN_CALLS_PER_SECOND..=MAX_CALLS_PER_SECOND).contains(&rate)
}

/// The time between two calls' starts that keeps a scope at `calls` in every `window`, rounded up to whole milliseconds.
/// A limit of 0 is taken as 1: whoever wants no calls at all pauses the campaign.
pub fn interval_of(calls: u32, window: Duration) -> Duration {
    whole_milliseconds(window / calls.max(1))
}

/// Rounds up to whole milliseconds, the database clock's unit: rounding down would exceed the rate.
fn whole_milliseconds(duration: Duration) -> Duration {
    let beyond = duration.subsec_nanos() % 1_000_000;
    duration + Duration::from_nanos(u64::from((1_000_000 - beyond) % 1_000_000))
}

/// The numbers below `limit` that nobody holds, in ascending order.
pub fn free_numbers(limit: u32, used: &BTreeSet<u32>) -> Vec<u32> {
    (0..limit).filter(|number| !used.contains(number)).collect()
}

/// Who may take which of the global slots `0..global_max`.
///
/// Clients with a guarantee own ranges of their own, from the top downwards in the order of their keys; the rest, at the
/// bottom, is for everybody. Ranges never overlap, so guarantees can never add up to more than the global limit, whatever
/// was configured, and a client that needs nothing costs the others only what it was guaranteed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalRanges {
    /// What everybody may take.
    shared: Range<u32>,
    /// What one client may take.
    reserved: BTreeMap<String, Range<u32>>,
}

/// Divides the global slots. Guarantees that do not fit are cut: the last clients in the order of keys get less or nothing.
pub fn global_ranges(global_max: u32, guarantees: &BTreeMap<String, u32>) -> GlobalRanges {
    let mut top = global_max;
    let mut reserved = BTreeMap::new();
    for (client, &guarantee) in guarantees {
        let bottom = top.saturating_sub(guarantee);
        if bottom < top {
            reserved.insert(client.clone(), bottom..top);
        }
        top = bottom;
    }
    GlobalRanges {
        shared: 0..top,
        reserved,
    }
}

impl GlobalRanges {
    /// The client's own range, empty without a guarantee, and the shared one. Numbers of the own range are to be used first:
    /// nobody else can use them.
    pub fn candidates(&self, client: &str) -> (Range<u32>, Range<u32>) {
        let own = self.reserved.get(client).cloned().unwrap_or(0..0);
        (own, self.shared.clone())
    }
}

#[cfg(test)]
mod tests {

    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn paths(pacing: Pacing) -> Vec<String> {
        pacing
            .validate()
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|(path, _)| path)
            .collect()
    }

    #[test]
    fn the_slower_pace_counts() {
        let default = milliseconds(6_000);
        let pacing = |interval_ms, calls_per_second| Pacing {
            interval_ms,
            calls_per_second,
        };
        assert_eq!(pacing(None, None).interval(default), default);
        assert_eq!(pacing(Some(0), None).interval(default), Duration::ZERO);
        assert_eq!(
            pacing(Some(100), Some(2.0)).interval(default),
            milliseconds(500)
        );
        assert_eq!(
            pacing(Some(900), Some(2.0)).interval(default),
            milliseconds(900)
        );
        assert_eq!(pacing(None, Some(3.0)).interval(default), milliseconds(334));
        assert_eq!(pacing(None, Some(f64::NAN)).interval(default), default);
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(
            paths(Pacing {
                interval_ms: Some(3_600_000),
                calls_per_second: Some(1_000.0)
            }),
            Vec::<String>::new()
        );
        assert_eq!(
            paths(Pacing {
                interval_ms: Some(3_600_001),
                calls_per_second: Some(0.0)
            }),
            ["intervalMs", "callsPerSecond"]
        );
        for rate in [f64::NAN, f64::INFINITY, -1.0, 1_000.1, 1e-9] {
            assert_eq!(
                paths(Pacing {
                    interval_ms: None,
                    calls_per_second: Some(rate)
                }),
                ["callsPerSecond"]
            );
        }
    }

    #[test]
    fn json_form() {
        let json = r#"{"intervalMs":250,"callsPerSecond":1.5}"#;
        let pacing: Pacing = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&pacing).unwrap(), json);
        assert_eq!(
            serde_json::from_str::<Pacing>("{}").unwrap(),
            Pacing::default()
        );
        assert!(serde_json::from_str::<Pacing>(r#"{"intervalMs":-1}"#).is_err());
    }

    #[test]
    fn intervals_are_rounded_up() {
        assert_eq!(interval_of(2, milliseconds(1_000)), milliseconds(500));
        assert_eq!(interval_of(7, milliseconds(60_000)), milliseconds(8_572));
        assert_eq!(interval_of(0, milliseconds(60_000)), milliseconds(60_000));
    }

    #[test]
    fn guarantees_are_cut_in_the_order_of_keys() {
        let guarantees = BTreeMap::from([
            ("a".to_owned(), 3),
            ("b".to_owned(), 4),
            ("c".to_owned(), 9),
            ("d".to_owned(), 1),
        ]);
        let ranges = global_ranges(10, &guarantees);
        assert_eq!(ranges.candidates("a"), (7..10, 0..0));
        assert_eq!(ranges.candidates("b"), (3..7, 0..0));
        assert_eq!(ranges.candidates("c"), (0..3, 0..0));
        assert_eq!(ranges.candidates("d"), (0..0, 0..0));
        let ranges = global_ranges(20, &guarantees);
        assert_eq!(ranges.candidates("d"), (3..4, 0..3));
        assert_eq!(ranges.candidates("nobody"), (0..0, 0..3));
    }

    fn any_guarantees() -> impl Strategy<Value = BTreeMap<String, u32>> {
        btree_map("[a-e]{1,2}", prop_oneof![0..20_u32, Just(u32::MAX)], 0..10)
    }

    proptest! {
        #[test]
        fn ranges_share_nothing_and_stay_inside(max in 0..200_u32, guarantees in any_guarantees()) {
            let ranges = global_ranges(max, &guarantees);
            let shared = ranges.candidates("").1;
            let owned = guarantees.keys().flat_map(|client| ranges.candidates(client).0);
            let all: Vec<u32> = shared.chain(owned).collect();
            let distinct: BTreeSet<u32> = all.iter().copied().collect();
            // Every number has exactly one place.
            prop_assert_eq!(distinct.len(), all.len());
            prop_assert_eq!(distinct, (0..max).collect::<BTreeSet<_>>());
        }

        #[test]
        fn a_client_gets_what_it_was_promised_and_never_more_than_there_is(
            max in 0..200_u32,
            guarantees in any_guarantees(),
        ) {
            let ranges = global_ranges(max, &guarantees);
            let mut left = u64::from(max);
            for (client, &guarantee) in &guarantees {
                let (own, shared) = ranges.candidates(client);
                let promised = left.min(u64::from(guarantee));
                prop_assert_eq!(own.len() as u64, promised);
                prop_assert!(own.len() + shared.len() <= max as usize);
                left -= promised;
            }
        }

        #[test]
        fn free_and_used_numbers_fill_the_limit(limit in 0..300_u32, used in btree_set(0..400_u32, 0..100)) {
            let free = free_numbers(limit, &used);
            prop_assert!(free.iter().all(|number| *number < limit && !used.contains(number)));
            prop_assert_eq!(free.len() + used.range(..limit).count(), limit as usize);
        }
    }
}
