//! Calls: the intent to dial (which takes the slots), every later change (one guarded write), and who still needs one.
//!
//! A live call's numbered slots stand in its own document under ONE unique index. Inserting the document *is* taking the
//! slots, ending the call *is* giving them back: there is no counter to leak or to drift (promises P1 and P10).

use bson::{Document, doc};
use futures_util::FutureExt;
use mongodb::IndexModel;

pub use super::call_doc::CallDoc;
use super::within::{Within, limited};
use super::{Store, StoreError, StoreResult, indexes, oid};
use crate::domain::call::Call;
use crate::domain::ids::CampaignId;
use crate::utils::crash_points::crash_point;

/// The index of ids.
pub const ID_INDEX: &str = "_id_";
/// The unique index that makes limits hold.
pub const SLOTS_INDEX: &str = "slots_unique";
/// The unique index that keeps an attempt from being made twice.
pub const ATTEMPT_INDEX: &str = "attempt_unique";

pub(super) fn indexes() -> Vec<IndexModel> {
    vec![
        indexes::unique(
            SLOTS_INDEX,
            doc! { "slots": 1 },
            doc! { "slots": { "$exists": true } },
        ),
        indexes::unique(
            ATTEMPT_INDEX,
            doc! { "campaignId": 1, "contactSeq": 1, "attempt": 1 },
            doc! { "contactSeq": { "$exists": true } },
        ),
        indexes::partial(
            "call_uuid",
            doc! { "callUUID": 1 },
            doc! { "callUUID": { "$exists": true } },
        ),
        indexes::partial(
            "request_uuid",
            doc! { "requestUUID": 1 },
            doc! { "requestUUID": { "$exists": true } },
        ),
        indexes::partial(
            "ghosts",
            doc! { "ghosts": 1 },
            doc! { "ghosts": { "$exists": true } },
        ),
        indexes::partial(
            "open",
            doc! { "campaignId": 1, "open": 1 },
            doc! { "open": true },
        ),
        indexes::partial(
            "retry_due",
            doc! { "campaignId": 1, "retryAt": 1 },
            doc! { "retryAt": { "$exists": true } },
        ),
        indexes::partial(
            "deadline",
            doc! { "deadline": 1 },
            doc! { "deadline": { "$exists": true } },
        ),
        indexes::index("standing", doc! { "campaignId": 1, "standing": 1 }),
        indexes::index("client_newest", doc! { "clientId": 1, "_id": -1 }),
        indexes::partial(
            "recent_ends",
            doc! { "campaignId": 1, "endTime": -1, "outcome": 1 },
            doc! { "endTime": { "$exists": true } },
        ),
    ]
}

impl Store {
    /// Writes the intent to dial; this takes the call's slots and claims the attempt.
    ///
    /// # Errors
    /// `Duplicate` of [`SLOTS_INDEX`] when a slot is taken, of [`ATTEMPT_INDEX`] when the attempt was made already.
    pub async fn call_insert(&self, call: &Call) -> StoreResult<()> {
        self.calls.insert_one(CallDoc::from(call)).within().await?;
        Ok(())
    }

    /// Writes the intent for the attempt after `previous`, which from then on no longer speaks for its contact. Both or neither.
    /// False when `previous` changed since it was read.
    ///
    /// # Errors
    /// As [`Store::call_insert`].
    pub async fn call_insert_next(&self, previous: &Call, call: &Call) -> StoreResult<bool> {
        let mut ended = previous.clone();
        ended.superseded = true;
        ended.retry_at = None;
        ended.version += 1;
        let context = (
            self.clone(),
            guard(previous),
            CallDoc::from(&ended),
            CallDoc::from(call),
        );
        let mut session = self.client.start_session().within().await?;
        let transaction = session.start_transaction().and_run(
            context,
            |session, (store, filter, ended, call)| {
                async move {
                    store
                        .calls
                        .insert_one(&*call)
                        .session(&mut *session)
                        .await?;
                    crash_point!("retry.between_writes");
                    let replaced = store
                        .calls
                        .replace_one(filter.clone(), &*ended)
                        .session(session)
                        .await?;
                    if replaced.matched_count == 1 {
                        Ok(())
                    } else {
                        Err(mongodb::error::Error::custom(Stale))
                    }
                }
                .boxed()
            },
        );
        is_done(limited(transaction).await?)
    }

    /// Writes the calls of skipped or deferred contacts. Those whose contact is claimed already are passed over.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_insert_undialed(&self, calls: &[Call]) -> StoreResult<()> {
        let docs: Vec<CallDoc> = calls.iter().map(CallDoc::from).collect();
        match self.calls.insert_many(docs).ordered(false).within().await {
            Ok(_) | Err(StoreError::Duplicate { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Replaces `seen` by `next` if nobody changed it since. False means: read again and decide anew.
    ///
    /// # Errors
    /// `Duplicate` of [`SLOTS_INDEX`] when `next` takes a slot that is taken.
    pub async fn call_replace(&self, seen: &Call, next: &Call) -> StoreResult<bool> {
        let mut doc = next.clone();
        doc.version = seen.version + 1;
        Ok(self
            .calls
            .replace_one(guard(seen), CallDoc::from(&doc))
            .within()
            .await?
            .matched_count
            == 1)
    }

    /// As [`Store::call_replace`], for a change that reopens an ended call for another attempt: only while its campaign is not over.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_replace_reopening(
        &self,
        seen: &Call,
        next: &Call,
        campaign: CampaignId,
    ) -> StoreResult<bool> {
        let mut doc = next.clone();
        doc.version = seen.version + 1;
        let alive = doc! { "_id": oid(campaign), "status": { "$in": ["running", "paused"] } };
        let context = (self.clone(), guard(seen), CallDoc::from(&doc), alive);
        let mut session = self.client.start_session().within().await?;
        let transaction =
            session
                .start_transaction()
                .and_run(context, |session, (store, filter, doc, alive)| {
                    async move {
                        let replaced = store
                            .calls
                            .replace_one(filter.clone(), &*doc)
                            .session(&mut *session)
                            .await?;
                        crash_point!("reopen.between_writes");
                        // The campaign last: others wait for it, and should this process die here they wait longest for it.
                        let touched = store
                            .campaigns
                            .update_one(alive.clone(), doc! { "$inc": { "reopened": 1_i64 } })
                            .session(session)
                            .await?;
                        if touched.matched_count == 1 && replaced.matched_count == 1 {
                            Ok(())
                        } else {
                            Err(mongodb::error::Error::custom(Stale))
                        }
                    }
                    .boxed()
                });
        is_done(limited(transaction).await?)
    }

    /// Removes an intent that was never sent and has not changed since `seen`; its contact is pending again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn call_remove_unsent(&self, seen: &Call) -> StoreResult<bool> {
        let mut filter = guard(seen);
        filter.insert("status", "dialing");
        Ok(self.calls.delete_one(filter).within().await?.deleted_count == 1)
    }
}

/// The call changed between reading and writing.
#[derive(Debug)]
struct Stale;

fn is_done(transaction: mongodb::error::Result<()>) -> StoreResult<bool> {
    match transaction {
        Ok(()) => Ok(true),
        Err(error) if error.get_custom::<Stale>().is_some() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn guard(seen: &Call) -> Document {
    doc! { "_id": oid(seen.id), "version": seen.version }
}
