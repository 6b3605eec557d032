//! The call state machine: a pure function from a call and an event to the call after it.
//!
//! Webhooks come late, twice and in any order, so every rule here is a *join*: the earliest ring, the furthest status, the
//! strongest word about the end. Joins commute and absorb repetitions, hence any order and any duplication of the same
//! events ends in the same call (promise P6). The property tests below hold it to that.

use chrono::{DateTime, TimeDelta, Utc};

use super::call::{Call, CallStatus};
use super::call_event::{CallEvent, EndFacts, EventKind, EventRecord, FinalSource};
use super::outcome::Outcome;

/// How long a call may stay in a status before the carrier is asked.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Dialing and queued.
    pub processed: TimeDelta,
    /// Ringing.
    pub ringing: TimeDelta,
    /// In progress.
    pub ongoing: TimeDelta,
}

impl Deadlines {
    /// When a call that entered `status` at `since` is to be asked after; `None` for calls that are not live.
    #[must_use]
    pub fn of(&self, status: CallStatus, since: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let allowed = match status {
            CallStatus::Dialing | CallStatus::Queued => self.processed,
            CallStatus::Ringing => self.ringing,
            CallStatus::InProgress => self.ongoing,
            CallStatus::Waiting
            | CallStatus::Completed
            | CallStatus::Busy
            | CallStatus::NoAnswer
            | CallStatus::Rejected
            | CallStatus::Canceled
            | CallStatus::Failed
            | CallStatus::Timeout
            | CallStatus::Uncertain
            | CallStatus::Skipped => return None,
        };
        Some(since + allowed)
    }
}

/// What an event does to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The call after the event.
    Changed(Box<Call>),
    /// The event says nothing new.
    Unchanged,
    /// The event belongs to a dial of this call that was withdrawn: a ghost, to be hung up, never to be counted. With the call that
    /// remembers the ghost's ids, where that is news: nobody may take the ghost for the dial after it.
    Ghost(Option<Box<Call>>),
}

/// Applies `event` to `call`.
#[must_use]
pub fn apply(call: &Call, event: &CallEvent, deadlines: &Deadlines) -> Applied {
    if is_ghost(call, event) {
        return Applied::Ghost(haunted(call, event));
    }
    let mut next = call.clone();
    next.call_uuid = next.call_uuid.or_else(|| event.call_uuid.clone());
    next.request_uuid = next.request_uuid.or_else(|| event.request_uuid.clone());
    match &event.kind {
        EventKind::Accepted => advance(&mut next, CallStatus::Queued, event.at, deadlines),
        EventKind::Ring => {
            next.ring_time = earliest(next.ring_time, event.at);
            advance(&mut next, CallStatus::Ringing, event.at, deadlines);
        }
        EventKind::Answer => {
            if !carrier_told_the_end(&next) {
                next.answer_time = earliest(next.answer_time, event.at);
            }
            advance(&mut next, CallStatus::InProgress, event.at, deadlines);
        }
        EventKind::Machine => next.machine = true,
        EventKind::Recording { url } => {
            let first = next
                .recording_url
                .take()
                .map_or_else(|| url.clone(), |known| known.min(url.clone()));
            next.recording_url = Some(first);
        }
        EventKind::End(facts) => end(&mut next, facts),
    }
    settle(&mut next);
    remember(&mut next, event);
    if next == *call {
        Applied::Unchanged
    } else {
        Applied::Changed(Box::new(next))
    }
}

/// Takes back a dial that provably never reached the carrier: the contact waits until `retry_at` and is dialed again as the
/// same attempt under another number, so whatever still arrives for this one is a ghost. `None` when the carrier may know the call.
#[must_use]
pub fn withdraw(call: &Call, retry_at: DateTime<Utc>) -> Option<Call> {
    if call.status != CallStatus::Dialing || call.carrier_id().is_some() {
        return None;
    }
    let mut next = call.clone();
    next.status = CallStatus::Waiting;
    next.retry_at = Some(retry_at);
    next.deadline = None;
    next.slots.clear();
    Some(next)
}

/// Who dials, and since when.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// The container.
    pub owner: String,
    /// The epoch of its lease on the campaign.
    pub epoch: i64,
    /// Now, UTC.
    pub now: DateTime<Utc>,
}

/// Turns a waiting call into an intent to dial that holds `slots`, under a number that no dial of it had. `None` when it is not
/// waiting.
#[must_use]
pub fn rearm(
    call: &Call,
    slots: Vec<String>,
    dialer: Dialer,
    deadlines: &Deadlines,
) -> Option<Call> {
    if call.status != CallStatus::Waiting {
        return None;
    }
    let mut next = call.clone();
    next.status = CallStatus::Dialing;
    next.dial += 1;
    next.start_time = dialer.now;
    next.missing_since = None;
    next.retry_at = None;
    next.deadline = deadlines.of(CallStatus::Dialing, dialer.now);
    next.slots = slots;
    next.owner = dialer.owner;
    next.epoch = dialer.epoch;
    Some(next)
}

/// Makes the intent of a dial that was held up new again. `None` when it was withdrawn, or the carrier may know it: then
/// nothing may be sent.
#[must_use]
pub fn renew(call: &Call, dial: u32, now: DateTime<Utc>, deadlines: &Deadlines) -> Option<Call> {
    let is_unsent =
        call.status == CallStatus::Dialing && call.dial == dial && call.carrier_id().is_none();
    is_unsent.then(|| Call {
        start_time: now,
        missing_since: None,
        deadline: deadlines.of(CallStatus::Dialing, now),
        ..call.clone()
    })
}

/// A withdrawn dial's number is never reused; events without a number are known by the carrier's ids, which a withdrawn dial never had.
fn is_ghost(call: &Call, event: &CallEvent) -> bool {
    let never_dialed = matches!(call.status, CallStatus::Waiting | CallStatus::Skipped);
    never_dialed || event.dial.is_some_and(|dial| dial != call.dial)
}

/// The call that remembers the ids of the ghost that `event` is about; `None` where it does already.
fn haunted(call: &Call, event: &CallEvent) -> Option<Box<Call>> {
    let mut ghosts = call.ghosts.clone();
    ghosts.extend(event.call_uuid.clone());
    ghosts.extend(event.request_uuid.clone());
    ghosts.sort_unstable();
    ghosts.dedup();
    ghosts.truncate(Call::MAX_GHOSTS);
    (ghosts != call.ghosts).then(|| {
        Box::new(Call {
            ghosts,
            ..call.clone()
        })
    })
}

fn advance(call: &mut Call, to: CallStatus, at: DateTime<Utc>, deadlines: &Deadlines) {
    if call.status == to {
        call.deadline = match (call.deadline, deadlines.of(to, at)) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
    }
    if call.status.rank() < to.rank() {
        call.status = to;
        call.deadline = deadlines.of(to, at);
    }
}

fn earliest(known: Option<DateTime<Utc>>, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    Some(known.map_or(at, |known| known.min(at)))
}

fn carrier_told_the_end(call: &Call) -> bool {
    call.end
        .as_ref()
        .is_some_and(|end| end.source >= FinalSource::Record)
}

/// Keeps the strongest word about the end; between two equally strong ones the greater, so that their order does not matter.
fn end(call: &mut Call, facts: &EndFacts) {
    if call.end.as_ref().is_some_and(|known| known >= facts) {
        return;
    }
    call.status = facts.status;
    if facts.source >= FinalSource::Record {
        call.answer_time = facts.answered_at;
    }
    call.end = Some(facts.clone());
}

/// What follows from the facts alone, whatever their order: outcome, next attempt, and that an ended call has no deadline.
fn settle(call: &mut Call) {
    let Some(end) = &call.end else { return };
    let outcome = if call.machine && end.outcome == Outcome::Answered {
        Outcome::Voicemail
    } else {
        end.outcome
    };
    call.outcome = Some(outcome);
    call.deadline = None;
    call.slots.clear();
    let plan = call
        .retry
        .as_ref()
        .filter(|plan| !call.superseded && plan.outcomes.contains(&outcome));
    call.retry_at = plan.map(|plan| end.ended_at + TimeDelta::seconds(plan.delay_s));
}

fn remember(call: &mut Call, event: &CallEvent) {
    let line = EventRecord::of(event);
    match call
        .events
        .binary_search_by(|known| known.key().cmp(&line.key()))
    {
        Ok(found) => call.events[found].at = call.events[found].at.min(line.at),
        Err(place) => call.events.insert(place, line),
    }
    call.events.truncate(Call::MAX_EVENTS);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::RetryPlan;
    use crate::domain::ids::{CallId, CampaignId, ClientId, Id};
    use crate::domain::phone::PhoneNumber;
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    const DEADLINES: Deadlines = Deadlines {
        processed: TimeDelta::seconds(60),
        ringing: TimeDelta::seconds(180),
        ongoing: TimeDelta::seconds(3600),
    };

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap()
    }

    fn number(text: &str) -> PhoneNumber {
        PhoneNumber::parse(text, None).unwrap()
    }

    fn dialing(retry: Option<RetryPlan>) -> Call {
        Call {
            id: CallId::from_bytes([1; 12]),
            client_id: ClientId::from_bytes([2; 12]),
            campaign_id: Some(CampaignId::from_bytes([3; 12])),
            contact_seq: Some(7),
            attempt: 1,
            dial: 2,
            from: number("+12025550100"),
            to: number("+12025550143"),
            answer: None,
            status: CallStatus::Dialing,
            outcome: None,
            skip_reason: None,
            call_uuid: None,
            request_uuid: None,
            ghosts: Vec::new(),
            start_time: at(0),
            ring_time: None,
            answer_time: None,
            confirmed_at: None,
            missing_since: None,
            hangup_requested_at: None,
            machine: false,
            recording_url: None,
            end: None,
            retry,
            retry_at: None,
            superseded: false,
            deadline: DEADLINES.of(CallStatus::Dialing, at(0)),
            events: Vec::new(),
            owner: "container".to_owned(),
            epoch: 1,
            slots: vec!["global/3".to_owned(), "client/a/1".to_owned()],
            version: 0,
        }
    }

    fn event(kind: EventKind, second: i64) -> CallEvent {
        let digest = u32::try_from(second).unwrap();
        CallEvent {
            kind,
            at: at(second),
            dial: Some(2),
            call_uuid: Some("u".into()),
            request_uuid: Some("u".into()),
            digest,
        }
    }

    fn facts(source: FinalSource, answered: bool, second: i64) -> EndFacts {
        let (status, outcome) = if answered {
            (CallStatus::Completed, Outcome::Answered)
        } else {
            (CallStatus::Busy, Outcome::Busy)
        };
        EndFacts {
            source,
            status,
            outcome,
            answered_at: answered.then(|| at(20)),
            ended_at: at(second),
            duration_s: Some(10),
            bill_duration_s: (source == FinalSource::Webhook).then_some(60),
            total_cost: None,
            hangup_cause: None,
            hangup_code: Some(4000),
            hangup_name: None,
            hangup_source: None,
            failure_reason: None,
        }
    }

    /// Everything that can be told of one call, as one consistent story.
    fn story(answered: bool) -> Vec<CallEvent> {
        let mut story = vec![
            event(EventKind::Accepted, 1),
            event(EventKind::Ring, 5),
            event(EventKind::Ring, 6),
        ];
        if answered {
            story.push(event(EventKind::Answer, 20));
            story.push(event(EventKind::Machine, 22));
            story.push(event(
                EventKind::Recording {
                    url: "https://example.com/a".into(),
                },
                41,
            ));
        }
        story.push(event(
            EventKind::End(Box::new(facts(FinalSource::Record, answered, 40))),
            50,
        ));
        story.push(event(
            EventKind::End(Box::new(facts(FinalSource::Webhook, answered, 40))),
            42,
        ));
        story
    }

    fn play(call: &Call, events: &[CallEvent]) -> Call {
        let mut call = call.clone();
        for event in events {
            match apply(&call, event, &DEADLINES) {
                Applied::Changed(next) => call = *next,
                Applied::Unchanged => {}
                Applied::Ghost(_) => panic!("an event of the current dial is no ghost"),
            }
        }
        call
    }

    fn plan() -> Option<RetryPlan> {
        Some(RetryPlan {
            outcomes: vec![Outcome::Busy, Outcome::Voicemail],
            delay_s: 30,
        })
    }

    /// Some of a story's events, and the same ones again in another order and with repetitions.
    fn two_tellings() -> impl Strategy<Value = (Vec<CallEvent>, Vec<CallEvent>)> {
        any::<bool>()
            .prop_flat_map(|answered| {
                let story = story(answered);
                let most = story.len();
                subsequence(story, 0..=most)
            })
            .prop_flat_map(|told| {
                let most = told.len();
                let repeated = subsequence(told.clone(), 0..=most);
                (Just(told), repeated)
            })
            .prop_flat_map(|(told, repeated)| {
                let again: Vec<CallEvent> = told.iter().cloned().chain(repeated).collect();
                (Just(told), Just(again).prop_shuffle())
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_order_and_any_repetition_ends_in_the_same_call((told, again) in two_tellings()) {
            let call = dialing(plan());
            prop_assert_eq!(play(&call, &told), play(&call, &again));
        }

        #[test]
        fn status_never_moves_backwards_and_an_end_frees_the_slots((_, again) in two_tellings()) {
            let mut call = dialing(plan());
            for event in again {
                if let Applied::Changed(next) = apply(&call, &event, &DEADLINES) {
                    prop_assert!(next.status.rank() >= call.status.rank());
                    prop_assert_eq!(next.slots.is_empty(), next.status.is_final());
                    prop_assert_eq!(next.deadline.is_none(), next.status.is_final());
                    call = *next;
                }
            }
        }

        #[test]
        fn a_withdrawn_dial_is_a_ghost_for_ever((told, _) in two_tellings()) {
            let waiting = withdraw(&dialing(None), at(100)).unwrap();
            let dialer = Dialer { owner: "other".into(), epoch: 2, now: at(100) };
            let redialed = rearm(&waiting, vec!["global/0".into()], dialer, &DEADLINES).unwrap();
            for event in &told {
                for call in [&waiting, &redialed] {
                    let Applied::Ghost(Some(haunted)) = apply(call, event, &DEADLINES) else {
                        return Err(TestCaseError::fail("an event of a withdrawn dial"));
                    };
                    // Its id is remembered, once, and nothing else.
                    prop_assert_eq!(&haunted.ghosts, &["u"]);
                    prop_assert_eq!(apply(&haunted, event, &DEADLINES), Applied::Ghost(None));
                    prop_assert_eq!(&Call { ghosts: Vec::new(), ..*haunted }, call);
                }
            }
        }
    }

    #[test]
    fn the_hangup_alone_tells_the_whole_story() {
        let call = play(
            &dialing(None),
            &[event(
                EventKind::End(Box::new(facts(FinalSource::Webhook, true, 40))),
                42,
            )],
        );
        assert_eq!(
            (call.status, call.outcome, call.answer_time),
            (CallStatus::Completed, Some(Outcome::Answered), Some(at(20)))
        );
        assert!(!call.is_open());
    }

    #[test]
    fn a_late_hangup_replaces_what_we_gave_up() {
        let gave_up = EndFacts {
            status: CallStatus::Uncertain,
            outcome: Outcome::Uncertain,
            ..facts(FinalSource::GaveUp, false, 90)
        };
        let told = [
            event(EventKind::End(Box::new(gave_up)), 90),
            event(
                EventKind::End(Box::new(facts(FinalSource::Webhook, false, 40))),
                95,
            ),
        ];
        let call = play(&dialing(plan()), &told);
        assert_eq!(
            (call.status, call.outcome),
            (CallStatus::Busy, Some(Outcome::Busy))
        );
        assert_eq!(call.retry_at, Some(at(70)));
    }

    #[test]
    fn a_call_that_the_carrier_may_know_is_never_withdrawn() {
        let accepted = play(&dialing(None), &[event(EventKind::Accepted, 1)]);
        assert_eq!(withdraw(&accepted, at(100)), None);
        let mut named = dialing(None);
        named.call_uuid = Some("u".into());
        assert_eq!(withdraw(&named, at(100)), None);
    }

    #[test]
    fn history_is_bounded() {
        let events: Vec<CallEvent> = (0..100)
            .map(|second| event(EventKind::Ring, second))
            .collect();
        assert_eq!(play(&dialing(None), &events).events.len(), Call::MAX_EVENTS);
    }
}
