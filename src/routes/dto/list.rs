//! Contact lists on the wire.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::contact::{Contact, JsonContact};
use crate::domain::ids::ClientId;
use crate::domain::list::{ContactList, ListStatus, RejectedRow};
use crate::domain::role::Principal;

/// A list to create from JSON.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListIn {
    /// What its owner calls it.
    #[schema(example = "May customers")]
    pub name: String,
    /// The country of numbers without a country code (ISO 3166-1 alpha-2).
    #[schema(example = "IN")]
    pub default_country: Option<String>,
    /// Whose it will be; for admins.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-fA-F]{24}$")]
    pub client_id: Option<ClientId>,
    /// The contacts, in the order in which they are dialed.
    pub contacts: Vec<JsonContact>,
}

/// A list to create from a CSV file: the parts of the form. Behind the file only the name may come.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "only describes the form for the API's document")]
pub struct ListForm {
    /// What its owner calls it.
    name: String,
    /// The country of numbers without a country code (ISO 3166-1 alpha-2).
    default_country: Option<String>,
    /// Whose it will be; for admins.
    #[schema(pattern = "^[0-9a-fA-F]{24}$")]
    client_id: Option<String>,
    /// CSV in UTF-8 with a header; a column `number`, `phone` or `mobile` is needed, `firstName` and `timeZone` are
    /// understood, all others are kept for templates. At most 512 MiB and 5 million rows.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// A contact list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListOut {
    /// Its id.
    #[schema(example = "0123456789abcdef01234567")]
    id: String,
    /// Whose it is.
    client_id: String,
    /// What its owner calls it.
    name: String,
    /// How far it is; only a ready one can be dialed.
    status: ListStatus,
    /// Rows of the file: `accepted + duplicates + rejected`.
    total: u64,
    /// Contacts of the list.
    accepted: u64,
    /// Rows whose number came before.
    duplicates: u64,
    /// Rows that cannot be dialed.
    rejected: u64,
    /// The first 100 rejected rows; left out (empty) where many lists are answered at once.
    errors: Vec<RejectedRow>,
    /// The country of numbers without a country code.
    default_country: Option<String>,
    /// The names that templates may use.
    columns: Vec<String>,
    /// When it was created.
    created_at: DateTime<Utc>,
}

impl From<ContactList> for ListOut {
    fn from(list: ContactList) -> Self {
        Self {
            id: list.id.to_string(),
            client_id: list.client_id.to_string(),
            name: list.name,
            status: list.status,
            total: list.total,
            accepted: list.accepted,
            duplicates: list.duplicates,
            rejected: list.rejected,
            errors: list.errors,
            default_country: list.default_country.map(String::from),
            columns: list.columns,
            created_at: list.created_at,
        }
    }
}

/// A contact.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContactOut {
    /// Its place in the list, from 0.
    seq: u64,
    /// The number in E.164 form; masked for viewers.
    #[schema(example = "+14155550123")]
    number: String,
    /// How to greet the person.
    first_name: Option<String>,
    /// The person's time zone.
    time_zone: Option<String>,
    /// Every other column that is not empty.
    fields: BTreeMap<String, String>,
}

impl ContactOut {
    /// Shows a contact as far as the caller may see it.
    #[must_use]
    pub fn new(contact: Contact, principal: Principal) -> Self {
        let number = match principal.may_see_numbers() {
            true => contact.number.as_str().to_owned(),
            false => contact.number.masked(),
        };
        Self {
            seq: contact.seq,
            number,
            first_name: contact.first_name,
            time_zone: contact.time_zone.map(|zone| zone.name().to_owned()),
            fields: contact.fields,
        }
    }
}
