//! Retries are data: which outcomes, after how long, how often. The driver executes the answer and decides nothing.

use chrono::Duration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::outcome::Outcome;

/// Most attempts that a policy may ask for, the first included.
const MAX_ATTEMPTS: u32 = 10;
/// Longest delay before a retry: 7 days, in seconds.
const MAX_DELAY_SECONDS: u32 = 7 * 24 * 60 * 60;

/// The outcomes after which another attempt can make sense. The others are final: the contact was reached, does not exist,
/// or the fault is ours and stays until somebody mends it.
const RETRYABLE: [Outcome; 8] = [
    Outcome::Busy,
    Outcome::NoAnswer,
    Outcome::Rejected,
    Outcome::Unreachable,
    Outcome::CarrierError,
    Outcome::Throttled,
    Outcome::Voicemail,
    Outcome::BotNotReady,
];

/// When and how often a contact is dialed again. The default never retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Attempts in all, the first one included: 1 to 10.
    pub max_attempts: u32,
    /// Seconds to wait before the second attempt, the third and so on; the last one repeats. Each 1 second to 7 days.
    pub delays_seconds: Vec<u32>,
    /// The outcomes that are retried.
    pub outcomes: Vec<Outcome>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 1,
            delays_seconds: Vec::new(),
            outcomes: Vec::new(),
        }
    }
}

impl RetryPolicy {
    /// Checks every rule.
    ///
    /// # Errors
    /// All faults at once, each as field path (relative to the policy) and reason.
    pub fn validate(&self) -> Result<(), Vec<(String, String)>> {
        let mut faults = Vec::new();
        if !(1..=MAX_ATTEMPTS).contains(&self.max_attempts) {
            faults.push((
                "maxAttempts".to_owned(),
                format!("must be between 1 and {MAX_ATTEMPTS}"),
            ));
        }
        if self.max_attempts > 1 && self.delays_seconds.is_empty() {
            faults.push((
                "delaysSeconds".to_owned(),
                "needs at least one delay when there are retries".to_owned(),
            ));
        }
        if self.max_attempts > 1 && self.outcomes.is_empty() {
            faults.push((
                "outcomes".to_owned(),
                "needs at least one outcome when there are retries".to_owned(),
            ));
        }
        if self.delays_seconds.len() > MAX_ATTEMPTS as usize {
            faults.push((
                "delaysSeconds".to_owned(),
                format!("must have at most {MAX_ATTEMPTS} delays"),
            ));
        }
        for (index, delay) in self.delays_seconds.iter().enumerate() {
            if !(1..=MAX_DELAY_SECONDS).contains(delay) {
                let reason = format!("must be between 1 and {MAX_DELAY_SECONDS} seconds (7 days)");
                faults.push((format!("delaysSeconds[{index}]"), reason));
            }
        }
        for (index, outcome) in self.outcomes.iter().enumerate() {
            if !RETRYABLE.contains(outcome) {
                faults.push((
                    format!("outcomes[{index}]"),
                    format!("{outcome} cannot be retried"),
                ));
            } else if self.outcomes[..index].contains(outcome) {
                faults.push((
                    format!("outcomes[{index}]"),
                    format!("{outcome} is listed twice"),
                ));
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        }
    }

    /// How long to wait before dialing again, after attempt number `attempt` (the first is 1) ended with `outcome`; `None`
    /// if that was the last one. Outcomes that no policy may retry are never retried, whatever a document says.
    pub fn next(&self, outcome: Outcome, attempt: u32) -> Option<Duration> {
        if attempt >= self.max_attempts
            || !RETRYABLE.contains(&outcome)
            || !self.outcomes.contains(&outcome)
        {
            return None;
        }
        let index = usize::try_from(attempt.saturating_sub(1)).ok()?;
        let delay = self
            .delays_seconds
            .get(index)
            .or(self.delays_seconds.last())?;
        Some(Duration::seconds(i64::from(*delay)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;

    fn policy(max_attempts: u32, delays: &[u32], outcomes: &[Outcome]) -> RetryPolicy {
        RetryPolicy {
            max_attempts,
            delays_seconds: delays.to_vec(),
            outcomes: outcomes.to_vec(),
        }
    }

    #[track_caller]
    fn check_faults(policy: &RetryPolicy, expected: &[&str]) {
        let faults = policy.validate().err().unwrap_or_default();
        assert_eq!(
            faults.into_iter().map(|(path, _)| path).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn the_last_delay_repeats() {
        let policy = policy(4, &[60, 300], &[Outcome::Busy]);
        assert_eq!(policy.next(Outcome::Busy, 1), Some(Duration::seconds(60)));
        assert_eq!(policy.next(Outcome::Busy, 2), Some(Duration::seconds(300)));
        assert_eq!(policy.next(Outcome::Busy, 3), Some(Duration::seconds(300)));
        assert_eq!(policy.next(Outcome::Busy, 4), None);
        assert_eq!(policy.next(Outcome::NoAnswer, 1), None);
    }

    #[test]
    fn the_default_is_valid_and_never_retries() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.validate(), Ok(()));
        assert!(
            Outcome::ALL
                .into_iter()
                .all(|outcome| policy.next(outcome, 1).is_none())
        );
    }

    #[test]
    fn faults_are_named() {
        let week = 7 * 24 * 60 * 60;
        check_faults(
            &policy(10, &[1, week], &[Outcome::Busy, Outcome::Voicemail]),
            &[],
        );
        check_faults(&policy(0, &[], &[]), &["maxAttempts"]);
        check_faults(&policy(11, &[60], &[Outcome::Busy]), &["maxAttempts"]);
        check_faults(&policy(2, &[], &[]), &["delaysSeconds", "outcomes"]);
        check_faults(
            &policy(2, &[60, 0, week + 1], &[Outcome::Busy]),
            &["delaysSeconds[1]", "delaysSeconds[2]"],
        );
        check_faults(&policy(2, &[60; 11], &[Outcome::Busy]), &["delaysSeconds"]);
        check_faults(
            &policy(2, &[60], &[Outcome::Answered, Outcome::Busy, Outcome::Busy]),
            &["outcomes[0]", "outcomes[2]"],
        );
    }

    #[test]
    fn json_form() {
        let json = r#"{"maxAttempts":3,"delaysSeconds":[60,600],"outcomes":["busy","no_answer"]}"#;
        let policy: RetryPolicy = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), json);
        for bad in [
            json.replace("busy", "Busy"),
            json.replace("outcomes", "outcome"),
            json.replace('3', "-3"),
        ] {
            assert!(serde_json::from_str::<RetryPolicy>(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_contact_is_never_dialed_more_often_than_allowed(
            max_attempts in 1..=MAX_ATTEMPTS,
            delays in vec(1..=MAX_DELAY_SECONDS, 1..5),
            outcomes in subsequence(RETRYABLE.to_vec(), 1..=RETRYABLE.len()),
            ended in vec(select(Outcome::ALL.to_vec()), 20),
        ) {
            let policy = RetryPolicy { max_attempts, delays_seconds: delays, outcomes };
            prop_assert_eq!(policy.validate(), Ok(()));
            let mut attempt = 1;
            for outcome in ended {
                match policy.next(outcome, attempt) {
                    Some(delay) => {
                        prop_assert!(policy.outcomes.contains(&outcome));
                        prop_assert!(delay >= Duration::seconds(1));
                        attempt += 1;
                    }
                    None => break,
                }
            }
            prop_assert!(attempt <= max_attempts);
        }

        #[test]
        fn final_outcomes_are_final_in_any_document(
            max_attempts in any::<u32>(),
            delays in vec(any::<u32>(), 0..3),
            attempt in any::<u32>(),
        ) {
            let policy = RetryPolicy { max_attempts, delays_seconds: delays, outcomes: Outcome::ALL.to_vec() };
            for outcome in Outcome::ALL {
                if policy.next(outcome, attempt).is_some() {
                    prop_assert!(RETRYABLE.contains(&outcome));
                }
            }
        }
    }
}
