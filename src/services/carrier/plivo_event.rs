//! Plivo's words about a call, webhook forms and call detail records, turned into events. Pure.
//!
//! The quirks are those of live captures (REFERENCE section 0): webhook times are in the account's time zone without an
//! offset while `SessionStart` is UTC; `completed` does not mean answered, only an answer time does; a hangup may come to
//! the answer address.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::CallRecord;
use crate::domain::call::CallStatus;
use crate::domain::call_event::{CallEvent, EndFacts, EventKind, FinalSource};
use crate::domain::outcome::{classify, status_for};

/// Which of our addresses a webhook came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `ring-url`
    Ring,
    /// `answer-url`
    Answer,
    /// `hangup-url`
    Hangup,
    /// `fallback-url`: the answer address failed.
    Fallback,
    /// `machine-url`
    Machine,
    /// `record-url`
    Record,
}

impl Hook {
    /// Its name in the stored form of unmatched webhooks.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Answer => "answer",
            Self::Hangup => "hangup",
            Self::Fallback => "fallback",
            Self::Machine => "machine",
            Self::Record => "record",
        }
    }

    /// The hook with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Ring,
            Self::Answer,
            Self::Hangup,
            Self::Fallback,
            Self::Machine,
            Self::Record,
        ]
        .into_iter()
        .find(|hook| hook.as_str() == name)
    }
}

/// The form fields of a webhook, in the order of arrival.
pub type Params = [(String, String)];

/// The event that a webhook tells, or `None` where it tells nothing about a call's life.
#[must_use]
pub fn webhook_event(
    hook: Hook,
    params: &Params,
    dial: Option<u32>,
    received_at: DateTime<Utc>,
) -> Option<CallEvent> {
    let kind = match (field(params, "Event"), hook) {
        (Some("Hangup"), _) | (_, Hook::Hangup) => {
            EventKind::End(Box::new(hangup_facts(params, received_at)))
        }
        (Some("Ring"), _) | (_, Hook::Ring) => EventKind::Ring,
        (Some("MachineDetection"), _) | (_, Hook::Machine) => EventKind::Machine,
        (_, Hook::Record) => EventKind::Recording {
            url: field(params, "RecordUrl")
                .or(field(params, "record_url"))?
                .to_owned(),
        },
        (_, Hook::Answer | Hook::Fallback) => EventKind::Answer,
    };
    Some(CallEvent {
        kind,
        at: received_at,
        dial,
        call_uuid: owned(params, "CallUUID").or_else(|| owned(params, "call_uuid")),
        request_uuid: owned(params, "RequestUUID"),
        digest: digest(params),
    })
}

/// True when the call was taken by a machine, said in a field of another webhook (synchronous detection).
#[must_use]
pub fn says_machine(params: &Params) -> bool {
    field(params, "Machine").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The value of the field `name`, if it is there and not empty.
#[must_use]
pub fn field<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    params
        .iter()
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
}

/// Tells a repeated webhook from a second one.
#[must_use]
pub fn digest(params: &Params) -> u32 {
    let mut hasher = Sha256::new();
    for (name, value) in params {
        hasher.update((name.len() as u64).to_be_bytes());
        hasher.update(name);
        hasher.update((value.len() as u64).to_be_bytes());
        hasher.update(value);
    }
    let hash = hasher.finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// The end of a call as its record tells it; `None` when the record names no call.
#[must_use]
pub fn call_record(record: &Value) -> Option<CallRecord> {
    let text = |name: &str| {
        record
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let number = |name: &str| record.get(name).and_then(Value::as_i64);
    let call_uuid = text("call_uuid")?.to_owned();
    let ended_at = text("end_time").and_then(offset_time)?;
    let answered_at = text("answer_time").and_then(offset_time);
    let answered =
        answered_at.is_some() || number("bill_duration").is_some_and(|seconds| seconds > 0);
    let code = number("hangup_cause_code").and_then(|code| u32::try_from(code).ok());
    let outcome = classify(code, answered, false, "");
    let end = EndFacts {
        source: FinalSource::Record,
        status: CallStatus::parse(status_for(outcome, answered, "")).unwrap_or(CallStatus::Failed),
        outcome,
        answered_at,
        ended_at,
        duration_s: number("call_duration"),
        bill_duration_s: number("billed_duration").or_else(|| number("bill_duration")),
        total_cost: text("total_amount").map(str::to_owned),
        hangup_cause: None,
        hangup_code: code,
        hangup_name: text("hangup_cause_name").map(str::to_owned),
        hangup_source: text("hangup_source").map(str::to_owned),
        failure_reason: None,
    };
    let digits = |name: &str| {
        let number = text(name).unwrap_or_default();
        number.trim_start_matches('+').to_owned()
    };
    Some(CallRecord {
        call_uuid,
        from: digits("from_number"),
        to: digits("to_number"),
        initiated_at: text("initiation_time").and_then(offset_time),
        end,
    })
}

fn hangup_facts(params: &Params, received_at: DateTime<Utc>) -> EndFacts {
    let offset = account_offset(params);
    let time = |name: &str| {
        field(params, name)
            .and_then(local_time)
            .map(|local| (local - offset).and_utc())
    };
    let seconds = |name: &str| {
        field(params, name)
            .and_then(|text| text.parse::<i64>().ok())
            .filter(|seconds| *seconds >= 0)
    };
    let answered = field(params, "AnswerTime").is_some()
        || seconds("BillDuration").is_some_and(|seconds| seconds > 0);
    let call_status = field(params, "CallStatus").unwrap_or_default();
    let code = field(params, "HangupCauseCode").and_then(|code| code.parse().ok());
    let outcome = classify(code, answered, false, call_status);
    EndFacts {
        source: FinalSource::Webhook,
        status: CallStatus::parse(status_for(outcome, answered, call_status))
            .unwrap_or(CallStatus::Failed),
        outcome,
        answered_at: time("AnswerTime"),
        // An end without a time of its own has the latest that the form knows, so that a repetition says the same.
        ended_at: time("EndTime")
            .or_else(|| time("AnswerTime"))
            .or_else(|| time("StartTime"))
            .unwrap_or(received_at),
        duration_s: seconds("Duration"),
        bill_duration_s: seconds("BillDuration"),
        total_cost: owned(params, "TotalCost"),
        hangup_cause: owned(params, "HangupCause"),
        hangup_code: code,
        hangup_name: owned(params, "HangupCauseName"),
        hangup_source: owned(params, "HangupSource"),
        failure_reason: None,
    }
}

/// How far the account's console time zone is ahead of UTC. `SessionStart` (UTC) and `StartTime` (that zone) are taken within
/// a minute or so of each other, and zones differ by whole quarters of an hour.
fn account_offset(params: &Params) -> TimeDelta {
    const QUARTER: i64 = 15 * 60;
    let start = field(params, "StartTime").and_then(local_time);
    let session = field(params, "SessionStart").and_then(local_time);
    let Some((start, session)) = start.zip(session) else {
        return TimeDelta::zero();
    };
    let seconds = (start - session).num_seconds();
    let quarters = (seconds + QUARTER / 2).div_euclid(QUARTER);
    // No zone is further than 14 hours from UTC: anything beyond is not an offset.
    if quarters.abs() > 14 * 4 {
        TimeDelta::zero()
    } else {
        TimeDelta::seconds(quarters * QUARTER)
    }
}

fn local_time(text: &str) -> Option<NaiveDateTime> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .ok()
        .filter(|time| in_range(time.and_utc()))
}

fn offset_time(text: &str) -> Option<DateTime<Utc>> {
    let with_offset =
        DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%:z").map(|time| time.to_utc());
    with_offset
        .ok()
        .or_else(|| local_time(text).map(|time| time.and_utc()))
        .filter(|time| in_range(*time))
}

/// Times that arithmetic on them cannot overflow.
fn in_range(time: DateTime<Utc>) -> bool {
    (0..=253_402_300_799).contains(&time.timestamp())
}

fn owned(params: &Params, name: &str) -> Option<String> {
    field(params, name).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outcome::Outcome;

    const FIXTURES: &str = include_str!("../../../tests/data/fixtures.json");

    fn body(name: &str) -> Vec<(String, String)> {
        let fixtures: Value = serde_json::from_str(FIXTURES).unwrap();
        let body = fixtures["webhook_bodies"][name].as_str().unwrap();
        url::form_urlencoded::parse(body.as_bytes())
            .into_owned()
            .collect()
    }

    fn received() -> DateTime<Utc> {
        DateTime::from_timestamp(1_727_340_000, 0).unwrap()
    }

    fn end(name: &str) -> EndFacts {
        let event = webhook_event(Hook::Hangup, &body(name), Some(1), received()).unwrap();
        let EventKind::End(facts) = event.kind else {
            panic!("{event:?}");
        };
        *facts
    }

    #[test]
    fn an_answered_hangup_is_read_in_utc() {
        let facts = end("hangup_answered_callee_POST");
        assert_eq!(
            (facts.status, facts.outcome),
            (CallStatus::Completed, Outcome::Answered)
        );
        assert_eq!(
            facts.answered_at.unwrap().to_rfc3339(),
            "2024-09-26T08:35:18+00:00"
        );
        assert_eq!(facts.ended_at.to_rfc3339(), "2024-09-26T08:36:23+00:00");
        assert_eq!(
            (facts.duration_s, facts.bill_duration_s, facts.hangup_code),
            (Some(66), Some(120), Some(4000))
        );
        assert_eq!(facts.total_cost.as_deref(), Some("0.01000"));
    }

    #[test]
    fn a_busy_hangup_was_not_answered() {
        let facts = end("hangup_busy_unanswered_POST");
        assert_eq!(
            (facts.status, facts.outcome, facts.answered_at),
            (CallStatus::Busy, Outcome::Busy, None)
        );
    }

    #[test]
    fn a_hangup_at_the_answer_address_is_a_hangup() {
        let event = webhook_event(
            Hook::Answer,
            &body("hangup_busy_unanswered_POST"),
            None,
            received(),
        )
        .unwrap();
        assert!(matches!(event.kind, EventKind::End(_)));
        assert_eq!(
            event.call_uuid.as_deref(),
            Some("672b0b3f-e4b9-46e7-8fa9-3b48c7da8683")
        );
    }

    #[test]
    fn ring_and_answer_are_told_apart() {
        assert_eq!(
            webhook_event(Hook::Ring, &body("ring_POST"), None, received())
                .unwrap()
                .kind,
            EventKind::Ring
        );
        assert_eq!(
            webhook_event(Hook::Answer, &body("answer_POST"), None, received())
                .unwrap()
                .kind,
            EventKind::Answer
        );
    }

    #[test]
    fn records_are_read_with_and_without_hangup_fields() {
        let fixtures: Value = serde_json::from_str(FIXTURES).unwrap();
        let unanswered = call_record(&fixtures["api_responses"]["cdr_unanswered"]["body"]).unwrap();
        assert_eq!(unanswered.end.outcome, Outcome::NoAnswer);
        assert_eq!(
            unanswered.end.ended_at.to_rfc3339(),
            "2017-05-22T12:19:40+00:00"
        );
        let bad_xml =
            call_record(&fixtures["api_responses"]["cdr_list"]["body"]["objects"][0]).unwrap();
        assert_eq!(
            (bad_xml.end.outcome, bad_xml.end.status),
            (Outcome::ConfigError, CallStatus::Completed)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_form_makes_it_panic(pairs in proptest::collection::vec((".{0,12}", ".{0,40}"), 0..12), time in ".{0,30}") {
            let mut params = pairs;
            for name in ["StartTime", "SessionStart", "EndTime", "AnswerTime", "HangupCauseCode", "Duration"] {
                params.push((name.to_owned(), time.clone()));
            }
            for hook in [Hook::Ring, Hook::Answer, Hook::Hangup, Hook::Machine, Hook::Record, Hook::Fallback] {
                drop(webhook_event(hook, &params, None, received()));
            }
        }
    }
}
