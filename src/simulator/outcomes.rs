//! What becomes of calls, and how often.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::hangup::Hangup;
use super::options::OptionsError;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Rings, a person answers, talks and hangs up (4000).
    Answered,
    /// Rings, an answering machine answers; without machine detection the same as answered.
    Machine,
    /// Never rings, the line is busy (3010).
    Busy,
    /// Rings until the network gives up (3000).
    NoAnswer,
    /// Rings until the caller's ring time-out (6010).
    RingTimeout,
    /// Rings and is declined (3020).
    Rejected,
    /// Never rings, not a number (2000).
    Invalid,
    /// Never rings, out of service (2010).
    Unreachable,
    /// Never rings, the carrier fails (3080).
    Failed,
    /// Never rings and ends with this cause code of Plivo's table.
    Cause(u16),
}

impl Outcome {
    pub(super) fn is_known(self) -> bool {
        !matches!(self, Self::Cause(code) if Hangup::known(code).is_none())
    }

    /// How the call ends if nobody answers it: none where somebody does.
    pub(super) fn unanswered(self) -> Option<Hangup> {
        let code = match self {
            Self::Answered | Self::Machine => return None,
            Self::Busy => 3010,
            Self::NoAnswer => 3000,
            Self::RingTimeout => 6010,
            Self::Rejected => 3020,
            Self::Invalid => 2000,
            Self::Unreachable => 2010,
            Self::Failed => 3080,
            Self::Cause(code) => code,
        };
        Some(Hangup::of(code))
    }

    pub(super) fn rings(self) -> bool {
        matches!(
            self,
            Self::Answered | Self::Machine | Self::NoAnswer | Self::RingTimeout | Self::Rejected
        )
    }
}

/// Weights of the outcomes; only their proportions count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(
    missing_docs,
    reason = "each field is the weight of the outcome of its name"
)]
pub struct OutcomeMix {
    pub answered: f64,
    pub machine: f64,
    pub busy: f64,
    pub no_answer: f64,
    pub ring_timeout: f64,
    pub rejected: f64,
    pub invalid: f64,
    pub unreachable: f64,
    pub failed: f64,
}

/// A plausible campaign: most answer, some do not.
impl Default for OutcomeMix {
    fn default() -> Self {
        Self {
            answered: 62.0,
            machine: 5.0,
            busy: 9.0,
            no_answer: 13.0,
            rejected: 5.0,
            invalid: 3.0,
            unreachable: 2.0,
            failed: 1.0,
            ..Self::NONE
        }
    }
}

impl OutcomeMix {
    /// No outcome at all: a base for struct updates.
    pub const NONE: Self = Self {
        answered: 0.0,
        machine: 0.0,
        busy: 0.0,
        no_answer: 0.0,
        ring_timeout: 0.0,
        rejected: 0.0,
        invalid: 0.0,
        unreachable: 0.0,
        failed: 0.0,
    };

    /// Everybody answers.
    pub const ANSWERED: Self = Self {
        answered: 1.0,
        ..Self::NONE
    };

    fn weights(&self) -> [(f64, Outcome); 9] {
        [
            (self.answered, Outcome::Answered),
            (self.machine, Outcome::Machine),
            (self.busy, Outcome::Busy),
            (self.no_answer, Outcome::NoAnswer),
            (self.ring_timeout, Outcome::RingTimeout),
            (self.rejected, Outcome::Rejected),
            (self.invalid, Outcome::Invalid),
            (self.unreachable, Outcome::Unreachable),
            (self.failed, Outcome::Failed),
        ]
    }

    pub(super) fn validate(&self) -> Result<(), OptionsError> {
        let weights = self.weights();
        let sane = weights
            .iter()
            .all(|(weight, _)| weight.is_finite() && *weight >= 0.0);
        if !sane || weights.iter().map(|(weight, _)| weight).sum::<f64>() <= 0.0 {
            return Err(OptionsError::new(
                "outcomeMix needs weights of 0 or more, at least one above 0",
            ));
        }
        Ok(())
    }

    pub(super) fn draw(&self, rng: &mut StdRng) -> Outcome {
        let weights = self.weights();
        let mut point = rng.random::<f64>() * weights.iter().map(|(weight, _)| weight).sum::<f64>();
        for (weight, outcome) in weights {
            if point < weight {
                return outcome;
            }
            point -= weight;
        }
        Outcome::Answered
    }
}
