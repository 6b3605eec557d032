//! Ghosts: dials that were given up as never sent and show up after all. They must not bother anybody (promise P2).

use std::time::{Duration, Instant};

use super::Calls;
use crate::domain::call::Call;
use crate::domain::call_event::{CallEvent, EventKind};
use crate::domain::ids::CallId;
use crate::utils::backoff;
use crate::utils::crash_points::crash_point;

/// The carrier may not see a call that has just begun: it has to say so often that it knows of none.
const UNSEEN: u32 = 5;
/// For so long a carrier that cannot be asked is asked all the same.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two orders, growing.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Calls {
    /// A call that we gave up as never dialed exists after all: end it before anybody is bothered twice.
    pub(super) fn hang_up_ghost(&self, call: &Call, event: &CallEvent) {
        tracing::warn!(callId = %call.id, event = event.kind.name(), dial = event.dial, "ghost call");
        let uuid = event
            .call_uuid
            .clone()
            .or_else(|| event.request_uuid.clone());
        let is_over = matches!(event.kind, EventKind::End(_) | EventKind::Recording { .. });
        if let Some(uuid) = uuid.filter(|_| !is_over) {
            let (calls, id) = (self.clone(), call.id);
            self.life.spawn_work(async move {
                crash_point!("ghost.before_hanging_up");
                calls.insist_on_end(id, &uuid).await;
            });
        }
    }

    /// Orders the carrier to end the call until it takes the order, or does not know the call for good.
    /// Twice does no harm; every moment of ringing does.
    async fn insist_on_end(&self, id: CallId, uuid: &str) {
        let (begun, mut unseen, mut is_told) = (Instant::now(), 0, false);
        for turn in 0.. {
            match self.carrier.hang_up(uuid).await {
                Ok(true) => return,
                Ok(false) => unseen += 1,
                Err(error) if begun.elapsed() >= PATIENCE || self.life.is_stopping() => {
                    tracing::error!(callId = %id, %error, "a ghost call could not be hung up");
                    return;
                }
                Err(error) if !is_told => {
                    is_told = true;
                    tracing::warn!(callId = %id, %error, "a ghost call is not hung up yet");
                }
                Err(_) => {}
            }
            if unseen == UNSEEN {
                return;
            }
            // When the process is to stop, the order is given once more, without a pause.
            self.life
                .sleep(backoff::exponential(PAUSE, turn, LONGEST_PAUSE))
                .await;
        }
    }
}
