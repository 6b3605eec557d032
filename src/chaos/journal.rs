//! What the harness did and saw, with times in unix ms: the material of the judgement, besides the carrier's books.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::judge::{Check, Promise};
use super::pulse::Pulse;

/// A campaign that was created.
#[derive(Debug, Clone)]
pub(super) struct Created {
    pub(super) id: String,
    pub(super) client: usize,
    pub(super) contacts: u64,
    pub(super) max_attempts: u64,
    /// The API has said that it is completed or cancelled.
    pub(super) is_over: bool,
}

/// A limit that may have been in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LimitSpan {
    /// As the slots name it: `client/<id>`, `number/<caller id without +>`.
    pub(super) scope: String,
    pub(super) calls: u64,
    pub(super) from: i64,
    /// Open while it may be.
    pub(super) until: Option<i64>,
    /// A request for it that nobody answered may take effect until then, whatever was set meanwhile.
    pub(super) lingers: i64,
}

/// What an operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Pause,
    Resume,
    Cancel,
}

/// An operator's command and its answer.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) campaign: String,
    pub(super) order: Order,
    pub(super) sent_at: i64,
    /// When it was answered, or given up.
    pub(super) done_at: i64,
    /// HTTP status, 0 for none.
    pub(super) status: u16,
}

/// A time in which something that a takeover needs was out of order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disturbance {
    pub(super) from: i64,
    pub(super) until: i64,
}

/// A driver that died or let go, and the next one's first sign.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Takeover {
    pub(super) campaign: String,
    /// `killed`, `frozen` or `stopped`.
    pub(super) cause: &'static str,
    pub(super) from: i64,
    /// When the next driver was seen; none where nobody was until the patience ended.
    pub(super) seen: Option<i64>,
    pub(super) gave_up: i64,
}

/// Memory of one container at one time.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    pub(super) when: &'static str,
    /// From 1.
    pub(super) container: usize,
    pub(super) rss_kib: u64,
}

/// Everything written down.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pub(super) campaigns: Vec<Created>,
    pub(super) limits: Vec<LimitSpan>,
    pub(super) commands: Vec<Command>,
    pub(super) disturbances: Vec<Disturbance>,
    pub(super) takeovers: Vec<Takeover>,
    pub(super) memory: Vec<Memory>,
    pub(super) pulses: Vec<Pulse>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// Who drives each campaign, as the API said last.
    pub(super) drivers: BTreeMap<String, String>,
    /// The ids of the containers' present lives, by their place.
    pub(super) container_ids: BTreeMap<usize, String>,
    /// What was checked while the run lasted.
    pub(super) checks: BTreeMap<Promise, Check>,
}

/// The journal. Clones are the same journal.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Pages>>);

impl Journal {
    /// The pages. Never held across an await.
    pub(super) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The campaigns that are not over, as far as the API has said.
    pub(super) fn active(&self) -> Vec<Created> {
        let pages = self.pages();
        let active = pages.campaigns.iter().filter(|campaign| !campaign.is_over);
        active.cloned().collect()
    }

    /// The API has said that a campaign is over.
    pub(super) fn is_over(&self, id: &str) {
        let mut pages = self.pages();
        if let Some(campaign) = pages
            .campaigns
            .iter_mut()
            .find(|campaign| campaign.id == id)
        {
            campaign.is_over = true;
        }
    }

    /// A limit may be in force from now on.
    pub(super) fn limit_asked(&self, scope: &str, calls: u64, now: i64) {
        self.pages().limits.push(LimitSpan {
            scope: scope.to_owned(),
            calls,
            from: now,
            until: None,
            lingers: now,
        });
    }

    /// The request for the limit that was asked for last was not answered: it may still take effect until `until`.
    pub(super) fn limit_uncertain(&self, scope: &str, until: i64) {
        let mut pages = self.pages();
        let mut of_scope = pages.limits.iter_mut().rev();
        if let Some(span) = of_scope.find(|span| span.scope == scope) {
            span.lingers = until;
        }
    }

    /// The limit that was asked for last is in force: no other one of its scope is.
    pub(super) fn limit_set(&self, scope: &str, now: i64) {
        let mut pages = self.pages();
        let mut of_scope = pages
            .limits
            .iter_mut()
            .rev()
            .filter(|span| span.scope == scope);
        of_scope.next();
        for earlier in of_scope {
            earlier.until.get_or_insert(now.max(earlier.lingers));
        }
    }

    pub(super) fn check(&self, promise: Promise, violation: Option<String>) {
        self.pages()
            .checks
            .entry(promise)
            .or_default()
            .add(violation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_limit_may_be_in_force_until_the_newer_one_is() {
        let journal = Journal::default();
        journal.limit_asked("client/a", 5, 0);
        journal.limit_asked("client/b", 5, 0);
        journal.limit_asked("client/a", 4, 50);
        journal.limit_uncertain("client/a", 900);
        journal.limit_asked("client/a", 3, 100);
        assert!(
            journal
                .pages()
                .limits
                .iter()
                .all(|span| span.until.is_none())
        );
        journal.limit_set("client/a", 130);
        let untils: Vec<_> = journal
            .pages()
            .limits
            .iter()
            .map(|span| span.until)
            .collect();
        assert_eq!(untils, [Some(130), None, Some(900), None]);
    }
}
