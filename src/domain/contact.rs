//! Contacts and the two ways they come in: rows under a header, and JSON objects.
//!
//! A header is read once into [`Columns`], which then turns each row into a [`ContactDraft`] or a [`RowError`] that names
//! the column and the reason; one bad row never costs the others. A draft becomes a [`Contact`] when the import gives it
//! its place in the list. `Debug` shows neither names nor fields (promise P8).

mod columns;

use std::collections::BTreeMap;
use std::fmt;

use chrono_tz::Tz;
use serde::Deserialize;
use thiserror::Error;
use utoipa::ToSchema;

use super::phone::{CountryCode, PhoneNumber};
pub use columns::{Columns, HeaderError, NameError};
use columns::{EMAIL, Role, TAG};

/// Most columns of a list, and most fields of a contact.
const MAX_COLUMNS: usize = 100;
/// Longest cell, in characters.
const MAX_CELL_CHARS: usize = 1_000;

/// The name under which templates reach [`Contact::first_name`].
const FIRST_NAME: &str = "firstName";

/// One person of a list.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// Place in the list: 0 to n-1 without holes, in the order of the file. Contacts are dialed in this order.
    pub seq: u64,
    /// The number to dial; once per list.
    pub number: PhoneNumber,
    /// How to greet the person.
    pub first_name: Option<String>,
    /// Where the person's clock is, for calling windows in the contact's own time.
    pub time_zone: Option<Tz>,
    /// Every other column that is not empty, `email` and `tag` among them.
    pub fields: BTreeMap<String, String>,
}

impl Contact {
    /// The value that a template's name stands for: `firstName` or one of the fields. Never the number.
    pub fn value(&self, name: &str) -> Option<&str> {
        match name {
            FIRST_NAME => self.first_name.as_deref(),
            _ => self.fields.get(name).map(String::as_str),
        }
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contact")
            .field("seq", &self.seq)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// A good row that has no place in the list yet: it may still turn out to be a duplicate.
#[derive(Clone, PartialEq, Eq)]
pub struct ContactDraft {
    /// See [`Contact::number`].
    pub number: PhoneNumber,
    /// See [`Contact::first_name`].
    pub first_name: Option<String>,
    /// See [`Contact::time_zone`].
    pub time_zone: Option<Tz>,
    /// See [`Contact::fields`].
    pub fields: BTreeMap<String, String>,
}

impl fmt::Debug for ContactDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContactDraft")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl ContactDraft {
    /// Gives the draft its place.
    pub fn at(self, seq: u64) -> Contact {
        let Self {
            number,
            first_name,
            time_zone,
            fields,
        } = self;
        Contact {
            seq,
            number,
            first_name,
            time_zone,
            fields,
        }
    }

    /// The names that templates may use for this contact. A list that came as JSON has no header: its names are those of
    /// all its contacts together.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let first_name = self.first_name.as_ref().map(|_| FIRST_NAME);
        first_name
            .into_iter()
            .chain(self.fields.keys().map(String::as_str))
    }

    /// Reads a contact that came as JSON, by the same rules as a row.
    ///
    /// # Errors
    /// [`RowError`] with the JSON field as its column, for example `timeZone` or `fields.city`.
    pub fn from_json_fields(
        contact: JsonContact,
        default_country: Option<CountryCode>,
    ) -> Result<Self, RowError> {
        let JsonContact {
            number,
            first_name,
            email,
            tag,
            time_zone,
            fields,
        } = contact;
        if fields.len() > MAX_COLUMNS {
            return Err(RowError::new(
                "fields",
                format!("has more than {MAX_COLUMNS} fields"),
            ));
        }
        let named = [
            (Role::Number, Some(number), "number"),
            (Role::FirstName, first_name, FIRST_NAME),
            (Role::Field(EMAIL.to_owned()), email, EMAIL),
            (Role::Field(TAG.to_owned()), tag, TAG),
            (Role::TimeZone, time_zone, "timeZone"),
        ];
        let mut row = Row::default();
        for (role, value, name) in named {
            if let Some(value) = value {
                row.take(&role, &value, default_country)
                    .map_err(|reason| RowError::new(name, reason))?;
            }
        }
        for (name, value) in fields {
            let column = format!("fields.{name}");
            let role =
                Role::of(&name).map_err(|fault| RowError::new(&column, fault.to_string()))?;
            if !role.is_own() {
                let reason = "has a place of its own beside fields".to_owned();
                return Err(RowError::new(column, reason));
            }
            row.take(&role, &value, default_country)
                .map_err(|reason| RowError::new(column, reason))?;
        }
        row.finish("number")
    }
}

/// A contact as it comes in a JSON request.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JsonContact {
    /// The number, in any form that [`PhoneNumber::parse`] reads.
    #[schema(example = "+14155550123")]
    pub number: String,
    /// How to greet the person.
    pub first_name: Option<String>,
    /// Kept as the field `email`.
    pub email: Option<String>,
    /// Kept as the field `tag`.
    pub tag: Option<String>,
    /// IANA name of the person's time zone.
    #[schema(example = "Asia/Kolkata")]
    pub time_zone: Option<String>,
    /// Anything else that templates should reach, by name.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
}

impl fmt::Debug for JsonContact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonContact").finish_non_exhaustive()
    }
}

/// Why a row or a JSON contact was refused. The reason holds no value of the row.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct RowError {
    /// The column at fault, by the name in the file; `None` where the row as a whole is.
    pub column: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

impl RowError {
    fn new(column: impl Into<String>, reason: String) -> Self {
        Self {
            column: Some(column.into()),
            reason,
        }
    }
}

/// A contact being put together.
#[derive(Default)]
struct Row {
    number: Option<PhoneNumber>,
    first_name: Option<String>,
    time_zone: Option<Tz>,
    fields: BTreeMap<String, String>,
}

impl Row {
    /// Takes one value, or says what is wrong with it.
    fn take(
        &mut self,
        role: &Role,
        value: &str,
        default_country: Option<CountryCode>,
    ) -> Result<(), String> {
        let value = value.trim();
        if value.is_empty() {
            return Ok(());
        }
        if value.len() > MAX_CELL_CHARS && value.chars().count() > MAX_CELL_CHARS {
            return Err(format!("has more than {MAX_CELL_CHARS} characters"));
        }
        match role {
            Role::Number => {
                let number = PhoneNumber::parse(value, default_country)
                    .map_err(|fault| fault.to_string())?;
                self.number = Some(number);
            }
            Role::FirstName => self.first_name = Some(value.to_owned()),
            Role::TimeZone => {
                let zone = value
                    .parse::<Tz>()
                    .map_err(|_| "not an IANA time zone, for example Asia/Kolkata")?;
                self.time_zone = Some(zone);
            }
            Role::Field(name) => {
                self.fields.insert(name.clone(), value.to_owned());
            }
        }
        Ok(())
    }

    /// The draft, unless the number is missing.
    fn finish(self, number_column: &str) -> Result<ContactDraft, RowError> {
        let Self {
            number,
            first_name,
            time_zone,
            fields,
        } = self;
        let number =
            number.ok_or_else(|| RowError::new(number_column, "the number is empty".to_owned()))?;
        Ok(ContactDraft {
            number,
            first_name,
            time_zone,
            fields,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<ContactDraft, RowError> {
        ContactDraft::from_json_fields(serde_json::from_str(text).unwrap(), None)
    }

    #[test]
    fn a_json_contact_is_read_like_a_row() {
        let draft = json(
            r#"{"number": "+1 415 555 0123", "firstName": " Ada ", "email": "a@example.com", "tag": "", "timeZone": "Europe/Berlin",
                "fields": {"order no": "17", "note": " "}}"#,
        )
        .unwrap();
        assert_eq!(draft.number.as_str(), "+14155550123");
        assert_eq!(draft.first_name.as_deref(), Some("Ada"));
        assert_eq!(draft.time_zone, Some(Tz::Europe__Berlin));
        assert_eq!(
            draft.names().collect::<Vec<_>>(),
            ["firstName", "email", "order no"]
        );
        let contact = draft.at(7);
        assert_eq!(contact.seq, 7);
        assert_eq!(contact.value("firstName"), Some("Ada"));
        assert_eq!(contact.value("order no"), Some("17"));
        assert_eq!(
            (contact.value("number"), contact.value("tag")),
            (None, None)
        );
    }

    #[test]
    fn faults_of_json_contacts_name_the_field() {
        let long = "x".repeat(MAX_CELL_CHARS + 1);
        for (text, column) in [
            (r#"{"number": ""}"#.to_owned(), "number"),
            (r#"{"number": "4155550123"}"#.to_owned(), "number"),
            (
                r#"{"number": "+14155550123", "timeZone": "Mars"}"#.to_owned(),
                "timeZone",
            ),
            (
                format!(r#"{{"number": "+14155550123", "firstName": "{long}"}}"#),
                "firstName",
            ),
            (
                format!(r#"{{"number": "+14155550123", "fields": {{"a": "{long}"}}}}"#),
                "fields.a",
            ),
            (
                r#"{"number": "+14155550123", "fields": {"Email": "a"}}"#.to_owned(),
                "fields.Email",
            ),
            (
                r#"{"number": "+14155550123", "fields": {"phone": "a"}}"#.to_owned(),
                "fields.phone",
            ),
            (
                r#"{"number": "+14155550123", "fields": {" a": "a"}}"#.to_owned(),
                "fields. a",
            ),
            (
                r#"{"number": "+14155550123", "fields": {"{{a": "a"}}"#.to_owned(),
                "fields.{{a",
            ),
        ] {
            let error = json(&text).unwrap_err();
            assert_eq!(error.column.as_deref(), Some(column), "{text}");
            assert!(!error.to_string().contains("555"), "{error}");
        }
        let fields: BTreeMap<String, String> = (0..=MAX_COLUMNS)
            .map(|index| (index.to_string(), String::new()))
            .collect();
        let many = serde_json::json!({"number": "+14155550123", "fields": fields}).to_string();
        assert_eq!(json(&many).unwrap_err().column.as_deref(), Some("fields"));
        assert!(
            serde_json::from_str::<JsonContact>(r#"{"number": "+14155550123", "name": "Ada"}"#)
                .is_err()
        );
    }

    #[test]
    fn nothing_prints_a_persons_data() {
        let source = r#"{"number": "+14155550123", "firstName": "Ada", "tag": "secret"}"#;
        let request: JsonContact = serde_json::from_str(source).unwrap();
        let draft = json(source).unwrap();
        let printed = format!("{request:?} {draft:?} {:?}", draft.clone().at(0));
        assert!(
            !["Ada", "secret", "1415555"]
                .iter()
                .any(|text| printed.contains(text)),
            "{printed}"
        );
    }
}
