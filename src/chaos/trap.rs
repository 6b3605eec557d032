//! A trap for dials: holds a container's dial up between its last look at the campaign and its guard, by what goes over its database
//! connections. At no other time does anything but the guard keep a paused campaign from dialing (promise P5), and by chance a
//! pause hardly ever comes just then.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    /// Who waits for it to spring.
    tell: Option<oneshot::Sender<Vec<String>>>,
    /// Since it has sprung: until when it holds what is like the first. Whose look that was is not known.
    until: Option<Instant>,
}

impl Trap {
    /// Sets it for the next dial of a container. Resolves to the campaigns one of which has a dial that is held up now.
    pub(super) fn set(&self, container: usize, hold: Duration) -> oneshot::Receiver<Vec<String>> {
        let (tell, caught) = oneshot::channel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Set {
            container,
            hold,
            campaigns: BTreeSet::new(),
            tell: Some(tell),
            until: None,
        });
        caught
    }

    /// What a container sends to the database; for how long to hold it up, if it is to be.
    pub(super) fn passes(&self, container: usize, bytes: &[u8]) -> Option<Duration> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let set = slot.as_mut().filter(|set| set.container == container)?;
        let is_look = || position(bytes, LAST_LOOK).is_some();
        if let Some(until) = set.until {
            let left = until.saturating_duration_since(Instant::now());
            return (!left.is_zero() && is_look()).then_some(left);
        }
        if position(bytes, INTENT).is_some() {
            set.campaigns.extend(campaign_in(bytes));
            return None;
        }
        if set.campaigns.is_empty() || !is_look() {
            return None;
        }
        let campaigns = std::mem::take(&mut set.campaigns);
        // Nobody waits any more: it does not spring.
        set.tell
            .take()?
            .send(campaigns.into_iter().collect())
            .ok()?;
        set.until = Some(Instant::now() + set.hold);
        Some(set.hold)
    }
}

fn campaign_in(bytes: &[u8]) -> Option<String> {
    let at = position(bytes, CAMPAIGN)? + CAMPAIGN.len();
    let id = bytes.get(at..at + 12)?;
    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
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
    fn looks_after_an_intent_are_held_up() {
        let intent = [INTENT, b"..", CAMPAIGN, &[0x1f; 12]].concat();
        let (trap, hold) = (Trap::default(), Duration::from_secs(2));
        let mut caught = trap.set(1, hold);
        assert_eq!(trap.passes(1, LAST_LOOK), None, "no intent yet");
        assert_eq!(trap.passes(0, &intent), None);
        assert_eq!(trap.passes(1, &intent), None);
        assert_eq!(trap.passes(0, LAST_LOOK), None, "another container");
        assert_eq!(trap.passes(1, LAST_LOOK), Some(hold));
        assert_eq!(caught.try_recv().unwrap(), ["1f".repeat(12)]);
        let after = trap.passes(1, LAST_LOOK).unwrap();
        assert!(after <= hold, "as long as the first at most");
        assert_eq!(trap.passes(1, &intent), None);
        assert_eq!(trap.passes(0, LAST_LOOK), None, "another container");
    }
}
