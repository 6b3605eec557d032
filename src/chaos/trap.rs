//! A trap for dials: holds a container's dial up between its last look at the campaign and its guard, by what goes over its database
//! connections. At no other time does anything but the guard keep a paused campaign from dialing (promise P5), and by chance a
//! pause hardly ever comes just then.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::oid::ObjectId;
use tokio::sync::oneshot;

/// A command that writes an intent, and the field in it that names the campaign (an ObjectId).
const INTENT: &[u8] = b"\x02insert\0\x0c\0\0\0activeCalls\0";
const CAMPAIGN: &[u8] = b"\x07campaignId\0";
/// The last look at the limits, which comes after the last look at the campaign, names its index.
const LAST_LOOK: &[u8] = b"slots_unique";

/// The trap. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Trap(Arc<Mutex<Option<Set>>>);

#[derive(Debug)]
struct Set {
    container: usize,
    hold: Duration,
    /// Campaigns whose intents came by.
    campaigns: BTreeSet<String>,
    tell: oneshot::Sender<Vec<String>>,
}

impl Trap {
    /// Sets it for the next dial of a container. Resolves to the campaigns one of which has a dial that is held up now.
    pub(super) fn set(&self, container: usize, hold: Duration) -> oneshot::Receiver<Vec<String>> {
        let (tell, caught) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Set {
            container,
            hold,
            campaigns: BTreeSet::new(),
            tell,
        });
        caught
    }

    /// What a container sends to the database; for how long to hold it up, if it is to be.
    pub(super) fn passes(&self, container: usize, bytes: &[u8]) -> Option<Duration> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let set = slot
            .as_mut()
            .filter(|set| set.container == container && !set.tell.is_closed())?;
        if position(bytes, INTENT).is_some() {
            set.campaigns.extend(campaign_in(bytes));
        } else if !set.campaigns.is_empty() && position(bytes, LAST_LOOK).is_some() {
            let set = slot.take()?;
            set.tell.send(set.campaigns.into_iter().collect()).ok()?;
            return Some(set.hold);
        }
        None
    }
}

fn campaign_in(bytes: &[u8]) -> Option<String> {
    let at = position(bytes, CAMPAIGN)? + CAMPAIGN.len();
    let id: [u8; 12] = bytes.get(at..at + 12)?.try_into().ok()?;
    Some(ObjectId::from_bytes(id).to_hex())
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_look_after_an_intent_is_held_up_once() {
        let id = ObjectId::from_bytes([7; 12]);
        let intent = [INTENT, b"..", CAMPAIGN, &id.bytes()].concat();
        let (trap, hold) = (Trap::default(), Duration::from_secs(2));
        let mut caught = trap.set(1, hold);
        assert_eq!(trap.passes(1, LAST_LOOK), None, "no intent yet");
        assert_eq!(trap.passes(0, &intent), None);
        assert_eq!(trap.passes(1, &intent), None);
        assert_eq!(trap.passes(0, LAST_LOOK), None, "another container");
        assert_eq!(trap.passes(1, LAST_LOOK), Some(hold));
        assert_eq!(caught.try_recv().unwrap(), [id.to_hex()]);
        assert_eq!(trap.passes(1, LAST_LOOK), None, "once");
    }
}
