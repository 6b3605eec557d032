//! What became of a call: its classification for retries, reports and the circuit breaker.
//!
//! The carrier gives a numeric hangup cause, a `CallStatus` word and times; they disagree often enough that one table must
//! decide (Plivo's documented hangup causes with our meaning for campaigns; `CallStatus` only fills gaps). Answered means
//! that the answer time is set, never the status word alone: carriers report `completed` for calls that nobody answered.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// The classification of an ended call.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A person picked up.
    Answered,
    /// The line was busy. Some networks report a declined call this way, too.
    Busy,
    /// It rang and nobody picked up.
    NoAnswer,
    /// The callee, or the network in the callee's name, declined.
    Rejected,
    /// The number does not exist: never dial it again.
    InvalidNumber,
    /// The number exists and cannot be reached now: switched off, out of coverage or out of service.
    Unreachable,
    /// A machine answered.
    Voicemail,
    /// The carrier or a network on the way failed.
    CarrierError,
    /// A concurrency or dial limit of the carrier refused the call; nobody's phone rang.
    Throttled,
    /// Our account, caller ID, permissions or answer server were at fault. The callee may have picked up and heard nothing.
    ConfigError,
    /// The bot's warm-up failed, so the carrier was never asked.
    BotNotReady,
    /// We ended it before anybody answered.
    Canceled,
    /// Nobody can say whether the call took place: the carrier could not be asked for too long.
    Uncertain,
}

/// The text is not the name of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an outcome")]
pub struct UnknownOutcome;

impl Outcome {
    /// Every outcome, in the order of reports.
    pub const ALL: [Self; 13] = [
        Self::Answered,
        Self::Busy,
        Self::NoAnswer,
        Self::Rejected,
        Self::InvalidNumber,
        Self::Unreachable,
        Self::Voicemail,
        Self::CarrierError,
        Self::Throttled,
        Self::ConfigError,
        Self::BotNotReady,
        Self::Canceled,
        Self::Uncertain,
    ];

    /// The name in documents, requests and answers, for example `no_answer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Rejected => "rejected",
            Self::InvalidNumber => "invalid_number",
            Self::Unreachable => "unreachable",
            Self::Voicemail => "voicemail",
            Self::CarrierError => "carrier_error",
            Self::Throttled => "throttled",
            Self::ConfigError => "config_error",
            Self::BotNotReady => "bot_not_ready",
            Self::Canceled => "canceled",
            Self::Uncertain => "uncertain",
        }
    }

    /// Reads a name as [`Outcome::as_str`] writes it.
    ///
    /// # Errors
    /// [`UnknownOutcome`] for any other text.
    pub fn parse(name: &str) -> Result<Self, UnknownOutcome> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == name)
            .ok_or(UnknownOutcome)
    }

    /// Whether the circuit breaker counts it: the carrier or we ourselves failed, and dialing on would burn contacts.
    /// Throttling does not count, pacing takes care of it; nor does anything that a callee did.
    pub fn counts_as_failure(self) -> bool {
        matches!(
            self,
            Self::CarrierError | Self::ConfigError | Self::BotNotReady
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a contact was never dialed in a campaign.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// The number is on a suppression (do not call) list.
    Suppressed,
    /// The number cannot be dialed.
    Invalid,
    /// The calling window never opens for it, for example because the contact's time zone is unknown.
    WindowClosed,
    /// The campaign expired first.
    Expired,
    /// The number has had all the attempts that the rules allow.
    AttemptCap,
}

impl SkipReason {
    /// Every reason, in the order of reports.
    pub const ALL: [Self; 5] = [
        Self::Suppressed,
        Self::Invalid,
        Self::WindowClosed,
        Self::Expired,
        Self::AttemptCap,
    ];

    /// The name in documents and answers, for example `window_closed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suppressed => "suppressed",
            Self::Invalid => "invalid",
            Self::WindowClosed => "window_closed",
            Self::Expired => "expired",
            Self::AttemptCap => "attempt_cap",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Classifies an ended call.
///
/// * `code`: the carrier's `HangupCauseCode`; unknown codes fall into the class of their range.
/// * `answered`: the answer time is set, or seconds were billed.
/// * `machine`: answering-machine detection said so.
/// * `call_status`: the carrier's `CallStatus` word, used where the code says nothing.
///
/// Codes 7xxx and 8xxx (our answer server could not be reached, or its XML was bad) are our fault even though the callee
/// picked up: the person heard nothing, so the call must not be reported as a success.
pub fn classify(code: Option<u32>, answered: bool, machine: bool, call_status: &str) -> Outcome {
    match code {
        Some(7000..=8999) => Outcome::ConfigError,
        Some(9100) => Outcome::Voicemail,
        _ if machine => Outcome::Voicemail,
        _ if answered => Outcome::Answered,
        Some(code) => unanswered_by_code(code).unwrap_or_else(|| unanswered_by_status(call_status)),
        None => unanswered_by_status(call_status),
    }
}

/// The class of an unanswered call by its code; `None` where the code says nothing about it.
fn unanswered_by_code(code: u32) -> Option<Outcome> {
    let outcome = match code {
        1010 => Outcome::ConfigError,
        1020 | 5030 => Outcome::Throttled,
        1000..=1999 => Outcome::Canceled,
        2000 | 3050 | 3120 => Outcome::InvalidNumber,
        // Barred country, number or prefix; a loop; media anchoring (India): permissions that only we can get fixed.
        2030 | 2040 | 2050 | 2060 | 2070 => Outcome::ConfigError,
        2001..=2999 => Outcome::Unreachable,
        3000 => Outcome::NoAnswer,
        3010 | 3100 => Outcome::Busy,
        3020 | 3040 | 3110 => Outcome::Rejected,
        // Caller ID unknown, marked as spam, or on a do-not-originate list.
        3030 | 3130 | 3140 => Outcome::ConfigError,
        3070 | 3080 | 3090 => Outcome::CarrierError,
        3001..=3999 => Outcome::Unreachable,
        // Failed or timed-out authentication at a SIP endpoint.
        4240 | 4250 => Outcome::ConfigError,
        5000..=5999 | 6020 => Outcome::CarrierError,
        // Hung up by the ring time limit: 6000 without an answer is `hangup_on_ring`, 6010 the ring time-out.
        6000..=6999 => Outcome::NoAnswer,
        _ => return None,
    };
    Some(outcome)
}

/// The class of an unanswered call by the carrier's status word alone.
fn unanswered_by_status(call_status: &str) -> Outcome {
    match call_status {
        "busy" => Outcome::Busy,
        "rejected" => Outcome::Rejected,
        "cancel" | "canceled" | "cancelled" => Outcome::Canceled,
        "failed" => Outcome::CarrierError,
        // `no-answer`, `timeout`, and `completed` without an answer time: it rang out, or the callee never took it.
        _ => Outcome::NoAnswer,
    }
}

/// Why every further call of the campaign would end the same way, if the hangup code says so. The campaign pauses at once
/// with this sentence instead of burning its contacts.
pub fn condemns(code: Option<u32>) -> Option<&'static str> {
    match code? {
        1010 => Some("The carrier account is out of credit (code 1010)."),
        3030 => Some("The carrier does not know the caller ID (code 3030)."),
        3130 => Some("Networks block the caller ID as spam (code 3130)."),
        3140 => Some("The caller ID is on a do-not-originate list (code 3140)."),
        _ => None,
    }
}

/// The final call status that goes with an outcome: `completed`, `busy`, `no-answer`, `rejected`, `canceled`, `failed`,
/// `timeout` or `uncertain`.
///
/// An answered call is `completed` whatever its outcome. `timeout` is the carrier's own word for a call that rang out.
pub fn status_for(outcome: Outcome, answered: bool, call_status: &str) -> &'static str {
    if answered {
        return "completed";
    }
    match outcome {
        Outcome::Answered | Outcome::Voicemail => "completed",
        Outcome::Busy => "busy",
        Outcome::NoAnswer if call_status == "timeout" => "timeout",
        Outcome::NoAnswer => "no-answer",
        Outcome::Rejected => "rejected",
        Outcome::Canceled => "canceled",
        Outcome::Uncertain => "uncertain",
        Outcome::InvalidNumber
        | Outcome::Unreachable
        | Outcome::CarrierError
        | Outcome::Throttled
        | Outcome::ConfigError
        | Outcome::BotNotReady => "failed",
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    /// Plivo's table of hangup causes, for calls that nobody answered.
    const UNANSWERED: [(u32, Outcome); 42] = [
        (1000, Outcome::Canceled),
        (1010, Outcome::ConfigError),
        (1020, Outcome::Throttled),
        (1999, Outcome::Canceled),
        (2000, Outcome::InvalidNumber),
        (2010, Outcome::Unreachable),
        (2020, Outcome::Unreachable),
        (2030, Outcome::ConfigError),
        (2040, Outcome::ConfigError),
        (2050, Outcome::ConfigError),
        (2060, Outcome::ConfigError),
        (2070, Outcome::ConfigError),
        (2999, Outcome::Unreachable),
        (3000, Outcome::NoAnswer),
        (3010, Outcome::Busy),
        (3020, Outcome::Rejected),
        (3030, Outcome::ConfigError),
        (3040, Outcome::Rejected),
        (3050, Outcome::InvalidNumber),
        (3070, Outcome::CarrierError),
        (3080, Outcome::CarrierError),
        (3090, Outcome::CarrierError),
        (3100, Outcome::Busy),
        (3110, Outcome::Rejected),
        (3120, Outcome::InvalidNumber),
        (3130, Outcome::ConfigError),
        (3140, Outcome::ConfigError),
        (3060, Outcome::Unreachable),
        (3999, Outcome::Unreachable),
        (4240, Outcome::ConfigError),
        (4250, Outcome::ConfigError),
        (5000, Outcome::CarrierError),
        (5010, Outcome::CarrierError),
        (5020, Outcome::CarrierError),
        (5030, Outcome::Throttled),
        (5999, Outcome::CarrierError),
        (6000, Outcome::NoAnswer),
        (6010, Outcome::NoAnswer),
        (6020, Outcome::CarrierError),
        (7011, Outcome::ConfigError),
        (8011, Outcome::ConfigError),
        (9100, Outcome::Voicemail),
    ];

    #[test]
    fn codes_decide_for_unanswered_calls() {
        for (code, outcome) in UNANSWERED {
            for status in ["completed", "busy", "failed", ""] {
                assert_eq!(
                    classify(Some(code), false, false, status),
                    outcome,
                    "{code} {status}"
                );
            }
        }
    }

    #[test]
    fn the_status_decides_where_the_code_says_nothing() {
        for code in [
            None,
            Some(0),
            Some(4000),
            Some(4010),
            Some(4999),
            Some(9000),
            Some(9110),
            Some(123_456),
        ] {
            for (status, outcome) in [
                ("busy", Outcome::Busy),
                ("rejected", Outcome::Rejected),
                ("cancel", Outcome::Canceled),
                ("failed", Outcome::CarrierError),
                ("no-answer", Outcome::NoAnswer),
                ("timeout", Outcome::NoAnswer),
                ("completed", Outcome::NoAnswer),
                ("anything", Outcome::NoAnswer),
            ] {
                assert_eq!(
                    classify(code, false, false, status),
                    outcome,
                    "{code:?} {status}"
                );
            }
        }
    }

    #[test]
    fn answered_calls() {
        for code in [
            None,
            Some(0),
            Some(1000),
            Some(4000),
            Some(4010),
            Some(4020),
            Some(5010),
            Some(6000),
            Some(6020),
        ] {
            assert_eq!(
                classify(code, true, false, "completed"),
                Outcome::Answered,
                "{code:?}"
            );
            assert_eq!(
                classify(code, true, true, "completed"),
                Outcome::Voicemail,
                "{code:?}"
            );
        }
        // Somebody picked up, and our server did not tell the carrier what to do.
        for code in [7011, 7012, 7024, 7034, 8011, 8014] {
            assert_eq!(
                classify(Some(code), true, false, "completed"),
                Outcome::ConfigError
            );
            assert_eq!(
                classify(Some(code), true, true, "completed"),
                Outcome::ConfigError
            );
        }
        assert_eq!(
            classify(Some(9100), true, false, "completed"),
            Outcome::Voicemail
        );
    }

    #[test]
    fn names_are_the_serialised_form() {
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
            assert_eq!(Outcome::parse(outcome.as_str()), Ok(outcome));
            assert_eq!(outcome.to_string(), outcome.as_str());
        }
        for reason in SkipReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(reason.to_string(), reason.as_str());
        }
        assert_eq!(Outcome::parse("Answered"), Err(UnknownOutcome));
    }

    #[test]
    fn the_breaker_counts_faults_of_carrier_and_ours() {
        let counted: Vec<_> = Outcome::ALL
            .into_iter()
            .filter(|outcome| outcome.counts_as_failure())
            .collect();
        assert_eq!(
            counted,
            [
                Outcome::CarrierError,
                Outcome::ConfigError,
                Outcome::BotNotReady
            ]
        );
    }

    #[test]
    fn statuses() {
        for (outcome, status) in [
            (Outcome::Answered, "completed"),
            (Outcome::Busy, "busy"),
            (Outcome::NoAnswer, "no-answer"),
            (Outcome::Rejected, "rejected"),
            (Outcome::InvalidNumber, "failed"),
            (Outcome::Unreachable, "failed"),
            (Outcome::Voicemail, "completed"),
            (Outcome::CarrierError, "failed"),
            (Outcome::Throttled, "failed"),
            (Outcome::ConfigError, "failed"),
            (Outcome::BotNotReady, "failed"),
            (Outcome::Canceled, "canceled"),
            (Outcome::Uncertain, "uncertain"),
        ] {
            assert_eq!(status_for(outcome, false, "completed"), status);
            assert_eq!(status_for(outcome, true, "completed"), "completed");
        }
        assert_eq!(status_for(Outcome::NoAnswer, false, "timeout"), "timeout");
        assert_eq!(status_for(Outcome::Busy, false, "timeout"), "busy");
    }

    proptest! {
        #[test]
        fn every_ended_call_has_a_class(
            code in option::of(0..20_000_u32),
            answered in any::<bool>(),
            machine in any::<bool>(),
            status in "[a-z-]{0,12}",
        ) {
            let outcome = classify(code, answered, machine, &status);
            // These two are never the carrier's to say.
            prop_assert!(!matches!(outcome, Outcome::BotNotReady | Outcome::Uncertain));
            // Whoever was reached is not called again as if nobody had picked up.
            let retried = matches!(outcome, Outcome::Busy | Outcome::NoAnswer | Outcome::Rejected | Outcome::Unreachable);
            prop_assert!(!(answered && retried));
            if condemns(code).is_some() && !answered && !machine {
                prop_assert_eq!(outcome, Outcome::ConfigError);
            }
        }
    }
}
