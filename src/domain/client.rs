//! Clients (tenants), their limits, and their API keys.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::{ClientId, KeyId};
use super::patch::Patch;
use super::phone::PhoneNumber;
use super::role::Role;

/// The highest limit that a client may have: more live calls than any carrier account has.
pub const MAX_LIMIT: u32 = 100_000;
/// Longest name of a client, company or key, in characters.
const MAX_NAME_CHARS: usize = 200;
/// Longest e-mail address (RFC 5321, section 4.5.3.1.3, without the angle brackets).
const MAX_EMAIL_BYTES: usize = 254;
/// Most caller IDs of one client.
const MAX_CALLER_IDS: usize = 1000;

/// Whether a client may use the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientStatus {
    /// It may.
    Active,
    /// Its keys are refused.
    Suspended,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// What people call it.
    pub name: String,
    /// The company behind it.
    pub company: Option<String>,
    /// Where to write to it.
    pub email: Option<String>,
    /// Live calls at most.
    pub max_concurrent_calls: u32,
    /// Calls started per rate window (by default a minute) at most.
    pub max_calls_per_minute: u32,
    /// Live calls that nobody else can take away from it; part of `max_concurrent_calls`.
    pub guaranteed_calls: u32,
    /// The caller IDs that it may use; empty = any.
    pub caller_ids: Vec<PhoneNumber>,
    /// Live calls at most with one caller ID.
    pub max_calls_per_caller_id: Option<u32>,
    /// Whether it may use the service.
    pub status: ClientStatus,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// A value of a client or key that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field, as on the wire.
    pub path: Cow<'static, str>,
    /// What is wrong with it.
    pub reason: String,
}

impl Fault {
    /// The fault of one field.
    pub fn new(path: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

impl Client {
    /// Everything that cannot be as it is; empty when all is well.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        faults.extend(name_fault("name", &self.name));
        if let Some(company) = &self.company {
            faults.extend(name_fault("company", company));
        }
        if let Some(email) = &self.email {
            faults.extend(email_fault(email));
        }
        faults.extend(limit_fault("maxConcurrentCalls", self.max_concurrent_calls));
        faults.extend(limit_fault("maxCallsPerMinute", self.max_calls_per_minute));
        if let Some(limit) = self.max_calls_per_caller_id {
            faults.extend(limit_fault("maxCallsPerCallerId", limit));
        }
        if self.guaranteed_calls > self.max_concurrent_calls {
            let reason = "may not be more than maxConcurrentCalls";
            faults.push(Fault::new("guaranteedCalls", reason));
        }
        if self.caller_ids.len() > MAX_CALLER_IDS {
            let reason = format!("may not have more than {MAX_CALLER_IDS} numbers");
            faults.push(Fault::new("callerIds", reason));
        }
        faults
    }

    /// Whether the client may show this caller ID.
    #[must_use]
    pub fn may_use(&self, caller_id: &PhoneNumber) -> bool {
        self.caller_ids.is_empty() || self.caller_ids.contains(caller_id)
    }
}

/// What is wrong with the label of a key, if anything.
#[must_use]
pub fn label_fault(label: &str) -> Option<Fault> {
    name_fault("label", label)
}

fn name_fault(path: &'static str, name: &str) -> Option<Fault> {
    if name.trim().is_empty() {
        return Some(Fault::new(path, "may not be empty"));
    }
    if name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        let reason =
            format!("has at most {MAX_NAME_CHARS} characters, none of them a control character");
        return Some(Fault::new(path, reason));
    }
    None
}

/// A plausibility check: only sending a letter proves that an address exists.
fn email_fault(email: &str) -> Option<Fault> {
    let plausible = email.len() <= MAX_EMAIL_BYTES
        && !email.chars().any(|c| c.is_whitespace() || c.is_control())
        && matches!(email.rsplit_once('@'), Some((user, host)) if !user.is_empty() && !host.is_empty());
    (!plausible).then(|| Fault::new("email", "is not an e-mail address"))
}

fn limit_fault(path: &'static str, limit: u32) -> Option<Fault> {
    let possible = (1..=MAX_LIMIT).contains(&limit);
    (!possible).then(|| Fault::new(path, format!("must be 1 to {MAX_LIMIT}")))
}

/// A change of a client.
#[derive(Debug, Clone, Default)]
pub struct ClientPatch {
    /// See [`Client::name`].
    pub name: Option<String>,
    /// See [`Client::company`].
    pub company: Patch<String>,
    /// See [`Client::email`].
    pub email: Patch<String>,
    /// See [`Client::max_concurrent_calls`].
    pub max_concurrent_calls: Option<u32>,
    /// See [`Client::max_calls_per_minute`].
    pub max_calls_per_minute: Option<u32>,
    /// See [`Client::guaranteed_calls`].
    pub guaranteed_calls: Option<u32>,
    /// See [`Client::caller_ids`].
    pub caller_ids: Option<Vec<PhoneNumber>>,
    /// See [`Client::max_calls_per_caller_id`].
    pub max_calls_per_caller_id: Patch<u32>,
    /// See [`Client::status`].
    pub status: Option<ClientStatus>,
}

impl ClientPatch {
    /// The client as it is afterwards; not checked.
    #[must_use]
    pub fn apply(self, client: Client) -> Client {
        Client {
            id: client.id,
            name: self.name.unwrap_or(client.name),
            company: self.company.apply(client.company),
            email: self.email.apply(client.email),
            max_concurrent_calls: self
                .max_concurrent_calls
                .unwrap_or(client.max_concurrent_calls),
            max_calls_per_minute: self
                .max_calls_per_minute
                .unwrap_or(client.max_calls_per_minute),
            guaranteed_calls: self.guaranteed_calls.unwrap_or(client.guaranteed_calls),
            caller_ids: self.caller_ids.unwrap_or(client.caller_ids),
            max_calls_per_caller_id: self
                .max_calls_per_caller_id
                .apply(client.max_calls_per_caller_id),
            status: self.status.unwrap_or(client.status),
            created_at: client.created_at,
        }
    }
}

/// The record of an API key. The key itself is known to its holder only; we keep its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// The client that it belongs to; `None` for an admin's.
    pub client_id: Option<ClientId>,
    /// What it allows.
    pub role: Role,
    /// What its owner calls it.
    pub label: Option<String>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::super::ids::Id;
    use super::*;

    fn client() -> Client {
        Client {
            id: ClientId::from_bytes([7; 12]),
            name: "Acme".to_owned(),
            company: None,
            email: Some("ops@acme.example".to_owned()),
            max_concurrent_calls: 10,
            max_calls_per_minute: 10,
            guaranteed_calls: 0,
            caller_ids: Vec::new(),
            max_calls_per_caller_id: None,
            status: ClientStatus::Active,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn every_impossible_value_is_named() {
        assert_eq!(client().faults(), []);
        let wrong = Client {
            name: " ".to_owned(),
            company: Some("x".repeat(201)),
            email: Some("nobody".to_owned()),
            max_concurrent_calls: 0,
            max_calls_per_minute: MAX_LIMIT + 1,
            guaranteed_calls: 1,
            max_calls_per_caller_id: Some(0),
            ..client()
        };
        let paths: Vec<_> = wrong.faults().into_iter().map(|fault| fault.path).collect();
        let expected = [
            "name",
            "company",
            "email",
            "maxConcurrentCalls",
            "maxCallsPerMinute",
            "maxCallsPerCallerId",
            "guaranteedCalls",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn a_patch_changes_what_it_mentions() {
        let patch = ClientPatch {
            email: Patch::Clear,
            max_concurrent_calls: Some(3),
            status: Some(ClientStatus::Suspended),
            ..ClientPatch::default()
        };
        let expected = Client {
            email: None,
            max_concurrent_calls: 3,
            status: ClientStatus::Suspended,
            ..client()
        };
        assert_eq!(patch.apply(client()), expected);
    }

    #[test]
    fn caller_ids_are_free_until_some_are_named() {
        let number = |text| PhoneNumber::parse(text, None).unwrap();
        let free = client();
        let bound = Client {
            caller_ids: vec![number("+14155550100")],
            ..client()
        };
        assert!(free.may_use(&number("+14155550199")));
        assert!(bound.may_use(&number("+14155550100")));
        assert!(!bound.may_use(&number("+14155550199")));
    }
}
