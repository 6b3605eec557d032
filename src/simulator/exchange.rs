//! The carrier's state behind one lock, and its decision on each dial request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::books::{Delivery, Ledger, Refusal};
use super::calls::{Call, Command, Phase};
use super::dial::{Address, DialRequest};
use super::faults::{DeafeningFault, Fate, RefusingFault};
use super::hangup::Hangup;
use super::options::{OptionsError, SimulatorOptions};
use super::plan::Plan;
use super::webhooks::EventKind;

/// Everything that changes while the carrier runs. No method waits for anything.
pub(super) struct Exchange {
    pub(super) options: SimulatorOptions,
    pub(super) ledger: Ledger,
    rng: StdRng,
    /// When the newest calls start, as many as may start in a second, oldest first.
    starts: VecDeque<Instant>,
    /// When the latest API requests came, within the rate limit's window.
    api_requests: VecDeque<Instant>,
}

/// A call that was taken on, to be brought to life.
pub(super) struct Accepted {
    pub(super) uuid: Arc<str>,
    pub(super) request: Arc<DialRequest>,
    pub(super) plan: Plan,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) start_at: Instant,
    /// It has to wait for its turn.
    pub(super) queued: bool,
    pub(super) deafening: Option<DeafeningFault>,
    /// How long the answer of the request takes.
    pub(super) answer_delay: Duration,
}

/// Why a dial request is refused: for the books, and in words for the client.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) text: String,
    pub(super) retry_after_seconds: Option<u64>,
}

impl Refused {
    pub(super) fn new(status: u16, reason: &'static str, text: impl Into<String>) -> Self {
        Self {
            refusal: Refusal {
                status: Some(status),
                reason,
            },
            text: text.into(),
            retry_after_seconds: None,
        }
    }
}

impl Exchange {
    pub(super) fn new(options: SimulatorOptions) -> Self {
        Self {
            rng: seeded(options.seed),
            options,
            ledger: Ledger::default(),
            starts: VecDeque::new(),
            api_requests: VecDeque::new(),
        }
    }

    /// Changes some options; a new seed starts the random choices anew.
    pub(super) fn patch(&mut self, patch: &Value) -> Result<(), OptionsError> {
        let options = self.options.patched(patch)?;
        if options.seed != self.options.seed {
            self.rng = seeded(options.seed);
        }
        self.options = options;
        Ok(())
    }

    /// Counts an API request; false if it is over the rate limit.
    pub(super) fn within_rate_limit(&mut self, now: Instant) -> bool {
        let limit = self.options.api_limit;
        let window = Duration::from_millis(limit.window_ms);
        while self
            .api_requests
            .front()
            .is_some_and(|&first| now.duration_since(first) >= window)
        {
            self.api_requests.pop_front();
        }
        if limit.requests > 0 && self.api_requests.len() >= limit.requests {
            return false;
        }
        self.api_requests.push_back(now);
        true
    }

    /// Whether the next dial request waits before it is looked at, and how long.
    pub(super) fn dial_delay(&mut self) -> Duration {
        let faults = &mut self.options.dial_faults;
        if faults.slow_before.strikes(&mut self.rng) {
            faults.slow()
        } else {
            Duration::ZERO
        }
    }

    /// Whether a look-up fails.
    pub(super) fn lookup_fails(&mut self) -> bool {
        self.options
            .lookup_faults
            .unavailable
            .strikes(&mut self.rng)
    }

    /// What happens to a webhook that is about to be sent.
    pub(super) fn fate(&mut self, kind: EventKind) -> Fate {
        self.options.webhook_faults.fate(kind, &mut self.rng)
    }

    /// Whether a webhook is kept back until the call's next one was sent.
    pub(super) fn held(&mut self, kind: EventKind, next_is_hangup: bool) -> bool {
        self.options
            .webhook_faults
            .held(kind, next_is_hangup, &mut self.rng)
    }

    /// Decides on a dial request and writes the decision in the books.
    pub(super) fn decide(
        &mut self,
        requested_at: DateTime<Utc>,
        now: DateTime<Utc>,
        body: Result<Value, Refused>,
    ) -> Result<Accepted, Refused> {
        let (addresses, judged) = match body {
            Ok(body) => (DialRequest::addresses(&body), self.judge(&body)),
            Err(refused) => (
                (Address::default(), Address::default(), BTreeMap::new()),
                Err(refused),
            ),
        };
        match judged {
            Ok(request) => Ok(self.accept(requested_at, now, Arc::new(request))),
            Err(refused) => {
                self.ledger
                    .refuse(requested_at, addresses, refused.refusal.clone());
                Err(refused)
            }
        }
    }

    fn judge(&mut self, body: &Value) -> Result<DialRequest, Refused> {
        let request =
            DialRequest::parse(body).map_err(|text| Refused::new(400, "invalid request", text))?;
        request
            .check_caller_id(&self.options)
            .map_err(|text| Refused::new(400, "caller id", text))?;
        if self.is_full() {
            return Err(Refused::new(
                403,
                "concurrency limit",
                "Concurrency Limit Breached",
            ));
        }
        let faults = &mut self.options.dial_faults;
        match faults.refusing(&mut self.rng) {
            None => Ok(request),
            Some(RefusingFault::TooManyRequests) => Err(Refused {
                retry_after_seconds: faults.retry_after_seconds,
                ..Refused::new(429, "too many requests (fault)", "Too Many Requests")
            }),
            Some(RefusingFault::Forbidden) => Err(Refused::new(
                403,
                "forbidden (fault)",
                "permission to call this destination is not enabled",
            )),
            Some(RefusingFault::Error) => Err(Refused::new(
                faults.error_status,
                "server error (fault)",
                "internal server error",
            )),
            Some(RefusingFault::Reset) => Err(Refused {
                refusal: Refusal {
                    status: None,
                    reason: "connection reset (fault)",
                },
                text: String::new(),
                retry_after_seconds: None,
            }),
        }
    }

    fn accept(
        &mut self,
        requested_at: DateTime<Utc>,
        now: DateTime<Utc>,
        request: Arc<DialRequest>,
    ) -> Accepted {
        let uuid: Arc<str> = uuid::Uuid::new_v4().to_string().into();
        let (sender, commands) = mpsc::unbounded_channel();
        self.ledger.accept(
            requested_at,
            Call::new(Arc::clone(&uuid), Arc::clone(&request), now, sender),
        );
        let asked_at = Instant::now();
        let start_at = self.next_start(asked_at);
        let queued = start_at > asked_at;
        if !queued {
            self.ledger.advance(&uuid, Phase::Initiated, now);
        }
        let plan = Plan::draw(&self.options, &request, &mut self.rng);
        let faults = &mut self.options.dial_faults;
        let slow = faults.slow_after.strikes(&mut self.rng);
        Accepted {
            uuid,
            request,
            plan,
            commands,
            start_at,
            queued,
            deafening: faults.deafening(&mut self.rng),
            answer_delay: if slow { faults.slow() } else { Duration::ZERO },
        }
    }

    /// When a call that is accepted now may start, so that no second sees more starts than the CPS limit.
    fn next_start(&mut self, now: Instant) -> Instant {
        let cps = usize::try_from(self.options.cps).unwrap_or(usize::MAX);
        if cps == 0 {
            return now;
        }
        while self.starts.len() > cps {
            self.starts.pop_front();
        }
        let earliest = if self.starts.len() < cps {
            None
        } else {
            self.starts.pop_front()
        };
        let start = earliest.map_or(now, |earlier| now.max(earlier + Duration::from_secs(1)));
        self.starts.push_back(start);
        start
    }

    /// Whether the concurrency limit leaves no room for another ringing or talking call.
    pub(super) fn is_full(&self) -> bool {
        self.options.concurrency_limit.is_some_and(|limit| {
            self.ledger.living().filter(|call| call.is_live()).count() >= limit
        })
    }

    /// Ends a living call at once and tells its task; false if there is none.
    pub(super) fn hang_up(&mut self, uuid: &str, hangup: Hangup, now: DateTime<Utc>) -> bool {
        let Some(call) = self.ledger.call(uuid).filter(|call| call.hangup.is_none()) else {
            return false;
        };
        // The task may have just ended by itself, then nobody listens any more and nothing is left to do.
        let _ended = call.commands.send(Command::Hangup(hangup));
        self.ledger.end(uuid, hangup, now);
        true
    }

    pub(super) fn log_delivery(&mut self, uuid: &str, delivery: Delivery) {
        self.ledger.log_delivery(uuid, delivery);
    }

    pub(super) fn auth_tokens(&self) -> Vec<String> {
        self.options.auth_tokens.clone()
    }

    pub(super) fn webhook_retry_spacing(&self) -> Duration {
        Duration::from_millis(self.options.webhook_retry_spacing_ms)
    }
}

fn seeded(seed: Option<u64>) -> StdRng {
    StdRng::seed_from_u64(seed.unwrap_or_else(rand::random))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_second_sees_more_starts_than_cps(cps in 1_u32..6, gaps in proptest::collection::vec(0_u64..700, 1..60)) {
            let mut exchange = Exchange::new(SimulatorOptions { cps, ..SimulatorOptions::default() });
            let mut now = Instant::now();
            let mut starts = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                let start = exchange.next_start(now);
                proptest::prop_assert!(start >= now);
                starts.push(start);
            }
            for window in starts.windows(cps as usize + 1) {
                proptest::prop_assert!(window[cps as usize] - window[0] >= Duration::from_secs(1));
            }
        }
    }

    #[test]
    fn the_rate_limit_slides() {
        let mut exchange = Exchange::new(SimulatorOptions::default());
        exchange.options.api_limit = super::super::options::ApiLimit {
            requests: 2,
            window_ms: 1_000,
        };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(exchange.within_rate_limit(at(0)) && exchange.within_rate_limit(at(500)));
        assert!(!exchange.within_rate_limit(at(999)));
        assert!(exchange.within_rate_limit(at(1_000)));
        assert!(!exchange.within_rate_limit(at(1_400)));
    }
}
