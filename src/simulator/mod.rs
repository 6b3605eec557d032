//! A carrier that behaves like Plivo, on real HTTP, for tests and demonstrations.
//!
//! It offers Plivo's Call API below `/v1/Account/{auth_id}/`, dials nobody, sends signed webhooks in Plivo's exact form,
//! reads answer documents as strictly as Plivo does, makes every mistake that its options ask for, and keeps books below
//! `/simulator/`, so that the service's promises (limits never exceeded, nobody dialed twice) are proven from outside.
//!
//! It may know the domain, the utilities and the signature scheme, and nothing of the service that it tests: whatever
//! the two agree on has to be right by the reference, not by shared code.
//!
//! Where to look: `options` and `faults` say what can be chosen, `exchange` decides on dial requests, `life` is one call,
//! `webhooks` and `delivery` tell of it, `books` and `stats` remember it; `api`, `lookup` and `control` are the HTTP side.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::utils::clock::Clock;
use chrono::{DateTime, Utc};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod api;
mod books;
mod calls;
mod control;
mod delivery;
mod dial;
mod exchange;
mod faults;
mod hangup;
mod life;
mod listener;
mod lookup;
mod options;
mod outcomes;
mod plan;
mod stats;
mod webhooks;
mod xml_check;

pub use books::{Delivery, DialRecord, Moment, Refusal};
pub use dial::Address;
pub use faults::{DialFaults, EventFaults, Fault, LookupFaults, WebhookFaults};
pub use hangup::Hangup;
pub use options::{ApiLimit, MsRange, OptionsError, SimulatorOptions};
pub use outcomes::{Outcome, OutcomeMix};
pub use stats::{Duplicates, Stats, Usage};
pub use webhooks::EventKind;

use delivery::Clients;
use exchange::Exchange;
use listener::{Connection, CuttableListener};
use webhooks::Webhook;

/// Why a simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The options contradict themselves.
    #[error("invalid simulator options: {0}")]
    Options(#[from] OptionsError),
    /// The listener has no address.
    #[error("the simulator's listener is not usable")]
    Listener(#[from] io::Error),
}

/// Why a webhook cannot be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The carrier has no such call.
    #[error("no such call")]
    UnknownCall,
    /// The caller gave no URL for this event.
    #[error("the call has no URL for this event")]
    NoCallback,
    /// A hangup is told of a call that is over.
    #[error("the call is not over")]
    NotEnded,
}

/// A running simulated carrier. Dropping it stops everything that it does, at once.
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Simulator {
    /// Starts a carrier on a bound listener. Fails if the options are not valid or the listener has no address.
    pub async fn start(
        listener: TcpListener,
        options: SimulatorOptions,
    ) -> Result<Self, SimulatorError> {
        options.validate()?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            exchange: Mutex::new(Exchange::new(options)),
            clock: Clock::system(),
            clients: Clients::default(),
            tracker: TaskTracker::new(),
            stop: stop.clone(),
        });
        let service =
            api::router(Arc::clone(&shared)).into_make_service_with_connect_info::<Connection>();
        let listener = CuttableListener {
            listener,
            stop: stop.child_token(),
        };
        // Every connection is cut when the token is cancelled, so this drain does not wait for anybody.
        let serving = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
        shared.tracker.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the carrier simulator stopped serving");
            }
        });
        tracing::info!(%address, "carrier simulator started");
        Ok(Self { shared, address })
    }

    /// What to give a client as the API's base, such as `http://127.0.0.1:1234`; it appends `/v1/Account/…`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The books in numbers.
    pub fn stats(&self) -> Stats {
        self.shared.exchange().ledger.stats()
    }

    /// Every dial request so far, in the order of decision.
    pub fn calls(&self) -> Vec<DialRecord> {
        self.shared.exchange().ledger.records(0, usize::MAX)
    }

    /// Changes some options from now on, as `PATCH /simulator/options` does: a JSON merge patch. Calls that were accepted
    /// keep their outcome and timings.
    pub fn patch_options(&self, patch: &serde_json::Value) -> Result<(), OptionsError> {
        self.shared.exchange().patch(patch)
    }

    /// Starts new books with only the calls that still live.
    pub fn reset(&self) {
        self.shared.exchange().ledger.reset();
    }

    /// Sends an event of a call once more, freshly signed and untouched by faults, and returns the HTTP status of the
    /// answer, none if there was no answer. Ring and answer may be sent at any time, a hangup once the call is over.
    pub async fn replay(
        &self,
        request_uuid: &str,
        kind: EventKind,
    ) -> Result<Option<u16>, ReplayError> {
        self.shared.replay(request_uuid, kind).await
    }

    /// Stops the server, every call and every webhook, and waits until all of them are gone.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// What all tasks of one carrier share.
struct Shared {
    exchange: Mutex<Exchange>,
    clock: Clock,
    clients: Clients,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Shared {
    /// The state. The lock is never held across an await; a panic under it leaves nothing half-done that matters here.
    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Runs something beside, until it is done or the carrier stops.
    fn spawn<F>(&self, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker
            .spawn(self.stop.clone().run_until_cancelled_owned(future))
    }

    async fn replay(&self, uuid: &str, kind: EventKind) -> Result<Option<u16>, ReplayError> {
        let webhook = {
            let now = self.now();
            let exchange = self.exchange();
            let call = exchange.ledger.call(uuid).ok_or(ReplayError::UnknownCall)?;
            if kind == EventKind::Hangup && call.hangup.is_none() {
                return Err(ReplayError::NotEnded);
            }
            let callback = Webhook::target(kind, call).ok_or(ReplayError::NoCallback)?;
            Webhook::new(kind, call, callback, &exchange.options, now)
        };
        Ok(delivery::replay(self, &webhook).await)
    }
}
