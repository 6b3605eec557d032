//! Contact lists and what their import has to report.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::contact::RowError;
use super::ids::{ClientId, ListId};
use super::phone::CountryCode;

/// Longest name of a list, in characters.
const MAX_NAME_CHARS: usize = 200;

/// How far a list is. Only a ready one can be dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListStatus {
    /// Its contacts are being written.
    Importing,
    /// All its contacts are there.
    Ready,
    /// It cannot be used: it comes from the earlier system and was not migrated.
    Failed,
}

/// A row that is not in the list, and why. Holds no value of the row (promise P8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedRow {
    /// The line of the file in which the row begins, the header being line 1; for JSON the place in `contacts`, from 1.
    #[schema(example = 17)]
    pub line: u64,
    /// The column at fault, by its name in the file; absent where the row as a whole is.
    #[schema(example = "number")]
    pub column: Option<String>,
    /// What is wrong.
    #[schema(example = "too few digits")]
    pub reason: String,
}

impl RejectedRow {
    /// The fault of a row, with its place.
    #[must_use]
    pub fn new(line: u64, error: RowError) -> Self {
        Self {
            line,
            column: error.column,
            reason: error.reason,
        }
    }
}

/// A contact list without its contacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactList {
    /// Its id.
    pub id: ListId,
    /// Whose it is.
    pub client_id: ClientId,
    /// What its owner calls it.
    pub name: String,
    /// How far it is.
    pub status: ListStatus,
    /// Rows of the file, the header not counted: `accepted + duplicates + rejected`.
    pub total: u64,
    /// Its contacts; they have `seq` 0 to `accepted - 1`.
    pub accepted: u64,
    /// Rows whose number is in the list already; the first one counts.
    pub duplicates: u64,
    /// Rows that cannot be dialed.
    pub rejected: u64,
    /// The first rejected rows; left out where many lists are read at once.
    pub errors: Vec<RejectedRow>,
    /// The country of numbers without a country code.
    pub default_country: Option<CountryCode>,
    /// The names that templates may use.
    pub columns: Vec<String>,
    /// When the import began.
    pub created_at: DateTime<Utc>,
}

/// What is wrong with a list's name, if anything.
#[must_use]
pub fn name_fault(name: &str) -> Option<String> {
    if name.trim().is_empty() {
        return Some("may not be empty".to_owned());
    }
    let possible = name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control);
    (!possible).then(|| {
        format!("has at most {MAX_NAME_CHARS} characters, none of them a control character")
    })
}
