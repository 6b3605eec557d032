//! What is done to the system, and when: a pure function of the seed and the length, so that a run can be repeated.
//!
//! The faults come in lanes (containers, database, network and so on). Within a lane one fault follows the other; the lanes
//! run beside each other. Each lane deals its kinds of fault from a shuffled deck, so that even a short run sees them all.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::action::{Action, DialFault, Event, Peer, WebhookFault};
use super::judge::Promise;
use super::proxy::Way;

/// Containers of a run.
pub(super) const CONTAINERS: usize = 3;
/// Members of the replica set.
pub(super) const MEMBERS: usize = 3;
/// The first fault comes after this time, when the work is under way, in ms.
const FIRST_MS: u64 = 6_000;
/// Every fault ends this long before the end of the run at the latest, in ms.
const LAST_MS: u64 = 3_000;
/// Webhooks are late by at most this part of the run, and by three minutes.
const LATE_PART: u32 = 8;
const LATEST_MS: u64 = 180_000;
/// A dial that the carrier sits on for longer than anybody believes that it was sent: it becomes a ghost, in ms.
const GHOST_MS: u64 = 20_000;

/// A lane: its kinds of fault and the pauses between them, in ms.
struct Lane {
    deck: &'static [Deal],
    pause_ms: (u64, u64),
}

type Deal = fn(&mut StdRng, late_ms: u64) -> (Action, u64);

/// Which faults a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Faults {
    /// All kinds but a full disk, which needs a file system of its own.
    Usual,
    /// Full disks, and operators.
    FullDisk,
    /// None.
    None,
}

impl Faults {
    /// Whether a run with these faults must have put the promise to the test.
    pub(super) fn call_upon(self, promise: Promise) -> bool {
        match self {
            Self::Usual => true,
            Self::FullDisk => promise != Promise::P9,
            Self::None => !matches!(promise, Promise::P5 | Promise::P9),
        }
    }

    fn lanes(self) -> &'static [Lane] {
        match self {
            Self::Usual => &LANES,
            Self::FullDisk => &FULL_DISK_LANES,
            Self::None => &[],
        }
    }
}

/// The faults of a run of `length` under `seed`, in order of time.
pub(super) fn schedule(seed: u64, length: Duration, faults: Faults) -> Vec<Event> {
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let end_ms = length_ms.saturating_sub(LAST_MS);
    let late_ms = (length_ms / u64::from(LATE_PART)).min(LATEST_MS);
    let mut events = Vec::new();
    for (number, lane) in (0_u64..).zip(faults.lanes()) {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut deck: Vec<Deal> = Vec::new();
        let mut now_ms = FIRST_MS + rng.random_range(0..=lane.pause_ms.0);
        while now_ms < end_ms {
            if deck.is_empty() {
                deck.extend(lane.deck);
                deck.shuffle(&mut rng);
            }
            let Some(deal) = deck.pop() else { break };
            let (action, lasts_ms) = deal(&mut rng, late_ms);
            if now_ms + lasts_ms <= end_ms {
                events.push(Event {
                    at: Duration::from_millis(now_ms),
                    action,
                });
            }
            now_ms += lasts_ms + rng.random_range(lane.pause_ms.0..=lane.pause_ms.1);
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

const LANES: [Lane; 8] = [
    // A container that dies is missed after four seconds: the pause lets others take over before the next one dies.
    Lane {
        deck: &[kill, kill, terminate, freeze],
        pause_ms: (6_000, 10_000),
    },
    Lane {
        deck: &[kill_primary, step_down, member],
        pause_ms: (7_000, 14_000),
    },
    Lane {
        deck: &[database_link, carrier_link, carrier_link, held_dial],
        pause_ms: (2_000, 7_000),
    },
    Lane {
        deck: &[
            |rng, _| dials(rng, DialFault::Throttle),
            |rng, _| dials(rng, DialFault::ErrorBefore),
            |rng, _| dials(rng, DialFault::ErrorAfter),
            |rng, _| dials(rng, DialFault::TimeoutAfter),
            |rng, _| dials(rng, DialFault::ResetBefore),
            |rng, _| dials(rng, DialFault::ResetAfter),
            |rng, _| dials(rng, DialFault::Slow),
            |_, _| ghost(),
        ],
        pause_ms: (1_500, 4_500),
    },
    Lane {
        deck: &[
            |rng, late| webhooks(rng, late, WebhookFault::Lost),
            |rng, late| webhooks(rng, late, WebhookFault::Doubled),
            |rng, late| webhooks(rng, late, WebhookFault::Delayed),
            |rng, late| webhooks(rng, late, WebhookFault::Reordered),
        ],
        pause_ms: (1_000, 4_000),
    },
    Lane {
        deck: &[|rng, _| look_ups(rng, true), |rng, _| look_ups(rng, false)],
        pause_ms: (6_000, 12_000),
    },
    OPERATORS,
    Lane {
        deck: &[client_limit, client_limit, caller_id_limit],
        pause_ms: (3_000, 8_000),
    },
];

const OPERATORS: Lane = Lane {
    deck: &[pause, pause, pause, quarrel, quarrel, cancel],
    pause_ms: (1_500, 5_000),
};

const FULL_DISK_LANES: [Lane; 2] = [
    Lane {
        deck: &[full_disk],
        pause_ms: (25_000, 45_000),
    },
    OPERATORS,
];

fn between(rng: &mut StdRng, least: u64, most: u64) -> u64 {
    rng.random_range(least..=most)
}

fn kill(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let down_ms = between(rng, 500, 6_000);
    let container = rng.random_range(0..CONTAINERS);
    (Action::Kill { container, down_ms }, down_ms)
}

fn terminate(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let down_ms = between(rng, 500, 4_000);
    let container = rng.random_range(0..CONTAINERS);
    (Action::Terminate { container, down_ms }, down_ms)
}

fn freeze(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let for_ms = between(rng, 6_000, 10_000);
    let container = rng.random_range(0..CONTAINERS);
    (Action::Freeze { container, for_ms }, for_ms)
}

fn kill_primary(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let down_ms = between(rng, 1_000, 6_000);
    (Action::KillPrimary { down_ms }, down_ms)
}

fn step_down(_: &mut StdRng, _: u64) -> (Action, u64) {
    (Action::StepDown, 1_000)
}

fn full_disk(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let for_ms = between(rng, 15_000, 40_000);
    (Action::FullDisk { for_ms }, for_ms)
}

fn way(rng: &mut StdRng) -> Way {
    [Way::Closed, Way::Reset, Way::Stalled][rng.random_range(0..3)]
}

fn member(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let (member, way) = (rng.random_range(0..MEMBERS), way(rng));
    let for_ms = between(rng, 1_500, 6_000);
    (
        Action::Member {
            member,
            way,
            for_ms,
        },
        for_ms,
    )
}

fn database_link(rng: &mut StdRng, _: u64) -> (Action, u64) {
    link(rng, Peer::Database, 8_000)
}

fn carrier_link(rng: &mut StdRng, _: u64) -> (Action, u64) {
    link(rng, Peer::Carrier, 5_000)
}

fn link(rng: &mut StdRng, peer: Peer, longest_ms: u64) -> (Action, u64) {
    let (container, way) = (rng.random_range(0..CONTAINERS), way(rng));
    let for_ms = between(rng, 300, longest_ms);
    (
        Action::Link {
            container,
            peer,
            way,
            for_ms,
        },
        for_ms,
    )
}

fn held_dial(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let for_ms = between(rng, 2_000, 3_000);
    let container = rng.random_range(0..CONTAINERS);
    (Action::HeldDial { container, for_ms }, for_ms)
}

fn dials(rng: &mut StdRng, fault: DialFault) -> (Action, u64) {
    let times = rng.random_range(1..=4);
    (Action::Dials { fault, times }, 500)
}

fn ghost() -> (Action, u64) {
    let fault = DialFault::Ghost;
    (Action::Dials { fault, times: 1 }, GHOST_MS)
}

fn webhooks(rng: &mut StdRng, late_ms: u64, fault: WebhookFault) -> (Action, u64) {
    let percent = rng.random_range(20..=70);
    let for_ms = between(rng, 3_000, 8_000);
    (
        Action::Webhooks {
            fault,
            percent,
            late_ms,
            for_ms,
        },
        for_ms,
    )
}

fn look_ups(rng: &mut StdRng, slow: bool) -> (Action, u64) {
    let for_ms = between(rng, 2_000, 8_000);
    (Action::LookUps { slow, for_ms }, for_ms)
}

fn pause(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let action = Action::Pause {
        pick: rng.random_range(0..100),
        twice: rng.random_bool(0.4),
        resume_after_ms: between(rng, 2_500, 6_000),
    };
    (action, 0)
}

fn quarrel(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let pick = rng.random_range(0..100);
    (Action::Quarrel { pick }, 0)
}

fn cancel(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let (pick, twice) = (rng.random_range(0..100), rng.random_bool(0.4));
    (Action::Cancel { pick, twice }, 0)
}

fn client_limit(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let (pick, calls) = (rng.random_range(0..100), rng.random_range(2..=10));
    (Action::ClientLimit { pick, calls }, 0)
}

fn caller_id_limit(rng: &mut StdRng, _: u64) -> (Action, u64) {
    let (pick, calls) = (rng.random_range(0..100), rng.random_range(2..=6));
    (Action::CallerIdLimit { pick, calls }, 0)
}

/// By how much webhooks and dial requests may be late in a run of `length`.
pub(super) fn latest(length: Duration) -> Duration {
    let late = (length / LATE_PART).min(Duration::from_millis(LATEST_MS));
    late.max(GHOST_DELAY)
}

/// How late the ghosts' dial requests are taken up.
pub(super) const GHOST_DELAY: Duration = Duration::from_millis(GHOST_MS);

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_MINUTES: Duration = Duration::from_secs(120);

    fn usual(seed: u64) -> Vec<Event> {
        schedule(seed, TWO_MINUTES, Faults::Usual)
    }

    #[test]
    fn it_is_a_pure_function_of_seed_and_length() {
        assert_eq!(usual(7), usual(7));
        assert_ne!(usual(7), usual(8));
    }

    #[test]
    fn even_a_short_run_sees_every_kind_of_fault() {
        let kinds = |seed| {
            let events = usual(seed);
            let kinds: std::collections::BTreeSet<_> =
                events.iter().map(|event| event.action.kind()).collect();
            kinds.len()
        };
        assert!(
            (0..20).all(|seed| kinds(seed) >= 24),
            "{:?}",
            (0..20).map(kinds).collect::<Vec<_>>()
        );
    }

    #[test]
    fn faults_come_in_order_and_in_time() {
        let events = usual(3);
        assert!(events.is_sorted_by_key(|event| event.at));
        assert!(events.iter().all(|event| event.at < TWO_MINUTES));
    }
}
