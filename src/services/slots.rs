//! Chooses the numbered slots of a new call. Choosing is a guess from a recent picture; taking is the insert of the call,
//! where the unique index has the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;

use super::store::{Store, StoreResult};
use super::wake::{Waiter, Wake};
use crate::domain::ids::{CampaignId, ClientId};
use crate::domain::pacing::{free_numbers, global_ranges};
use crate::domain::phone::PhoneNumber;
use crate::domain::slots::{numbers_of, safe_bound};
use crate::utils::backoff;

/// How long the guarantees of all clients are remembered. They decide about fairness only, never about limits.
const GUARANTEES_AGE: Duration = Duration::from_secs(1);
/// How often other processes' releases are looked for.
const POLL: Duration = Duration::from_millis(150);

/// The limits that a new call must fit in, besides the global one. A call holds a slot of every scope also where there is no
/// limit now (`None`): should one be set while it lives, it is counted.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The client and its limit.
    pub client: (ClientId, u32),
    /// The campaign and its limit; none for a single call.
    pub campaign: Option<(CampaignId, Option<u32>)>,
    /// The caller ID and its limit.
    pub number: (PhoneNumber, Option<u32>),
}

type Guarantees = Arc<BTreeMap<String, u32>>;

/// The chooser. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Slots {
    store: Store,
    global_max: u32,
    wake: Wake,
    guarantees: Arc<Mutex<Option<(Instant, Guarantees)>>>,
}

impl Slots {
    /// Slots `global/0` to `global/<global_max - 1>` of the account, and those of narrower scopes.
    #[must_use]
    pub fn new(store: Store, global_max: u32, wake: Wake) -> Self {
        Self {
            store,
            global_max,
            wake,
            guarantees: Arc::default(),
        }
    }

    /// A free slot of every scope at random, or `None` when one of them is full now.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn choose(&self, limits: &Limits) -> StoreResult<Option<Vec<String>>> {
        let taken = self.store.slots_taken().await?;
        let Some(global) = self.choose_global(limits.client.0, &taken).await? else {
            return Ok(None);
        };
        let mut slots = vec![format!("global/{global}")];
        for (scope, limit) in narrower(limits) {
            let used = numbers_of(&scope, &taken);
            let bound = safe_bound(limit.unwrap_or(u32::MAX).min(self.global_max), &used);
            let free = free_numbers(bound, &used);
            let Some(number) = free.choose(&mut rand::rng()) else {
                return Ok(None);
            };
            slots.push(format!("{scope}/{number}"));
        }
        Ok(Some(slots))
    }

    /// Whether no scope holds more calls than its limit, the caller's own call, which holds its slots, included.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn is_within(&self, limits: &Limits) -> StoreResult<bool> {
        let taken = self.store.slots_taken().await?;
        let scopes = [("global".to_owned(), Some(self.global_max))];
        Ok(scopes
            .into_iter()
            .chain(narrower(limits))
            .all(|(scope, limit)| {
                limit.is_none_or(|limit| numbers_of(&scope, &taken).len() <= limit as usize)
            }))
    }

    /// A waiter for released slots; make it before choosing.
    #[must_use]
    pub fn waiter(&self) -> Waiter {
        self.wake.waiter()
    }

    /// Waits until a slot may be free: at once after a release here, else for one poll.
    pub async fn wait(&self, waiter: &mut Waiter) {
        waiter.wait(backoff::jitter(POLL)).await;
    }

    /// The client's guaranteed numbers first, so that the shared ones stay free for those without a guarantee.
    async fn choose_global(
        &self,
        client: ClientId,
        taken: &BTreeSet<String>,
    ) -> StoreResult<Option<u32>> {
        let used = numbers_of("global", taken);
        let bound = safe_bound(self.global_max, &used);
        let ranges = global_ranges(self.global_max, &*self.guarantees().await?);
        let (reserved, shared) = ranges.candidates(&client.to_string());
        for range in [reserved, shared] {
            let free: Vec<u32> = range
                .filter(|number| *number < bound && !used.contains(number))
                .collect();
            if let Some(number) = free.choose(&mut rand::rng()) {
                return Ok(Some(*number));
            }
        }
        Ok(None)
    }

    async fn guarantees(&self) -> StoreResult<Guarantees> {
        let known = self
            .guarantees
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((_, guarantees)) =
            known.filter(|(read_at, _)| read_at.elapsed() < GUARANTEES_AGE)
        {
            return Ok(guarantees);
        }
        let read_at = Instant::now();
        let found = self.store.client_guarantees().await?;
        let guarantees: Guarantees = Arc::new(
            found
                .into_iter()
                .map(|(client, count)| (client.to_string(), count))
                .collect(),
        );
        *self
            .guarantees
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((read_at, Arc::clone(&guarantees)));
        Ok(guarantees)
    }
}

/// The scopes below the account's, with their limits.
fn narrower(limits: &Limits) -> impl Iterator<Item = (String, Option<u32>)> {
    let (client, number) = (&limits.client, &limits.number);
    [
        Some((format!("client/{}", client.0), Some(client.1))),
        limits
            .campaign
            .map(|(id, limit)| (format!("campaign/{id}"), limit)),
        Some((format!("number/{}", number.0.as_str()), number.1)),
    ]
    .into_iter()
    .flatten()
}
