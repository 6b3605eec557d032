//! Clients and keys on the wire.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::client::{ApiKey, Client, ClientPatch, ClientStatus, Fault};
use crate::domain::patch::Patch;
use crate::domain::phone::PhoneNumber;
use crate::domain::role::Role;
use crate::services::clients::NewClient;

/// A client to create.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientIn {
    /// What people call it.
    #[schema(example = "Acme")]
    name: String,
    /// The company behind it.
    company: Option<String>,
    /// Where to write to it.
    email: Option<String>,
    /// Live calls at most; DEFAULT_CLIENT_MAX_CONCURRENT_CALLS if not given.
    #[schema(minimum = 1, maximum = 100_000, example = 10)]
    max_concurrent_calls: Option<u32>,
    /// Calls started per rate window at most; MAX_CALLS_PER_MINUTE if not given.
    #[schema(minimum = 1, maximum = 100_000, example = 10)]
    max_calls_per_minute: Option<u32>,
    /// Live calls that nobody else can take away from it.
    #[serde(default)]
    guaranteed_calls: u32,
    /// The caller IDs that it may use, in E.164 form; empty = any.
    #[serde(default)]
    caller_ids: Vec<String>,
    /// Live calls at most with one caller ID.
    max_calls_per_caller_id: Option<u32>,
}

/// A change of a client: what is not mentioned stays, null removes.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientPatchIn {
    /// What people call it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Patch<String>,
    /// The company behind it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    company: Patch<String>,
    /// Where to write to it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    email: Patch<String>,
    /// Live calls at most. A lower limit takes effect as calls end.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    max_concurrent_calls: Patch<u32>,
    /// Calls started per rate window at most.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    max_calls_per_minute: Patch<u32>,
    /// Live calls that nobody else can take away from it.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    guaranteed_calls: Patch<u32>,
    /// The caller IDs that it may use, in E.164 form; empty = any.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    caller_ids: Patch<Vec<String>>,
    /// Live calls at most with one caller ID.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    max_calls_per_caller_id: Patch<u32>,
    /// Suspended: its keys are refused within 5 s.
    #[serde(default)]
    #[schema(value_type = Option<ClientStatus>)]
    status: Patch<ClientStatus>,
}

/// A client.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientOut {
    /// Its id.
    #[schema(example = "0123456789abcdef01234567")]
    id: String,
    /// What people call it.
    name: String,
    /// The company behind it.
    company: Option<String>,
    /// Where to write to it.
    email: Option<String>,
    /// Live calls at most.
    max_concurrent_calls: u32,
    /// Calls started per rate window at most.
    max_calls_per_minute: u32,
    /// Live calls that nobody else can take away from it.
    guaranteed_calls: u32,
    /// The caller IDs that it may use; empty = any. Masked for viewers.
    caller_ids: Vec<String>,
    /// Live calls at most with one caller ID.
    max_calls_per_caller_id: Option<u32>,
    /// Whether it may use the service.
    status: ClientStatus,
    /// When it was created.
    created_at: DateTime<Utc>,
}

impl ClientIn {
    /// The client to create, and the fault of each caller ID that is no number.
    #[must_use]
    pub fn into_new(self) -> (NewClient, Vec<Fault>) {
        let mut faults = Vec::new();
        let new = NewClient {
            caller_ids: numbers(&self.caller_ids, &mut faults),
            name: self.name,
            company: self.company,
            email: self.email,
            max_concurrent_calls: self.max_concurrent_calls,
            max_calls_per_minute: self.max_calls_per_minute,
            guaranteed_calls: self.guaranteed_calls,
            max_calls_per_caller_id: self.max_calls_per_caller_id,
        };
        (new, faults)
    }
}

impl ClientPatchIn {
    /// The change, and the fault of each value that cannot be removed and of each caller ID that is no number.
    #[must_use]
    pub fn into_patch(self) -> (ClientPatch, Vec<Fault>) {
        let mut faults = Vec::new();
        let caller_ids = required(self.caller_ids, "callerIds", &mut faults);
        let patch = ClientPatch {
            name: required(self.name, "name", &mut faults),
            company: self.company,
            email: self.email,
            max_concurrent_calls: required(
                self.max_concurrent_calls,
                "maxConcurrentCalls",
                &mut faults,
            ),
            max_calls_per_minute: required(
                self.max_calls_per_minute,
                "maxCallsPerMinute",
                &mut faults,
            ),
            guaranteed_calls: required(self.guaranteed_calls, "guaranteedCalls", &mut faults),
            caller_ids: caller_ids.map(|texts| numbers(&texts, &mut faults)),
            max_calls_per_caller_id: self.max_calls_per_caller_id,
            status: required(self.status, "status", &mut faults),
        };
        (patch, faults)
    }
}

/// The value of a field that cannot be removed.
fn required<T>(patch: Patch<T>, path: &'static str, faults: &mut Vec<Fault>) -> Option<T> {
    match patch {
        Patch::Keep => None,
        Patch::Set(value) => Some(value),
        Patch::Clear => {
            faults.push(Fault::new(path, "cannot be removed"));
            None
        }
    }
}

fn numbers(texts: &[String], faults: &mut Vec<Fault>) -> Vec<PhoneNumber> {
    let mut numbers = Vec::with_capacity(texts.len());
    for (place, text) in texts.iter().enumerate() {
        let path = || format!("callerIds[{place}]");
        match PhoneNumber::parse(text, None) {
            Ok(number) if numbers.contains(&number) => {
                faults.push(Fault::new(path(), "is there more than once"));
            }
            Ok(number) => numbers.push(number),
            Err(error) => faults.push(Fault::new(path(), error.to_string())),
        }
    }
    numbers
}

impl ClientOut {
    /// The client for somebody who may or may not see phone numbers.
    #[must_use]
    pub fn of(client: Client, may_see_numbers: bool) -> Self {
        let caller_ids = client
            .caller_ids
            .iter()
            .map(|number| super::number(number, may_see_numbers));
        Self {
            id: client.id.to_string(),
            name: client.name,
            company: client.company,
            email: client.email,
            max_concurrent_calls: client.max_concurrent_calls,
            max_calls_per_minute: client.max_calls_per_minute,
            guaranteed_calls: client.guaranteed_calls,
            caller_ids: caller_ids.collect(),
            max_calls_per_caller_id: client.max_calls_per_caller_id,
            status: client.status,
            created_at: client.created_at,
        }
    }
}

/// A key to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyIn {
    /// `operator` or `viewer`.
    pub role: Role,
    /// What its owner calls it.
    pub label: Option<String>,
}

/// A key that was just created.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyCreated {
    /// Its id, for revoking it.
    #[schema(example = "0123456789abcdef01234567")]
    id: String,
    /// The key. It is shown here and never again.
    key: String,
    /// What it allows.
    role: Role,
    /// What its owner calls it.
    label: Option<String>,
}

impl KeyCreated {
    /// Shows the key, this once.
    #[must_use]
    pub fn new(key: ApiKey, secret: &SecretString) -> Self {
        Self {
            id: key.id.to_string(),
            key: secret.expose_secret().to_owned(),
            role: key.role,
            label: key.label,
        }
    }
}

/// The record of a key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyOut {
    /// Its id.
    #[schema(example = "0123456789abcdef01234567")]
    id: String,
    /// What it allows.
    role: Role,
    /// What its owner calls it.
    label: Option<String>,
    /// When it was created.
    created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked, if it was.
    revoked_at: Option<DateTime<Utc>>,
}

impl From<ApiKey> for KeyOut {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            role: key.role,
            label: key.label,
            created_at: key.created_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
        }
    }
}
