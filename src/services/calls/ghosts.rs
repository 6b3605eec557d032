//! Ghosts: dials that were given up as never sent and show up after all. They must not bother anybody (promise P2).

use std::sync::Arc;
use std::time::Duration;

use super::Calls;
use crate::domain::call::Call;
use crate::domain::call_event::{CallEvent, EventKind};
use crate::utils::backoff;
use crate::utils::crash_points::crash_point;

/// How often the carrier is told to end a ghost call, and how soon again.
const TRIES: u32 = 5;
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
            let (carrier, id) = (Arc::clone(&self.carrier), call.id);
            // Twice does no harm; every moment of ringing does. The carrier may not see a call that has just begun.
            self.life.spawn_work(async move {
                crash_point!("ghost.before_hanging_up");
                for turn in 0..TRIES {
                    match carrier.hang_up(&uuid).await {
                        Ok(true) => return,
                        Ok(false) => {}
                        Err(error) => {
                            tracing::error!(callId = %id, %error, turn, "a ghost call could not be hung up");
                        }
                    }
                    tokio::time::sleep(backoff::exponential(PAUSE, turn, LONGEST_PAUSE)).await;
                }
            });
        }
    }
}
