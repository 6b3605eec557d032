//! Whom to dial next, and whether it may be now: due calls, file order, calling windows, expiry.

use chrono::{DateTime, Utc};

use super::{Driver, Step, seq, until};
use crate::domain::call::{Call, CallStatus};
use crate::domain::campaign::Campaign;
use crate::domain::contact::Contact;
use crate::domain::outcome::SkipReason;
use crate::domain::window::{Window, WindowState, WindowZone};
use crate::services::intent;
use crate::services::store::{StoreError, StoreResult};
use crate::utils::crash_points::crash_point;

/// Contacts read at once.
const READ_AHEAD: u32 = 200;
/// Contacts skipped at once.
const SKIP_BATCH: u32 = 1000;

/// Whom to dial next.
pub(super) enum Next {
    /// A contact never claimed.
    Contact(Contact),
    /// A call that waits to be dialed, or an ended one that deserves another attempt.
    Due(Box<Call>),
}

impl Driver {
    /// What is due comes first: it was promised a time. Else the next contact in file order.
    pub(super) async fn next(
        &mut self,
        campaign: &Campaign,
        now: DateTime<Utc>,
    ) -> StoreResult<Option<Next>> {
        if let Some(call) = self.parts.store.call_due(campaign.id, now).await? {
            return Ok(Some(Next::Due(Box::new(call))));
        }
        let index = campaign.current_index;
        if index >= campaign.total {
            return Ok(None);
        }
        while self
            .contacts
            .front()
            .is_some_and(|contact| seq(contact) < index)
        {
            self.contacts.pop_front();
        }
        if self
            .contacts
            .front()
            .is_none_or(|contact| seq(contact) != index)
        {
            self.contacts = self
                .contacts_from(campaign, index, READ_AHEAD)
                .await?
                .into();
        }
        match self.contacts.front() {
            Some(contact) if seq(contact) == index => Ok(Some(Next::Contact(contact.clone()))),
            _ => Err(StoreError::Corrupt {
                what: "list: a contact is missing",
            }),
        }
    }

    async fn contacts_from(
        &self,
        campaign: &Campaign,
        seq: i64,
        limit: u32,
    ) -> StoreResult<Vec<Contact>> {
        let from = u64::try_from(seq).unwrap_or(0);
        self.parts
            .store
            .contacts_range(campaign.list_id, from, limit)
            .await
    }

    /// What to do about a calling window that is closed; `None` when the call may be made.
    pub(super) async fn closed_window(
        &self,
        campaign: &Campaign,
        next: &Next,
        now: DateTime<Utc>,
    ) -> StoreResult<Option<Step>> {
        let Some(window) = &campaign.window else {
            return Ok(None);
        };
        let step = match (self.window_state(window, campaign, next, now).await?, next) {
            (WindowState::Open { .. }, _) => return Ok(None),
            // The same clock for everybody: nobody else could be dialed either.
            (WindowState::Closed { opens_at }, _) if window.time_zone != WindowZone::Contact => {
                Step::Wait("window", until(opens_at, now))
            }
            (WindowState::Closed { opens_at }, Next::Contact(contact)) => {
                self.defer(campaign, contact, opens_at).await?;
                Step::Did
            }
            (WindowState::Closed { opens_at }, Next::Due(call)) => {
                let mut later = (**call).clone();
                later.retry_at = Some(opens_at);
                self.parts.store.call_replace(call, &later).await?;
                Step::Did
            }
            (WindowState::NoZone, Next::Contact(contact)) => {
                let call = intent::skipped(campaign, contact, SkipReason::WindowClosed, now);
                self.pass_over(campaign, &[call]).await?;
                Step::Did
            }
            (WindowState::NoZone, Next::Due(call)) => {
                self.give_up(call, SkipReason::WindowClosed).await?;
                Step::Did
            }
        };
        Ok(Some(step))
    }

    /// Whether a calling window forbids the dial now.
    pub(super) async fn is_closed(
        &self,
        campaign: &Campaign,
        next: &Next,
        now: DateTime<Utc>,
    ) -> StoreResult<bool> {
        let Some(window) = &campaign.window else {
            return Ok(false);
        };
        let state = self.window_state(window, campaign, next, now).await?;
        Ok(!matches!(state, WindowState::Open { .. }))
    }

    async fn window_state(
        &self,
        window: &Window,
        campaign: &Campaign,
        next: &Next,
        now: DateTime<Utc>,
    ) -> StoreResult<WindowState> {
        let zone = match next {
            _ if window.time_zone != WindowZone::Contact => None,
            Next::Contact(contact) => contact.time_zone,
            Next::Due(call) => self.zone_of(campaign, call).await?,
        };
        Ok(window.state(zone, now))
    }

    async fn zone_of(
        &self,
        campaign: &Campaign,
        call: &Call,
    ) -> StoreResult<Option<chrono_tz::Tz>> {
        let Some(seq) = call.contact_seq else {
            return Ok(None);
        };
        let found = self.contacts_from(campaign, seq, 1).await?;
        Ok(found.first().and_then(|contact| contact.time_zone))
    }

    /// The contact's window is closed: it waits for its own opening while others go on.
    async fn defer(
        &self,
        campaign: &Campaign,
        contact: &Contact,
        opens_at: DateTime<Utc>,
    ) -> StoreResult<()> {
        let mut call = intent::of_contact(&self.parts, campaign, contact, Vec::new(), &self.lease);
        call.status = CallStatus::Waiting;
        call.retry_at = Some(opens_at);
        call.deadline = None;
        self.pass_over(campaign, &[call]).await
    }

    /// Writes calls that are not dialed, then moves on past their contacts.
    pub(super) async fn pass_over(&self, campaign: &Campaign, calls: &[Call]) -> StoreResult<()> {
        let store = &self.parts.store;
        store.call_insert_undialed(calls).await?;
        crash_point!("undialed.before_passing_over");
        let to = campaign.current_index + i64::try_from(calls.len()).unwrap_or(0);
        store
            .campaign_pass_over(&self.lease, campaign.current_index, to)
            .await
            .map(drop)
    }

    /// Past the campaign's expiry: what was not dialed yet never will be.
    pub(super) async fn expire(
        &self,
        campaign: &Campaign,
        now: DateTime<Utc>,
    ) -> StoreResult<Step> {
        if campaign.current_index < campaign.total {
            let contacts = self
                .contacts_from(campaign, campaign.current_index, SKIP_BATCH)
                .await?;
            if contacts.is_empty() {
                return Err(StoreError::Corrupt {
                    what: "list: a contact is missing",
                });
            }
            let skip = |contact| intent::skipped(campaign, contact, SkipReason::Expired, now);
            let calls: Vec<Call> = contacts.iter().map(skip).collect();
            self.pass_over(campaign, &calls).await?;
            return Ok(Step::Did);
        }
        match self.parts.store.call_first_waiting(campaign.id).await? {
            Some(call) => {
                self.give_up(&call, SkipReason::Expired).await?;
                Ok(Step::Did)
            }
            None => self.finish_or_wait(campaign, now).await,
        }
    }

    /// No (further) attempt: a contact never dialed is skipped, one that was keeps the outcome it has.
    async fn give_up(&self, call: &Call, reason: SkipReason) -> StoreResult<()> {
        let mut ended = call.clone();
        ended.retry_at = None;
        ended.retry = None;
        if call.status == CallStatus::Waiting {
            ended.status = CallStatus::Skipped;
            ended.skip_reason = Some(reason);
        }
        // A lost race means that something happened to the call; the next step looks again.
        self.parts.store.call_replace(call, &ended).await.map(drop)
    }
}
